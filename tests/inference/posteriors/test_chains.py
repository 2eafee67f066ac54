"""Draws by Hamiltonian Monte Carlo against posteriors that are known."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from planes import two_planes
from stories import Written, number, one_latent
from torch import nn

from ppvae.inference import effective_draws
from ppvae.inference.posteriors import chains as chains_module
from ppvae.inference.posteriors.chains import run_chains
from ppvae.inference.program.prepared import prepared
from ppvae.inference.program.streams import keys
from ppvae.inference.program.unconstrained import unconstrain
from ppvae.models import VAE, encoders, likelihoods, priors
from ppvae.selfcheck.analytic import LinearGaussian, TwoLayers

FULL = pytest.param(4, 800, marks=pytest.mark.soak)  # as people run them; many short chains know as much, sooner


@pytest.mark.parametrize(("chains", "draws"), [(32, 100), FULL])
def test_moments_of_a_linear_gaussian_story(chains, draws):
    """Within five standard errors or more: 16 means and 3 others, by chance less than once in 10^5 runs."""
    known = LinearGaussian()
    x = known.data(8)
    story = known.story(widen=3.0, shift=1.0)  # the guide has no part
    found = run_chains(story, x, num_samples=draws, num_warmup=200, num_chains=chains, progress=False)
    assert found.u.shape == (chains, draws, 8, 2)
    assert found.ess.shape == found.r_hat.shape == (8, 2)
    deviation = known.posterior_covariance.diagonal().sqrt()
    white = (found.u - known.posterior_mean(x)) / deviation
    assert (white.mean((0, 1)) * found.ess.sqrt()).abs().max() < 5.2
    assert found.ess.min() > 300  # the tolerance means something
    squares = white.square().mean((0, 1)) - 1
    assert squares.abs().max() < 0.25
    assert abs(squares.mean()) < 5 * 2 / (found.ess.sum()) ** 0.5
    assert abs((white[..., 0] * white[..., 1]).mean()) < 5 * 2 / (found.ess.sum() / 2) ** 0.5
    assert found.r_hat.max() < 1.05
    assert ((found.acceptance - 0.8).abs() < 0.15).all()


@pytest.mark.parametrize(("chains", "draws"), [(32, 100), FULL])
def test_covariances_of_two_layers(chains, draws):
    two = TwoLayers()
    x = two.data(4)
    found = run_chains(two, x, num_samples=draws, num_warmup=200, num_chains=chains, progress=False)
    with pyro.plate("particles", 200_000, dim=-2), pyro.poutine.trace() as trace:
        two.guide(x)  # the exact posterior
    exact = torch.cat([trace.trace.nodes[name]["value"] for name in ("top", "z")], dim=-1)
    error = exact.std(0) / found.ess.sqrt()
    assert ((found.u.mean((0, 1)) - exact.mean(0)) / error).abs().max() < 5.2  # 20 of them
    wide = []
    for row in range(4):
        ours, theirs = (torch.cov(u.reshape(-1, 5).T) for u in (found.u[:, :, row], exact[:, row]))
        scale = theirs.diagonal().sqrt()
        assert ((ours - theirs) / torch.outer(scale, scale)).abs().max() < 0.25  # +- 0.03
        wide.append(torch.linalg.solve(theirs, ours).trace() / 5)
    assert abs(torch.stack(wide).mean() - 1) < 0.06  # +- 0.009 over seeds


@pytest.mark.parametrize(("chains", "draws"), [(64, 150), pytest.param(128, 800, marks=pytest.mark.soak)])
def test_a_banana_has_the_characteristic_function_of_quadrature(chains, draws):
    """z ~ N(0, I), x ~ N(z2 - z1^2 / 2, 0.5^2): a curved valley.

    Errors by the spread of independent chains, whatever an effective number of draws says; that is checked by them. Of
    sines and cosines, because draws far out, where a chain may stay for long, move no bounded mean by much.
    """

    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z[..., 1] - z[..., 0] ** 2 / 2, 0.5), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(torch.zeros(len(x), 2).double(), 1.0).to_event(1))

    x = number([-1.0, 0.5])
    found = run_chains(
        Written(model, guide),
        x,
        num_samples=draws,
        num_warmup=200,
        num_chains=chains,
        num_leapfrog_steps=10,
        progress=False,
    )
    axis = torch.linspace(-6, 8, 1401).double()
    a, b = torch.meshgrid(axis, axis, indexing="ij")
    for row in range(2):
        log_p = -(a**2 + b**2) / 2 - (x[row] - b + a**2 / 2).square() / (2 * 0.25)
        p = (log_p - log_p.logsumexp((0, 1))).exp()
        u = found.u[:, :, row]
        for z, ours in ((a, u[..., 0]), (b, u[..., 1]), (2 * a, 2 * u[..., 0]), (2 * b, 2 * u[..., 1])):
            for wave in (torch.sin, torch.cos):
                mean, square = (p * wave(z)).sum(), (p * wave(z).square()).sum()
                from_draws = wave(ours)
                error = from_draws.mean(1).std() / chains**0.5
                assert abs(from_draws.mean() - mean) < 6 * error  # 16 of Student's t, 63 degrees: once in 10^6
                said = ((square - mean**2) / effective_draws(from_draws)).sqrt()
                assert 0.5 < said / error < 1.7  # 1 +- 0.1
                assert error < 0.1  # 0.013, or 0.04 if a chain began far out and stayed: the tolerance means something


def test_r_hat_tells_chains_that_sit_in_different_modes():
    def story_of(gap):
        prior = dist.Normal(number(-gap), gap)  # its draws are below, the guide's above
        return one_latent(prior, lambda z: dist.Normal(z.abs(), 0.3), lambda x: dist.Normal(x, 1.0))

    apart = run_chains(story_of(6.0), number([6.0, 7.0]), num_samples=50, num_warmup=50, num_chains=16, progress=False)
    assert (apart.u > 0).any()
    assert (apart.u < 0).any()
    assert apart.r_hat.min() > 2
    assert apart.ess.max() < 50
    together = run_chains(
        story_of(1.0), number([0.1, 0.0]), num_samples=100, num_warmup=100, num_chains=32, progress=False
    )
    assert together.r_hat.max() < 1.1


def test_chains_start_at_the_guide_and_where_the_prior_is_likely():
    """The guide knows the upper of two modes; picked among draws of the prior, both are as likely, and nothing else."""
    story, x = two_planes()
    x = x.repeat(100)
    first = chains_module.starts(prepared(story, (x,)), unconstrain(story, (x,), "HMC"), keys((x,), 0), 6)[..., 0]
    guided, picked = first[:3], first[3:]
    assert (guided > 0).all()
    above = (picked > 0).double().mean(0)  # independent data
    assert abs(above.mean() - 0.5) < 4 * above.std() / len(x) ** 0.5 < 0.2
    assert (picked.square() - x).abs().max() < 5 * 0.5
    prior = torch.randn(10_000).double().square() - 2
    assert (prior.abs() > 5 * 0.5).double().mean() > 0.03  # where chains would otherwise start


def test_draws_of_a_datum_do_not_depend_on_the_others(monkeypatch):
    known = LinearGaussian()
    x, story = known.data(6), known.story()
    short = {"num_samples": 6, "num_warmup": 18, "progress": False}  # enough to tune the scales too
    whole = run_chains(story, x, **short)
    torch.randn(3)
    backwards = run_chains(story, x.flip(0), **short)
    torch.testing.assert_close(backwards.u.flip(2), whole.u, atol=1e-8, rtol=0)
    monkeypatch.setattr(chains_module, "CHAINS", 8)
    parts = run_chains(story, x, **short)
    torch.testing.assert_close(parts.u, whole.u, atol=1e-8, rtol=0)
    torch.testing.assert_close(parts.acceptance, whole.acceptance, atol=1e-8, rtol=0)
    assert not torch.allclose(run_chains(story, x, seed=1, **short).u, whole.u, atol=1e-3)


@pytest.mark.parametrize(("chains", "draws"), [(32, 100), pytest.param(4, 1500, marks=pytest.mark.soak)])
def test_positive_latents_are_drawn_in_unbounded_space(chains, draws):
    """z ~ Gamma(3, 2), x ~ Poisson(z): z | x ~ Gamma(3 + x, 3)."""

    def model(x):
        z = pyro.sample("z", dist.Gamma(number(3.0), number(2.0)))
        pyro.sample("x", dist.Poisson(z), obs=x)

    x = number([0.0, 2.0, 9.0])
    found = run_chains(Written(model, model), x, num_samples=draws, num_warmup=200, num_chains=chains, progress=False)
    u = found.u[..., 0]
    mean, variance = torch.digamma(3 + x) - math.log(3), torch.polygamma(1, 3 + x)  # of log z
    assert ((u.mean((0, 1)) - mean) / (variance / found.ess[:, 0]).sqrt()).abs().max() < 5
    torch.testing.assert_close(u.var((0, 1)), variance, rtol=0.25, atol=0)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"num_samples": 3}, "num_samples should be at least 4, got 3"),
        ({"num_warmup": 1}, "num_warmup should be at least 2, got 1"),
        ({"num_chains": 1}, "num_chains should be at least 2, got 1"),
        ({"num_leapfrog_steps": 0}, "num_leapfrog_steps should be at least 1, got 0"),
        ({"target_accept_prob": 0.0}, "target_accept_prob should be between 0 and 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(option, message):
    known = LinearGaussian()
    with pytest.raises(ValueError, match=message):
        run_chains(known.story(), known.data(2), progress=False, **option)


def test_a_flat_prior_has_nowhere_to_start():
    story = VAE(priors.Flat(2), likelihoods.Normal(nn.Linear(2, 5)), encoders.DiagonalNormal(nn.Linear(5, 4)))
    with pytest.raises(ValueError, match="needs a proper prior"):
        run_chains(story, torch.zeros(3, 5), progress=False)


def test_where_x_tells_nothing_chains_start_at_draws_from_the_prior():
    """Its density has no say twice: picked by p(x, z) instead of p(x | z), starts would have half the variance."""
    prior = dist.Normal(number(0.0), 1.0)
    story = one_latent(prior, lambda z: dist.Normal(0 * z, 1.0), lambda x: dist.Normal(0 * x, 0.1))
    x = torch.zeros(20).double()
    first = chains_module.starts(prepared(story, (x,)), unconstrain(story, (x,), "HMC"), keys((x,), 0), 128)[64:, :, 0]
    error = ((2 / chains_module.PICKED_FROM + 2 / 64) / 20) ** 0.5  # of the draws, and of picking among them
    assert abs(first.square().mean() - 1) < 5 * error < 0.25


def test_trajectories_differ_in_length_and_scales_are_tuned_once(monkeypatch):
    """Those of one length may all end where they began; scales that followed the chains would bias them."""
    lengths, scales, plain = [], [], chains_module.transition

    def spied(log_density, u, step, scale, noise, leapfrog):
        lengths.append(leapfrog)
        scales.append(scale.clone())
        return plain(log_density, u, step, scale, noise, leapfrog)

    monkeypatch.setattr(chains_module, "transition", spied)
    known = LinearGaussian()
    run_chains(known.story(), known.data(1), num_samples=30, num_warmup=30, num_leapfrog_steps=3, progress=False)
    assert set(lengths) == {1, 2, 3}
    assert all((scale == 1).all() for scale in scales[:21])
    assert all(torch.equal(scale, scales[21]) for scale in scales[22:])
    assert not (scales[21] == 1).any()
