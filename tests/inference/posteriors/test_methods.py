"""Every way to infer z from x, where the answer is known."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from correlated import correlated
from planes import banana, by_quadrature
from stories import Written, fingerprint
from torch import nn

from ppvae.inference import calibration, effective_draws, gaps
from ppvae.inference.evidence.importance import Budget, estimate
from ppvae.inference.posteriors.chains import run_chains
from ppvae.inference.posteriors.methods import METHODS, approximate
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
    found = approximate(story, x, method, num_samples=draws, progress=False)
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
        w = (approximate(story, x, name, num_samples=draws, progress=False).draws - mean) @ root
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
    whole = approximate(story, x, method, num_samples=40, progress=False).draws
    torch.randn(2)
    alone = approximate(story, x[2:3], method, num_samples=40, progress=False).draws
    torch.testing.assert_close(whole[:, 2:3], alone, atol=1e-8, rtol=0)


def test_a_banana_by_many_chains_and_by_quadrature():
    """Of 4 long chains one may stay in a narrow end, as R-hat says then: many short ones know as much, sooner."""
    story, x = banana()
    _, mean, variance = by_quadrature(story, x)
    found = run_chains(story, x, num_samples=125, num_warmup=200, num_chains=32, progress=False)
    assert found.r_hat.max() < 1.2
    assert ((found.u.mean((0, 1)) - mean) / (variance / found.ess).sqrt()).abs().max() < 5
    squares = (found.u - mean).square()
    error = squares.flatten(0, 1).std(0) / effective_draws(squares).sqrt()
    assert ((squares.mean((0, 1)) - variance) / error).abs().max() < 5
    assert (error < 0.2 * variance).all()
    narrow = approximate(story, x, "local diagonal", progress=False)
    assert (narrow.variance / variance).log().mean() < -0.2  # what KL(q || p) does


def test_chains_that_are_made_not_to_mix_say_so():
    """Two far modes, the guide's draws in one and the prior's in the other: no trajectory crosses."""

    def model(x):
        z = pyro.sample("z", dist.Normal(torch.full_like(x, -3.0), 1.0))
        pyro.sample("x", dist.Normal(z.square(), 0.5), obs=x)

    story = Written(model, lambda x: pyro.sample("z", dist.Normal(x.sqrt(), 0.1)))
    x = torch.tensor([9.0, 12.0]).double()
    stuck = run_chains(story, x, num_samples=50, num_warmup=60, num_chains=16, progress=False)
    assert stuck.r_hat.min() > 2
    known = LinearGaussian()
    assert (
        run_chains(
            known.story(), known.data(3), num_samples=100, num_warmup=60, num_chains=32, progress=False
        ).r_hat.max()
        < 1.1
    )


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
    posterior = approximate(story, x, "amortised", num_samples=5000, progress=False)
    evidence = estimate(prepared(story, (x,)), posterior.weigh, Budget(5000), 0, False, "the guide", posterior.proposal)
    assert (evidence.unreliable() > 0.5) == seen  # all of the data, and none
    assert calibration(story, x, "amortised", num_simulations=200, num_samples=99, progress=False).worst < 1e-3


def test_what_cannot_be_inferred_is_refused_in_a_line_that_names_the_site():
    known = LinearGaussian()
    x = known.data(3)
    for call in (lambda s, d: approximate(s, d, "hmc", progress=False), lambda s, d: gaps(s, d, progress=False)):
        with pytest.raises(ValueError, match=r"latent site 'k' \(Categorical\) is discrete: use exact"):
            call(Enumerable(), torch.zeros(3).double())
    exact_story = known.story()
    point = Autoencoder(exact_story.prior, exact_story.likelihood, nn.Linear(5, 2)).double()
    for call in (lambda: approximate(point, x, "amortised", progress=False), lambda: gaps(point, x, progress=False)):
        with pytest.raises(ValueError, match=r"latent site 'z' has a point mass \(Delta\): use"):
            call()
    assert approximate(point, x, "local full", num_samples=50, progress=False).draws.shape == (50, 3, 2)

    class Outside(nn.Module):
        def model(self, x):
            z = pyro.sample("shared", dist.Normal(0.0, 1.0))
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(self, x):
            pyro.sample("shared", dist.Normal(0.0, 1.0))

    for call in (lambda s, d: approximate(s, d, "hmc", progress=False), lambda s, d: gaps(s, d, progress=False)):
        with pytest.raises(ValueError, match="latent site 'shared' does not: put it inside"):
            call(Outside(), torch.zeros(3))
    with pytest.raises(ValueError, match=r"method should be one of amortised, .* got guess"):
        approximate(exact_story, x, "guess")
    with pytest.raises(ValueError, match="num_samples should be at least 8, over all chains, got 7"):
        approximate(exact_story, x, "hmc", num_samples=7)
