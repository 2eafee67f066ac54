"""Evidence from a widened point mass, and by Laplace's formula, against closed forms and quadrature."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from stories import blind
from torch import nn

from ppvae.inference import importance, laplace_evidence, laplace_sampling
from ppvae.models import Autoencoder, assemble, encoders, likelihoods, priors
from ppvae.selfcheck.analytic import LinearGaussian, affine


def test_every_weight_is_the_evidence_where_the_approximation_is_the_posterior():
    known = LinearGaussian()
    x = known.data(5)
    evidence = laplace_sampling(blind(known), x, particles=50, widening=1.0)
    torch.testing.assert_close(evidence.estimate, known.marginal().log_prob(x), atol=1e-9, rtol=0)
    assert evidence.standard_error.max() < 1e-6


def test_widened_it_agrees_with_the_closed_form_within_four_errors():
    known = LinearGaussian()
    x = known.data(20)
    evidence = laplace_sampling(blind(known), x, particles=2000)
    z = (evidence.estimate - known.marginal().log_prob(x)) / evidence.standard_error
    assert z.abs().max() < 4
    assert 0.5 < z.std() < 1.6  # the errors are neither too small nor too large: 20 draws of a unit deviation
    assert 0 < evidence.standard_error.max() < 0.05
    assert (evidence.pareto_k < 0.7).all()


def test_binary_data_and_a_mixture_prior():
    torch.manual_seed(0)
    story = assemble(priors.GaussianMixture, likelihoods.Bernoulli, encoders.PointMass, shape=(6,), latent=1)
    x = torch.bernoulli(torch.full((5, 6), 0.5))
    grid = torch.linspace(-12, 12, 20_001).unsqueeze(-1)
    log_joint = story.prior().log_prob(grid).unsqueeze(-1) + story.likelihood(grid.unsqueeze(1)).log_prob(x)
    exact = torch.logsumexp(log_joint.detach().double(), 0) + math.log(24 / 20_000)
    evidence = laplace_sampling(story, x, particles=5000)
    assert evidence.measure == "mass"
    assert ((evidence.estimate - exact).abs() < 4 * evidence.standard_error + 1e-5).all()


@pytest.mark.parametrize("spread", [1e-3, 1e-4, 1e-6, 0.0])
def test_codes_of_sizes_that_differ_by_orders_have_the_evidence_of_their_gaussian(spread):
    torch.manual_seed(0)
    z = torch.randn(300, 3).double() * torch.tensor([1.0, 1.0, spread]).double()
    decoder = affine(torch.randn(5, 3).double(), torch.randn(5).double())
    story = Autoencoder(priors.ex_post(z, components=1), likelihoods.Normal(decoder, 0.1), nn.Linear(5, 3)).double()
    x = decoder(z[:10]).detach() + 0.1**0.5 * torch.randn(10, 5).double()
    prior = story.prior()
    covariance = decoder.weight @ prior.component_distribution.covariance_matrix[0] @ decoder.weight.T
    variance = (2 * story.likelihood.log_scale).exp().detach()
    marginal = torch.distributions.MultivariateNormal(decoder(prior.mean), covariance + variance * torch.eye(5))
    evidence = laplace_sampling(story, x, particles=100, widening=1.0)
    torch.testing.assert_close(evidence.estimate, marginal.log_prob(x).detach(), atol=1e-5, rtol=0)


def test_a_structure_that_is_no_code_keeps_its_point_mass():
    class Chosen(nn.Module):
        """c ~ Bernoulli(1/4), z ~ N(0, 1), x ~ N(z + c, 1); the guide says c = 1."""

        def model(self, x):
            with pyro.plate("data", len(x), dim=-1):
                c = pyro.sample("c", dist.Bernoulli(torch.full((1,), 0.25).double()).to_event(1))
                z = pyro.sample("z", dist.Normal(torch.zeros(1).double(), 1).to_event(1))
                pyro.sample("x", dist.Normal(z + c, 1).to_event(1), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("c", dist.Delta(torch.ones_like(x), event_dim=1), infer={"code": False})
                pyro.sample("z", dist.Delta(x, event_dim=1))

    x = torch.tensor([[0.3], [2.0]]).double()
    evidence = laplace_sampling(Chosen(), x, particles=30, widening=1.0)
    part = torch.distributions.Normal(torch.ones(1).double(), 2**0.5).log_prob(x)[:, 0] + math.log(0.25)
    torch.testing.assert_close(evidence.estimate, part, atol=1e-9, rtol=0)  # log p(x, c = 1), below log p(x)
    assert evidence.held == "c"
    assert evidence.unreliable() == 1
    assert "a lower bound: of the values of 'c' one alone is counted" in str(evidence)


def test_a_figure_is_of_its_datum_alone():
    known = LinearGaussian()
    x = known.data(6)
    together = laplace_sampling(blind(known), x, particles=100).estimate
    apart = torch.cat([laplace_sampling(blind(known), row, particles=100).estimate for row in x.flip(0).split(2)])
    torch.testing.assert_close(together.flip(0), apart, atol=1e-9, rtol=0)
    assert not torch.allclose(laplace_sampling(blind(known), x, particles=100, seed=1).estimate, together, atol=1e-3)


def test_nothing_is_changed():
    story, state = blind(LinearGaussian()), torch.get_rng_state()
    story.train()
    before = [parameter.clone() for parameter in story.parameters()]
    laplace_sampling(story, torch.zeros(3, 5).double(), particles=20)
    assert torch.equal(torch.get_rng_state(), state)
    assert story.training
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, story.parameters(), strict=True))


def test_masked_data_have_the_evidence_of_what_is_observed():
    known = LinearGaussian()
    x, story = known.data(3), blind(known)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[:, 3:] = False
    evidence = laplace_sampling(story, (x, mask), particles=50, widening=1.0)
    marginal = known.marginal()
    part = torch.distributions.MultivariateNormal(known.bias[:3], marginal.covariance_matrix[:3, :3])
    torch.testing.assert_close(evidence.estimate, part.log_prob(x[:, :3]), atol=1e-9, rtol=0)


def test_a_guide_with_a_density_begins_at_its_mean():
    known = LinearGaussian()
    x = known.data(4)
    story = known.story(widen=0.2, shift=0.3)  # a bad proposal: the approximation at its mode is exact
    assert (importance(story, x, particles=1000).pareto_k > 0.7).any()
    assert laplace_sampling(story, x, particles=1000, widening=1.0).standard_error.max() < 1e-6


def test_the_evidence_by_its_formula_is_exact_where_the_posterior_is_normal():
    known = LinearGaussian(latent=3)
    x = known.data(7)
    for story in (known.story(widen=0.3, shift=1.0), blind(known)):
        evidence = laplace_evidence(story, x)
        torch.testing.assert_close(evidence.estimate, known.marginal().log_prob(x), atol=1e-9, rtol=0)
        assert (evidence.bound, evidence.method) == ("approximation", "Laplace's approximation")
        assert evidence.unreliable() == 1
        assert evidence.particles.tolist() == [0] * 7
    lines = str(evidence).splitlines()
    assert len(lines) == 3
    assert lines[-1].strip().startswith("an approximation: right where p(z | x) is Gaussian")


def test_the_evidence_by_its_formula_is_off_on_a_curved_story_and_sampling_is_not():
    torch.manual_seed(0)
    story = assemble(priors.StandardNormal, likelihoods.Bernoulli, encoders.PointMass, shape=(3,), latent=1).double()
    story.likelihood.network = nn.Sequential(nn.Linear(1, 3), nn.Hardtanh(-4, 4)).double()
    nn.init.constant_(story.likelihood.network[0].weight, 3.0)
    x = torch.bernoulli(torch.full((4, 3), 0.5)).double()
    grid = torch.linspace(-10, 10, 20_001, dtype=torch.float64).unsqueeze(-1)
    log_joint = story.prior().log_prob(grid).unsqueeze(-1) + story.likelihood(grid.unsqueeze(1)).log_prob(x)
    exact = torch.logsumexp(log_joint.detach(), 0) + math.log(20 / 20_000)
    sampled = laplace_sampling(story, x, particles=5000)
    assert ((sampled.estimate - exact).abs() < 4.5 * sampled.standard_error).all()
    off = (laplace_evidence(story, x).estimate - exact).abs()
    assert 0.01 < off.max() < 1


def test_the_evidence_by_its_formula_of_what_is_observed_and_of_a_held_site():
    known = LinearGaussian()
    x, story = known.data(3), blind(known)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[:, 3:] = False
    marginal = known.marginal()
    part = torch.distributions.MultivariateNormal(known.bias[:3], marginal.covariance_matrix[:3, :3])
    torch.testing.assert_close(laplace_evidence(story, (x, mask)).estimate, part.log_prob(x[:, :3]), atol=1e-9, rtol=0)
    story.prior = priors.Flat(2)
    with pytest.raises(ValueError, match="evidence needs a proper prior"):
        laplace_evidence(story, x)


@pytest.mark.parametrize("widening", [1.3, 2.0])
def test_the_proposal_is_as_wide_as_it_is_asked_to_be(widening):
    known = LinearGaussian()
    x = known.data(4)
    options = {} if widening == 1.3 else {"widening": widening}
    evidence = laplace_sampling(blind(known), x, particles=2000, progress=False, **options)
    gap = known.log_evidence(x) - known.gap(widening, 0.0) - evidence.elbo
    assert (gap.abs() < 5 * evidence.elbo_standard_error).all()
    assert evidence.elbo_standard_error.max() < 0.1 * known.gap(widening, 0.0)


def test_as_many_steps_are_taken_as_are_asked_for():
    """One finds the mode of a quadratic, and none leaves the approximation at the code."""
    known = LinearGaussian()
    x, story = known.data(3), blind(known)
    for steps in (0, 1):
        off = laplace_evidence(story, x, newton_steps=steps, progress=False).estimate - known.log_evidence(x)
        sampled = laplace_sampling(story, x, particles=50, widening=1.0, newton_steps=steps, progress=False)
        assert bool((off.abs() < 1e-6).all()) == bool((sampled.standard_error < 1e-6).all()) == (steps == 1)


def test_options_out_of_range_are_refused():
    story, x = blind(LinearGaussian()), torch.zeros(3, 5).double()
    with pytest.raises(ValueError, match="widening should be positive, got 0"):
        laplace_sampling(story, x, widening=0)
    with pytest.raises(ValueError, match="particles should be at least 1, got 0"):
        laplace_sampling(story, x, particles=0)
