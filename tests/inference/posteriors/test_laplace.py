"""The Laplace approximation against closed forms and quadrature."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from stories import blind
from torch import nn

from ppvae import networks
from ppvae.inference import importance, laplace, laplace_sampling
from ppvae.models import VAE, Autoencoder, assemble, encoders, likelihoods, priors
from ppvae.selfcheck.analytic import LinearGaussian, affine


def test_of_a_linear_gaussian_story_it_is_the_posterior_wherever_the_guide_points():
    known = LinearGaussian(latent=3)
    x = known.data(7)
    for story in (known.story(), blind(known)):
        found = laplace(story, x)
        torch.testing.assert_close(found.loc, known.posterior_mean(x))
        covariance = found.scale_tril @ found.scale_tril.mT
        torch.testing.assert_close(covariance, known.posterior_covariance.expand(7, 3, 3))
        assert (found.scale_tril.triu(1) == 0).all()
        assert (found.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()


def test_the_evidence_of_a_curved_story_is_that_of_quadrature():
    torch.manual_seed(0)
    decoder = networks.mlp(1, [8], 3, nn.Tanh).double()
    story = Autoencoder(priors.StandardNormal(1), likelihoods.Normal(decoder, 0.1), nn.Linear(3, 1)).double()
    x = torch.randn(6, 3).double()
    grid = torch.linspace(-8, 8, 20_001).double().unsqueeze(-1)
    log_joint = story.prior().log_prob(grid).unsqueeze(-1) + story.likelihood(grid.unsqueeze(1)).log_prob(x)
    exact = torch.logsumexp(log_joint.detach(), 0) + math.log(16 / 20_000)
    evidence = laplace_sampling(story, x, particles=5000)
    assert ((evidence.estimate - exact).abs() < 4 * evidence.standard_error).all()
    mode = grid[log_joint.argmax(0)]
    assert ((laplace(story, x).loc - mode).abs() < 1e-3).double().mean() >= 0.5  # it climbs the nearest hill


def test_a_direction_that_tells_nothing_is_wide_and_finite():
    decoder = affine(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.5, 0.0]]).double(), torch.zeros(3).double())
    story = Autoencoder(priors.Flat(2), likelihoods.Normal(decoder, 0.1), nn.Linear(3, 2)).double()
    scale = laplace(story, torch.randn(4, 3).double()).scale_tril
    assert scale.isfinite().all()
    assert (scale[:, 1, 1] > 100 * scale[:, 0, 0]).all()


def test_a_latent_that_is_a_number_has_an_approximation_too():
    class Number(nn.Module):
        def model(self, x):
            with pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", dist.Normal(torch.tensor(0.0).double(), 1))
                pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1).to_event(1), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", dist.Delta(0 * x[:, 0]))

    x = torch.tensor([[0.3], [-2.0]]).double()
    torch.testing.assert_close(laplace(Number(), x).loc, x / 2)
    exact = torch.distributions.Normal(torch.zeros(1).double(), 2**0.5).log_prob(x)[:, 0]
    torch.testing.assert_close(
        laplace_sampling(Number(), x, particles=30, widening=1.0).estimate, exact, atol=1e-9, rtol=0
    )


def test_two_sites_are_approximated_together():
    class Chain(nn.Module):
        """z ~ N(0, 1), y ~ N(z, 1), x ~ N(y, 1): x ~ N(0, 3)."""

        def model(self, x):
            with pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", dist.Normal(torch.zeros(1).double(), 1).to_event(1))
                y = pyro.sample("y", dist.Normal(z, 1).to_event(1))
                pyro.sample("x", dist.Normal(y, 1).to_event(1), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("y", dist.Delta(0.1 * x, event_dim=1))
                pyro.sample("z", dist.Delta(-x, event_dim=1))

    x = torch.tensor([[0.3], [-2.0]]).double()
    found = laplace(Chain(), x)
    torch.testing.assert_close(found.loc, torch.cat([x * 2 / 3, x / 3], dim=1))  # in the guide's order
    expected = torch.tensor([[2.0, 1.0], [1.0, 2.0]]).double() / 3
    torch.testing.assert_close((found.scale_tril @ found.scale_tril.mT)[0], expected)
    evidence = laplace_sampling(Chain(), x, particles=30, widening=1.0)
    exact = torch.distributions.Normal(torch.zeros(1).double(), 3**0.5).log_prob(x)[:, 0]
    torch.testing.assert_close(evidence.estimate, exact, atol=1e-9, rtol=0)


def test_a_flat_prior_has_a_posterior_but_no_evidence():
    known = LinearGaussian()
    x, story = known.data(3), blind(known)
    story.prior = priors.Flat(2)
    found = laplace(story, x)
    torch.testing.assert_close(found.loc, (x - known.bias) @ torch.linalg.pinv(known.weight).T)
    with pytest.raises(ValueError, match="evidence needs a proper prior"):
        laplace_sampling(story, x)


@pytest.mark.parametrize("estimate", [laplace, laplace_sampling])
def test_what_has_no_such_approximation_is_refused(estimate):
    sphere = assemble(priors.HypersphericalUniform, likelihoods.Normal, encoders.VonMisesFisher, shape=(5,), latent=3)
    with pytest.raises(ValueError, match="needs a code of unbounded real numbers; latent site 'z' has the support"):
        estimate(sphere, torch.zeros(3, 5))
    named = assemble(priors.OneHot, likelihoods.Normal, encoders.OneHotCategorical, shape=(5,), latent=3)
    with pytest.raises(ValueError, match="unbounded real numbers"):
        estimate(named, torch.zeros(3, 5))


def test_options_out_of_range_are_refused():
    story, x = blind(LinearGaussian()), torch.zeros(3, 5).double()
    with pytest.raises(ValueError, match="steps should not be negative, got -1"):
        laplace(story, x, newton_steps=-1)


def test_a_density_without_curvature_is_refused():
    class Broken(nn.Module):
        def forward(self, z):
            return dist.Normal((z.sum(-1, keepdim=True) * torch.nan).expand(*z.shape[:-1], 5), 1.0).to_event(1)

    story = VAE(priors.StandardNormal(2), Broken(), encoders.PointMass(nn.Linear(5, 2)))
    with pytest.raises(ValueError, match="finite and smooth at a code; it is not for 3 of the data"):
        laplace(story, torch.zeros(3, 5))


def test_a_program_with_one_derivative_is_refused():
    class Distances(nn.Module):
        """x ~ N(distances of z from three points, 1), by a norm that torch differentiates once."""

        def forward(self, z):
            distances = torch.cdist(z.reshape(-1, 2), torch.eye(3, 2), p=3.0)
            return dist.Normal(distances.reshape(*z.shape[:-1], 3), 1.0).to_event(1)

    story = VAE(priors.StandardNormal(2), Distances(), encoders.PointMass(nn.Linear(3, 2)))
    with pytest.raises(ValueError, match=r"should have two derivatives in z, but: .*cdist"):
        laplace_sampling(story, torch.zeros(3, 3), particles=30)
    story.encoder = encoders.DiagonalNormal(nn.Linear(3, 4))
    assert importance(story, torch.zeros(3, 3), particles=30).estimate.isfinite().all()
