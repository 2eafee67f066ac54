"""Latents of every support as one vector of unbounded reals."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from stories import Written, gamma_story, integral, number, one_latent
from torch import nn

from ppvae.inference import annealed
from ppvae.inference.posteriors.chains import run_chains
from ppvae.inference.program.traces import latent_sites, run
from ppvae.inference.program.unconstrained import check_guide_density, guide_densities, model_densities, unconstrain
from ppvae.models import VAE, assemble, encoders, likelihoods, priors


class Every(nn.Module):
    """A latent on each of several supports, one of them in an inner plate, and one of no event dimension."""

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            a = pyro.sample("real", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
            pyro.sample("positive", dist.Gamma(number(2.0), number(3.0)))
            pyro.sample("interval", dist.Uniform(number(-1.0), number([2.0, 3.0])).to_event(1))
            pyro.sample("simplex", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0]).double()))
            with pyro.plate("inner", 4, dim=-3):
                pyro.sample("inside", dist.LogNormal(torch.zeros(3).double(), 0.5).to_event(1))
            pyro.sample("x", dist.Normal(a.sum(-1), 1.0), obs=x)

    guide = model


def drawn_from_every(rows=3, particles=5):
    story, x = Every(), torch.randn(rows).double()
    trace = run(story.model, (x,), particles)
    return story, x, {site["name"]: site["value"] for site in latent_sites(trace)}, trace


def test_values_and_vector_are_inverses_on_every_support():
    story, x, latents, _ = drawn_from_every()
    flat = unconstrain(story, (x,), "a test")
    u = flat.vector(latents)
    assert u.shape == (5, 3, 2 + 1 + 2 + 2 + 4 * 3)
    assert flat.size == u.shape[-1]
    assert [block.inner for block in flat.blocks] == [(), (), (), (), (4,)]
    values, log_jacobian = flat.values(u)
    assert log_jacobian.shape == (5, 3)
    for name, value in latents.items():
        torch.testing.assert_close(values[name], value)
    torch.testing.assert_close(flat.vector(values), u)
    free, _ = flat.values(torch.randn(7, 2, flat.size).double())
    assert free["inside"].shape == (4, 7, 2, 3)
    torch.testing.assert_close(free["simplex"].sum(-1), torch.ones(7, 2).double())


def test_the_jacobian_is_that_of_autograd():
    story, x, latents, _ = drawn_from_every(rows=1, particles=1)
    flat = unconstrain(story, (x,), "a test")
    u = flat.vector(latents)

    def values(u):
        found = flat.values(u.reshape(1, 1, -1))[0]
        found["simplex"] = found["simplex"][..., :-1]  # the last share is what is left
        return torch.cat([value.reshape(-1) for value in found.values()])

    jacobian = torch.autograd.functional.jacobian(values, u.reshape(-1))
    torch.testing.assert_close(flat.values(u)[1].squeeze(), torch.linalg.slogdet(jacobian).logabsdet)


def test_densities_are_those_of_the_programs_by_change_of_variables():
    story, x, latents, trace = drawn_from_every()
    flat = unconstrain(story, (x,), "a test")
    u = flat.vector(latents)
    trace.compute_log_prob()
    log_prior = torch.zeros(5, 3).double()
    for name in latents:
        found = trace.nodes[name]["log_prob"]
        log_prior = log_prior + (found.sum(0) if name == "inside" else found)
    jacobian = flat.values(u)[1]
    log_p, log_start = model_densities(story, (x,), flat)(u)
    torch.testing.assert_close(log_start, log_prior + jacobian)
    torch.testing.assert_close(log_p, log_prior + trace.nodes["x"]["log_prob"] + jacobian)
    same, _ = guide_densities(story, (x,), flat)(u)
    torch.testing.assert_close(same, log_p)


@pytest.mark.parametrize(
    ("prior", "low", "high"),
    [
        (dist.Gamma(number(2.5), number(1.5)), -25, 6),
        (dist.LogNormal(number(0.3), 0.7), -10, 10),
        (dist.Beta(number(2.0), number(3.0)), -25, 25),
        (dist.Uniform(number(-1.0), number(4.0)), -40, 40),
        (dist.Normal(number(0.3), 0.7), -10, 10),
        (
            dist.MixtureSameFamily(dist.Categorical(torch.ones(2).double()), dist.Normal(number([-1.0, 2.0]), 0.5)),
            -10,
            10,
        ),
    ],
)
def test_densities_of_u_integrate_to_one_and_to_the_evidence(prior, low, high):
    def likelihood(z):
        return dist.Normal(z, 0.8)

    story = one_latent(prior, likelihood, lambda x: dist.Normal(x, 1.0))
    x = number([0.4])
    flat = unconstrain(story, (x,), "a test")
    u = torch.linspace(low, high, 20_001).double()
    with torch.no_grad():
        log_p, log_prior = model_densities(story, (x,), flat)(u.reshape(-1, 1, 1))
    step = math.log((high - low) / 20_000)
    assert torch.logsumexp(log_prior[:, 0], 0) + step == pytest.approx(0, abs=1e-4)
    if isinstance(prior, dist.MixtureSameFamily):
        truth = integral(prior, likelihood, x, -10, 10)
    else:
        ends = {"Gamma": (1e-12, 30), "LogNormal": (1e-12, 60), "Beta": (1e-12, 1 - 1e-12), "Uniform": (-1, 4 - 1e-12)}
        truth = integral(prior, likelihood, x, *ends.get(type(prior).__name__, (-10, 10)))
    assert (torch.logsumexp(log_p[:, 0], 0) + step).item() == pytest.approx(truth.item(), abs=1e-3)


@pytest.mark.parametrize("prior", [priors.GaussianMixture, priors.VampPrior])
def test_mixtures_of_the_package_can_be_moved(prior):
    story = assemble(prior, likelihoods.Normal, encoders.DiagonalNormal, shape=(4,), latent=2)
    assert unconstrain(story, (torch.zeros(2, 4),), "a test").size == 2
    assert annealed(story, torch.randn(2, 4), particles=4, num_temperatures=3, progress=False).estimate.isfinite().all()


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (dist.Bernoulli(number(0.3)), r"latent site 'z' \(Bernoulli\) is discrete: use exact"),
        (dist.Poisson(number(3.0)), r"latent site 'z' \(Poisson\) is discrete"),
        (dist.ProjectedNormal(number([1.0, 0.0])), "latent site 'z' lies in Sphere, from which there is no map"),
        (dist.OneHotCategorical(torch.ones(3).double()), r"latent site 'z' \(OneHotCategorical\) is discrete"),
    ],
)
def test_what_no_gradient_moves_is_refused_by_name(prior, message):
    def model(x):
        pyro.sample("z", prior)
        pyro.sample("x", dist.Normal(0 * x, 1.0), obs=x)

    story, x = Written(model, model), torch.zeros(2).double()
    for estimator in (annealed, run_chains):
        with pytest.raises(ValueError, match=message):
            estimator(story, x, progress=False)


def test_a_distribution_that_does_not_say_its_support_is_named():
    class Quiet(dist.Normal):
        support = property()

    story = one_latent(Quiet(number(0.0), number(1.0)), lambda z: dist.Normal(z, 1.0), lambda x: dist.Normal(x, 1.0))
    with pytest.raises(ValueError, match=r"latent site 'z' \(Quiet\) does not say what its support is"):
        unconstrain(story, (torch.zeros(2).double(),), "a test")


def test_a_story_without_latents_has_nothing_to_move():
    def model(x):
        pyro.sample("x", dist.Normal(0 * x, 1.0), obs=x)

    with pytest.raises(ValueError, match="a test needs a latent site, and this story has none"):
        unconstrain(Written(model, lambda x: None), (torch.zeros(2).double(),), "a test")


def test_a_support_that_depends_on_the_datum_or_on_another_latent_is_refused():
    """One map holds for all: another datum's bounds would be those of the first."""

    def by_parent(x):
        a = pyro.sample("a", dist.Gamma(number(2.0), number(1.0)))
        b = pyro.sample("b", dist.Uniform(torch.zeros_like(a), a))
        pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def by_datum(x, top):
        b = pyro.sample("b", dist.Uniform(torch.zeros_like(top), top))
        pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    x, top = torch.zeros(3).double(), number([1.0, 1.0, 2.0])
    for model, batch in ((by_parent, (x,)), (by_datum, (x, top))):
        with pytest.raises(ValueError, match="that of 'b' depends on the datum or on other latents"):
            annealed(Written(model, model), batch, start="prior", progress=False)
    unconstrain(Written(by_datum, by_datum), (x[:2], top[:2]), "a test")  # the same for both


def test_a_latent_that_some_data_lack_is_refused():
    def model(x):
        with pyro.poutine.mask(mask=x > 0):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match="'z' is masked for some"):
        unconstrain(Written(model, model), (number([1.0, -1.0]),), "a test")
    unconstrain(Written(model, model), (number([1.0, 2.0]),), "a test")


def test_a_guide_is_asked_for_a_density_of_the_models_latents():
    point = VAE(priors.StandardNormal(2), likelihoods.Normal(nn.Linear(2, 5)), encoders.PointMass(nn.Linear(5, 2)))
    with pytest.raises(ValueError, match="latent site 'z' has none: start at the prior, start='prior'"):
        check_guide_density(point, (torch.zeros(2, 5),))
    story, x, _ = gamma_story()
    check_guide_density(story, (x,))
    for guide, message in (
        (lambda x: None, "it lacks z"),
        (lambda x: [pyro.sample(name, dist.LogNormal(x, 1.0)) for name in "zc"], "it draws c"),
    ):
        with pytest.raises(ValueError, match=message):
            check_guide_density(Written(story.within[0], guide), (x,))
