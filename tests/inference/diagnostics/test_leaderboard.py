"""Methods side by side, where it is known which is right."""

from dataclasses import replace

import pytest
import torch
from planes import by_quadrature, two_planes

from ppvae.inference import leaderboard, reference
from ppvae.inference.diagnostics.calibration import Calibration
from ppvae.inference.diagnostics.gaps import Difference
from ppvae.inference.diagnostics.leaderboard import Measured, Reference, moment_errors
from ppvae.inference.evidence.evidence import Evidence
from ppvae.inference.posteriors.chains import run_chains
from ppvae.inference.posteriors.methods import Approximation
from ppvae.selfcheck.analytic import LinearGaussian


@pytest.mark.parametrize(
    ("rows", "draws", "warm_up"), [(12, 300, 100), pytest.param(12, 800, 300, marks=pytest.mark.soak)]
)
def test_the_leaderboard_of_a_story_whose_guide_is_off(rows, draws, warm_up):
    known = LinearGaussian()
    x, story = known.data(rows), known.story(widen=0.6, shift=0.2)
    against = reference(story, x, num_samples=draws, num_warmup=warm_up, progress=False)
    methods = ["amortised", "local diagonal", "laplace", "resampled"]
    found = leaderboard(
        story, x, known.log_evidence(x), against, methods=methods, num_samples=800, num_simulations=60, progress=False
    )
    rows = {entry.method: entry.summary() for entry in found}
    guide, local, exact, drawn = (rows[method] for method in methods)
    assert abs(guide["gap"] - known.gap(0.6, 0.2)) < 4 * guide["gap_error"] + 0.01
    assert guide["resolved"]
    assert guide["calibration_p"] < 0.01
    assert abs(guide["log_variance_bias"] - torch.tensor(0.36).log()) < 0.15
    for right in (local, exact):
        assert abs(right["gap"]) < 0.01
        assert right["pareto_k_above_0.7"] == 0
        assert right["mean_error"] < 0.1
        assert right["calibration_p"] > 0.01
    assert exact["gap"] == pytest.approx(0, abs=1e-6)
    assert torch.isnan(torch.tensor(drawn["elbo"]))


def test_a_missed_mode_shows_in_the_moments_and_the_calibration():
    """Of little noise, 49 +- 5 of 100 latents lie in the missed mode, in a bin of 5; 17 would give a p of 1e-3."""
    story, x = two_planes(noise=0.05)
    log_p, mean, variance = by_quadrature(story, x)
    assert mean[:, 0].abs().max() < 1e-6
    drawn = reference(story, x, num_samples=20, num_warmup=20, progress=False)
    against = replace(drawn, mean=mean, variance=variance, r_hat=torch.ones_like(mean))
    sizes = {"methods": ["local full"], "num_samples": 400, "num_simulations": 100, "progress": False}
    entry = next(iter(leaderboard(story, x, log_p, against, **sizes)))
    row = entry.summary()
    assert row["mean_error"] > 0.5
    assert row["log_variance_error"] > 1
    assert row["calibration_p"] < 1e-3
    assert row["gap"] > 0.6  # log 2, for half of the mass


def test_the_reference_draws_from_streams_of_its_own():
    """Chains that a method shares with what it is held against would agree with it whatever they find."""
    known = LinearGaussian()
    x, story = known.data(2), known.story()
    against, ours = (
        reference(story, x, num_samples=4, num_warmup=2, progress=False),
        run_chains(story, x, num_samples=4, num_warmup=2, progress=False),
    )
    assert not torch.isin(against.draws, ours.u).any()


def test_every_figure_of_an_entry_stands_under_its_own_name():
    """By hand, of three data and two dimensions."""
    mean_error, log_variance_error = torch.tensor([[3.0, 1], [1, 1], [2, 2]]), torch.tensor([[-4.0, 2], [2, 2], [2, 2]])
    posterior = Approximation(
        torch.zeros(8, 3, 2), torch.zeros(3, 2), torch.ones(3, 2), None, r_hat=torch.tensor([1.0, 1.5]), seconds=6.0
    )
    columns = {
        "estimate": torch.tensor([-1.0, -2, -3]),
        "standard_error": torch.ones(3),
        "ess": torch.ones(3),
        "pareto_k": torch.tensor([0.1, 0.2, 0.9]),
        "elbo": torch.tensor([-4.0, -5, -6]),
        "elbo_standard_error": torch.ones(3),
        "particles": torch.full((3,), 100),
    }
    evidence = Evidence(**columns, bound="stochastic lower bound", method="by hand")
    ranked = Calibration(torch.zeros(3, 2), 99, torch.tensor([0.3, 0.04]))
    entry = Measured("mine", posterior, evidence, mean_error, log_variance_error, ranked, Difference("gap", 3.0, 0.5))
    assert entry.summary() == {
        "method": "mine",
        "data": 3,
        "elbo": -5.0,
        "gap": 3.0,
        "gap_error": 0.5,
        "resolved": True,
        "log_p": -2.0,
        "pareto_k_above_0.7": pytest.approx(1 / 3),
        "mean_error": pytest.approx((20 / 6) ** 0.5),
        "log_variance_bias": 1.0,
        "log_variance_error": pytest.approx(6**0.5),
        "calibration_p": pytest.approx(0.08),  # of two looks
        "r_hat": 1.5,
        "milliseconds": 2000.0,  # per datum
    }


def test_errors_of_moments_are_in_the_references_deviations():
    found = Approximation(torch.zeros(8, 2, 1), torch.tensor([[3.0], [0.0]]), torch.tensor([[8.0], [1.0]]), None)
    mixed = torch.tensor([[1.0], [1.2]])  # the second datum has not
    against = Reference(torch.tensor([[1.0], [0.0]]), torch.tensor([[4.0], [1.0]]), mixed, mixed, torch.zeros(8, 2, 1))
    mean, log_variance = moment_errors(found, against)
    assert mean[0].item() == 1.0
    assert log_variance[0].item() == pytest.approx(torch.tensor(2.0).log().item())
    assert mean[1].isnan()
    assert log_variance[1].isnan()


@pytest.mark.parametrize(("methods", "got"), [(["laplace", "guess"], "guess"), ([], "none")])
def test_names_of_no_method_are_refused(methods, got):
    known = LinearGaussian()
    with pytest.raises(ValueError, match=rf"methods should be of amortised, .* got {got}$"):
        next(leaderboard(known.story(), known.data(2), torch.zeros(2), None, methods=methods))
