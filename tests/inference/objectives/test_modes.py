"""The density at the guide's mean, by hand."""

import pyro.distributions as dist
import pytest
import torch
from objective_stories import Discrete, binary, gradients, story_of_two_layers, vae
from torch import nn

from ppvae import networks
from ppvae.inference import elbo, maximum_a_posteriori
from ppvae.models import Autoencoder, encoders, likelihoods, priors


def test_a_latent_without_a_mean_is_refused():
    with pytest.raises(
        ValueError, match=r"which site 'k' \(Categorical\) has not: elbo and enumerated_elbo need none$"
    ):
        maximum_a_posteriori(Discrete(), torch.randn(6))


def test_a_mean_that_lies_off_the_sphere_is_refused():
    story = vae(prior=priors.HypersphericalUniform(2), encoder=encoders.VonMisesFisher(networks.mlp(5, [7], 3)))
    with pytest.raises(ValueError, match=r"which site 'z' \(VonMisesFisher\) has not"):
        maximum_a_posteriori(story, binary())


def penalised():
    torch.manual_seed(0)
    return Autoencoder(priors.StandardNormal(2), likelihoods.Bernoulli(nn.Linear(2, 5)), nn.Linear(5, 2)).double()


def test_it_is_the_density_at_the_mean():
    story, x = vae(prior=priors.StandardNormal(2)), binary()
    z = story.encoder(x).mean
    expected = -(story.prior().log_prob(z) + story.likelihood(z).log_prob(x)).mean()
    torch.testing.assert_close(maximum_a_posteriori(story, x), expected)
    mine = gradients(story, maximum_a_posteriori(story, x))
    torch.testing.assert_close(mine, gradients(story, expected))
    point = penalised()
    torch.testing.assert_close(maximum_a_posteriori(point, x.double()), elbo(point, x.double()))
    chain, y = story_of_two_layers()
    u = chain.up * y
    v = chain.across * u.sin() + y
    log_p = dist.Normal(chain.a, 1.0).log_prob(u) + dist.Normal(chain.b * u, 0.8).log_prob(v)
    expected = 0.1 * (u * v * chain.up) ** 2 - log_p - dist.Normal(chain.c * v + u, 0.5).log_prob(y)
    torch.testing.assert_close(maximum_a_posteriori(chain, y), expected.mean())
