"""Every way to infer z from x, where the answer is known."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from correlated import correlated
from planes import banana, by_quadrature, two_planes
from stories import Written, fingerprint
from torch import nn

from ppvae.inference import calibration, effective_draws, gaps, hmc, infer, leaderboard, reference
from ppvae.inference.diagnostics.calibration import Calibration
from ppvae.inference.diagnostics.gaps import Difference
from ppvae.inference.diagnostics.leaderboard import Measured, Reference, moment_errors
from ppvae.inference.evidence.evidence import Evidence
from ppvae.inference.evidence.importance import Budget, estimate
from ppvae.inference.posteriors.methods import METHODS, Posterior
from ppvae.inference.program.prepared import prepared
from ppvae.models import Autoencoder
from ppvae.selfcheck.analytic import Enumerable, LinearGaussian

FAST = [method for method in METHODS if method != "nuts"]


BIAS = {"semi-amortised": 0.25, "local flow": 0.1}
"""What a method leaves by design, in posterior deviations: few steps, or a stopping rule. None for the others."""


@pytest.mark.parametrize(
    ("method", "rows", "draws"),
    [
        *((method, 5, 1000) for method in FAST),
        ("nuts", 1, 200),
        pytest.param("nuts", 2, 200, marks=pytest.mark.soak),
    ],
)
def test_the_posterior_of_a_linear_gaussian_story(method, rows, draws):
    """Means and log-variances within 4.5 standard errors of the draws that they are taken from, and what is left."""
    known = LinearGaussian()
    x, story = known.data(rows), known.story(widen=1.4, shift=0.3 if method != "amortised" else 0.0)
    before = fingerprint(story)
    found = infer(story, x, method, num_samples=draws, progress=False)
    assert fingerprint(story) == before
    assert found.draws.shape == (draws, rows, 2)
    assert found.seconds > 0
    variance = known.posterior_covariance.diagonal() * (1.4**2 if method == "amortised" else 1.0)
    by_chain = found.draws.reshape(-1, {"hmc": 4}.get(method, 2), rows, 2).transpose(0, 1)
    error = effective_draws(by_chain).rsqrt()  # of a mean of draws, in posterior deviations
    error_of_variance = (2 / effective_draws((by_chain - by_chain.mean((0, 1))).square())).sqrt()
    off = (found.draws.mean(0) - known.posterior_mean(x)).abs() / variance.sqrt()
    assert (off < 4.5 * error + BIAS.get(method, 0.0)).all()
    wide = (found.draws.var(0) / variance).log().abs()
    assert (wide < 4.5 * error_of_variance + BIAS.get(method, 0.0)).all()
    assert (error < 0.1).all()
    assert (((found.draws.mean(0) - found.mean) / variance.sqrt()).abs() < 4.5 * error).all()
    assert ((found.draws.var(0) / found.variance).log().abs() < 4.5 * error_of_variance).all()
    if method in ("local diagonal", "local full", "laplace"):
        torch.testing.assert_close(found.mean, known.posterior_mean(x), atol=1e-4, rtol=0)
    if found.r_hat is not None:
        assert found.r_hat.max() < 1.05


@pytest.mark.parametrize(
    ("method", "rows", "draws"),
    [
        *((method, 4, 1600) for method in ("local full", "local flow", "laplace", "hmc")),
        pytest.param("nuts", 1, 400, marks=pytest.mark.soak),
    ],
)
def test_the_covariance_of_a_correlated_posterior(method, rows, draws, monkeypatch):
    """Second moments in coordinates where it is N(0, I), within 4.5 standard errors; those of a diagonal q are not."""
    monkeypatch.setitem(METHODS, "hmc", partial(METHODS["hmc"], num_chains=16, num_warmup=150))
    story, x, mean, precision = correlated()
    x, mean, root = x[:rows], mean[:rows], torch.linalg.cholesky(precision)
    second = torch.ones(3, 3).triu().nonzero().T

    def moments(name):
        w = (infer(story, x, name, num_samples=draws, progress=False).draws - mean) @ root
        products = (
            (w[..., second[0]] * w[..., second[1]]).reshape(-1, {"hmc": 16}.get(name, 2), rows, 6).transpose(0, 1)
        )
        off = products.mean((0, 1)) - (second[0] == second[1]).double()
        return off.abs(), products.flatten(0, 1).std(0) / effective_draws(products).sqrt()

    off, error = moments(method)
    assert (off < 4.5 * error + BIAS.get(method, 0.0)).all()
    assert error.max() < 0.2
    off, error = moments("local diagonal")
    assert (off > 4.5 * error + 0.1).any(-1).all()


@pytest.mark.parametrize("method", ["amortised", "local diagonal", "laplace", "resampled", "hmc"])
def test_no_datum_depends_on_the_others(method, monkeypatch):
    monkeypatch.setitem(METHODS, "hmc", partial(METHODS["hmc"], num_warmup=30))
    known = LinearGaussian()
    x, story = known.data(4), known.story(widen=1.4, shift=0.3)
    whole = infer(story, x, method, num_samples=40, progress=False).draws
    torch.randn(2)
    alone = infer(story, x[2:3], method, num_samples=40, progress=False).draws
    torch.testing.assert_close(whole[:, 2:3], alone, atol=1e-8, rtol=0)


def test_a_banana_by_many_chains_and_by_quadrature():
    """Of 4 long chains one may stay in a narrow end, as R-hat says then: many short ones know as much, sooner."""
    story, x = banana()
    _, mean, variance = by_quadrature(story, x)
    found = hmc(story, x, num_samples=125, num_warmup=200, num_chains=32, progress=False)
    assert found.r_hat.max() < 1.2
    assert ((found.u.mean((0, 1)) - mean) / (variance / found.ess).sqrt()).abs().max() < 5
    squares = (found.u - mean).square()
    error = squares.flatten(0, 1).std(0) / effective_draws(squares).sqrt()
    assert ((squares.mean((0, 1)) - variance) / error).abs().max() < 5
    assert (error < 0.2 * variance).all()
    narrow = infer(story, x, "local diagonal", progress=False)
    assert (narrow.variance / variance).log().mean() < -0.2  # what KL(q || p) does


def test_chains_that_are_made_not_to_mix_say_so():
    """Two far modes, the guide's draws in one and the prior's in the other: no trajectory crosses."""

    def model(x):
        z = pyro.sample("z", dist.Normal(torch.full_like(x, -3.0), 1.0))
        pyro.sample("x", dist.Normal(z.square(), 0.5), obs=x)

    story = Written(model, lambda x: pyro.sample("z", dist.Normal(x.sqrt(), 0.1)))
    x = torch.tensor([9.0, 12.0]).double()
    stuck = hmc(story, x, num_samples=50, num_warmup=60, num_chains=16, progress=False)
    assert stuck.r_hat.min() > 2
    known = LinearGaussian()
    assert (
        hmc(known.story(), known.data(3), num_samples=100, num_warmup=60, num_chains=32, progress=False).r_hat.max()
        < 1.1
    )


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
    against = reference(story, x, num_samples=20, num_warmup=20, progress=False)._replace(mean=mean, variance=variance)
    against = against._replace(r_hat=torch.ones_like(mean))
    sizes = {"methods": ["local full"], "num_samples": 400, "num_simulations": 100, "progress": False}
    entry = next(iter(leaderboard(story, x, log_p, against, **sizes)))
    row = entry.summary()
    assert row["mean_error"] > 0.5
    assert row["log_variance_error"] > 1
    assert row["calibration_p"] < 1e-3
    assert row["gap"] > 0.6  # log 2, for half of the mass


@pytest.mark.parametrize(("distance", "seen"), [(1.0, True), (3.0, False)])
def test_a_mode_that_draws_reach_now_and_then_shows_in_k_hat(distance, seen):
    """Modes at +-distance, a guide of the upper one: near, its tail finds the other, and k-hat is large; far, no draw
    tells of it, k-hat is small, and only calibration sees what is missing."""
    wide = 0.4

    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros_like(x), distance))
        pyro.sample("x", dist.Normal(z.abs(), 0.3), obs=x)

    story = Written(model, lambda x: pyro.sample("z", dist.Normal(x, wide)))
    x = torch.full((20,), distance).double()
    posterior = infer(story, x, "amortised", num_samples=5000, progress=False)
    evidence = estimate(prepared(story, (x,)), posterior.weigh, Budget(5000), 0, False, "the guide", posterior.proposal)
    assert (evidence.unreliable() > 0.5) == seen  # all of the data, and none
    assert calibration(story, x, "amortised", num_simulations=200, num_samples=99, progress=False).worst < 1e-3


def test_what_cannot_be_inferred_is_refused_in_a_line_that_names_the_site():
    known = LinearGaussian()
    x = known.data(3)
    for call in (lambda s, d: infer(s, d, "hmc", progress=False), lambda s, d: gaps(s, d, progress=False)):
        with pytest.raises(ValueError, match=r"latent site 'k' \(Categorical\) is discrete: use exact"):
            call(Enumerable(), torch.zeros(3).double())
    exact_story = known.story()
    point = Autoencoder(exact_story.prior, exact_story.likelihood, nn.Linear(5, 2)).double()
    for call in (lambda: infer(point, x, "amortised", progress=False), lambda: gaps(point, x, progress=False)):
        with pytest.raises(ValueError, match=r"latent site 'z' has a point mass \(Delta\): use"):
            call()
    assert infer(point, x, "local full", num_samples=50, progress=False).draws.shape == (50, 3, 2)

    class Outside(nn.Module):
        def model(self, x):
            z = pyro.sample("shared", dist.Normal(0.0, 1.0))
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(self, x):
            pyro.sample("shared", dist.Normal(0.0, 1.0))

    for call in (lambda s, d: infer(s, d, "hmc", progress=False), lambda s, d: gaps(s, d, progress=False)):
        with pytest.raises(ValueError, match="latent site 'shared' does not: put it inside"):
            call(Outside(), torch.zeros(3))
    with pytest.raises(ValueError, match=r"method should be one of amortised, .* got guess"):
        infer(exact_story, x, "guess")
    with pytest.raises(ValueError, match="draws should be at least 8, got 7"):
        infer(exact_story, x, "hmc", num_samples=7)
    with pytest.raises(ValueError, match=r"methods should be of amortised, .* got guess"):
        next(leaderboard(exact_story, x, x[:, 0], None, methods=["guess"]))


def test_the_reference_draws_from_streams_of_its_own():
    """Chains that a method shares with what it is held against would agree with it whatever they find."""
    known = LinearGaussian()
    x, story = known.data(2), known.story()
    against, ours = (
        reference(story, x, num_samples=4, num_warmup=2, progress=False),
        hmc(story, x, num_samples=4, num_warmup=2, progress=False),
    )
    assert not torch.isin(against.draws, ours.u).any()


def test_every_figure_of_an_entry_stands_under_its_own_name():
    """By hand, of three data and two dimensions."""
    mean_error, log_variance_error = torch.tensor([[3.0, 1], [1, 1], [2, 2]]), torch.tensor([[-4.0, 2], [2, 2], [2, 2]])
    posterior = Posterior(
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
    found = Posterior(torch.zeros(8, 2, 1), torch.tensor([[3.0], [0.0]]), torch.tensor([[8.0], [1.0]]), None)
    mixed = torch.tensor([[1.0], [1.2]])  # the second datum has not
    against = Reference(torch.tensor([[1.0], [0.0]]), torch.tensor([[4.0], [1.0]]), mixed, mixed, torch.zeros(8, 2, 1))
    mean, log_variance = moment_errors(found, against)
    assert mean[0].item() == 1.0
    assert log_variance[0].item() == pytest.approx(torch.tensor(2.0).log().item())
    assert mean[1].isnan()
    assert log_variance[1].isnan()
