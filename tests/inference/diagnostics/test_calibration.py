"""Ranks of the latents that made the data."""

import pytest
import torch
from planes import two_planes
from scipy import stats
from stories import fingerprint

from ppvae.inference import calibration
from ppvae.inference.diagnostics.calibration import Calibration, rank, uniform_p_value
from ppvae.selfcheck.analytic import LinearGaussian


def test_ranks_count_the_draws_below_the_truth():
    draws = torch.arange(9.0).reshape(9, 1, 1)
    for truth, expected in ((-1.0, 0), (3.5, 4), (10.0, 9)):
        assert rank(draws, torch.tensor([[truth]])).ranks.item() == expected


def test_the_p_value_is_pearsons():
    ranks = torch.randint(100, (400, 3))
    counts = torch.stack([torch.histc(column.double(), 20, 0, 100) for column in ranks.T])
    expected = [stats.chisquare(row.numpy()).pvalue for row in counts]
    assert uniform_p_value(ranks, 99).tolist() == pytest.approx(expected)


def test_p_values_are_uniform_where_the_posterior_is_right():
    """Means of 300 p-values of exact posteriors, within 4 standard errors of 1/2."""
    ranks = torch.randint(100, (200, 300))
    p = uniform_p_value(ranks, 99)
    assert abs(p.mean() - 0.5) < 4 * (1 / 12 / 300) ** 0.5


@pytest.mark.parametrize(
    ("widen", "shift", "right"), [(1.0, 0.0, True), (0.5, 0.0, False), (2.0, 0.0, False), (1.0, 0.4, False)]
)
def test_a_guide_that_is_off_is_told_from_one_that_is_exact(widen, shift, right):
    known = LinearGaussian()
    found = calibration(
        known.story(widen, shift), known.data(20), "amortised", num_simulations=400, num_samples=99, progress=False
    )
    assert found.ranks.shape == (400, 2)
    assert (found.worst > 0.01) == right
    middle = ((found.ranks > 25) & (found.ranks < 75)).double().mean()
    if widen != 1:
        assert (middle > 0.6) == (widen > 1)  # heaped in the middle, or at the ends


def test_a_method_that_misses_a_mode_is_caught():
    """Of little noise, half of the latents lie in the missed mode, below every draw: 49 +- 5 of 100 in a bin of 5.

    Pearson's statistic of one dimension is then 400 and more; for 1e-3 it takes 17 in that bin, 6 standard errors less.
    """
    story, x = two_planes(noise=0.05)
    assert calibration(story, x, "amortised", num_simulations=100, num_samples=99, progress=False).worst < 1e-6
    assert calibration(story, x, "local full", num_simulations=100, num_samples=99, progress=False).worst < 1e-3


def test_it_changes_nothing_and_comes_again():
    known = LinearGaussian()
    story, x = known.story(), known.data(5)
    before = fingerprint(story)
    one = calibration(story, x, "amortised", num_simulations=40, num_samples=99, progress=False)
    assert fingerprint(story) == before
    torch.randn(3)
    assert torch.equal(
        one.ranks, calibration(story, x, "amortised", num_simulations=40, num_samples=99, progress=False).ranks
    )
    with pytest.raises(ValueError, match="at least 20 simulations, got 19"):
        calibration(story, x, "amortised", num_simulations=19, progress=False)


def test_of_many_draws_evenly_spread_ones_are_ranked_among():
    """Neighbours of a Markov chain are alike: every third of 295 is taken, from the first to the last."""
    found = rank(torch.arange(295.0).reshape(295, 1, 1), torch.tensor([[-0.5], [0.5], [149.0], [293.5], [294.5]]))
    assert found.draws == 99
    assert found.ranks[:, 0].tolist() == [0, 1, 50, 98, 99]


def test_bins_hold_five_data_or_more():
    """Fewer, and Pearson's statistic has not its distribution; of too few data for two bins nothing is said."""
    ranks = torch.randint(100, (40, 3))
    counts = torch.stack([torch.histc(column.double(), 5, 0, 100) for column in ranks.T])
    expected = [stats.chisquare(row.numpy()).pvalue for row in counts]
    assert uniform_p_value(ranks, 99).tolist() == pytest.approx(expected)
    assert uniform_p_value(ranks[:9], 99).isnan().all()


def test_the_worst_dimension_is_judged_by_how_many_were_looked_at():
    assert Calibration(torch.zeros(1, 3), 99, torch.tensor([0.3, 0.02, 0.9])).worst == pytest.approx(0.06)
    assert Calibration(torch.zeros(1, 3), 99, torch.tensor([0.5, 0.8, 0.9])).worst == 1
