"""The K-curve: its order, its expectation by quadrature, its error by repetition."""

import math

import numpy as np
import pytest
import torch

from ppvae.inference import bound_curve, log_mean_exp, log_weights
from ppvae.inference.evidence.bound_curve import default_counts
from ppvae.inference.program.weights import standard_error
from ppvae.selfcheck.analytic import LinearGaussian


def test_its_ends_are_the_elbo_and_the_estimate_from_all_draws():
    log_w = torch.randn(1000, 3).double()
    found = bound_curve(log_w)
    assert found.particles.tolist() == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    torch.testing.assert_close(found.estimate[0], log_w.mean(0))
    torch.testing.assert_close(found.standard_error[0], log_w.std(0) / math.sqrt(1000))
    torch.testing.assert_close(found.estimate[-1], log_mean_exp(log_w))
    torch.testing.assert_close(found.standard_error[-1], standard_error(log_w))


def test_a_bound_by_hand():
    log_w = torch.randn(19, 2).double()  # nine groups of two, and one draw left out
    found = bound_curve(log_w, [2])
    groups = torch.stack([log_w[i : i + 2].exp().mean(0).log() for i in range(0, 18, 2)])
    torch.testing.assert_close(found.estimate[0], groups.mean(0))
    torch.testing.assert_close(found.standard_error[0], groups.std(0) / 3)


def test_it_never_falls_where_every_group_is_made_of_whole_ones():
    estimate = bound_curve(5 * torch.randn(1024, 7).double(), [2**i for i in range(11)]).estimate
    assert (estimate.diff(dim=0) > 0).all()


def test_every_bound_is_the_evidence_when_the_guide_is_exact():
    known = LinearGaussian()
    x = known.data(5)
    found = bound_curve(log_weights(known.story(), x, particles=60).detach())
    torch.testing.assert_close(found.estimate, known.marginal().log_prob(x).expand_as(found.estimate))
    assert found.standard_error.max() < 1e-7


def test_estimates_and_errors_of_log_normal_weights_against_quadrature():
    """E[log (e^a + e^b) / 2] of two normals; z-scores of many data have spread 1."""
    spread, data = 0.8, 2000
    found = bound_curve(spread * torch.randn(200, data).double(), [1, 2, 200])
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    a, b = np.meshgrid(spread * nodes, spread * nodes)
    pair = (np.outer(weights, weights) * (np.logaddexp(a, b) - math.log(2))).sum() / weights.sum() ** 2
    for count, exact in ((0, 0.0), (1, pair)):
        z = (found.estimate[count] - exact) / found.standard_error[count]
        assert abs(z.mean().item()) < 4 / math.sqrt(data)
        assert abs(z.std().item() - 1) < 4 / math.sqrt(2 * data) + 0.01  # Student's, of 99 degrees of freedom
    z = (found.estimate[-1] - spread**2 / 2) / found.standard_error[-1]
    assert abs(z.std().item() - 1) < 0.1  # the delta method, to first order


def test_the_error_of_a_few_groups_is_that_of_their_draws():
    log_w = 0.5 * torch.randn(300, 2000).double()
    found = bound_curve(log_w, [100])
    spread = found.estimate[0].std().item()
    assert abs(found.standard_error[0].mean().item() - spread) < 4 * spread / math.sqrt(2 * 1999) + 0.02 * spread
    assert found.standard_error[0].std() < 0.1 * spread  # of two degrees of freedom it would be half the spread


def test_one_draw_has_one_bound_and_no_error_to_speak_of():
    found = bound_curve(torch.zeros(1, 2))
    assert found.particles.tolist() == default_counts(1) == [1]
    assert found.standard_error.eq(torch.inf).all()


@pytest.mark.parametrize(("counts", "came"), [([1, 11], "11"), ([0], "0"), ([], "none")])
def test_a_count_that_there_are_no_draws_for_is_refused(counts, came):
    with pytest.raises(ValueError, match=f"from 1 to the number of draws, 10; got {came}"):
        bound_curve(torch.zeros(10, 2), counts)
