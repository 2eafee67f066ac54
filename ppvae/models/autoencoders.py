"""Deterministic autoencoders: the same programs, with a point mass for a guide."""

import pyro
from torch import Tensor, nn

from ppvae.base import Likelihood, Prior
from ppvae.models.guides import PointMass
from ppvae.models.registration import register


class Autoencoder(nn.Module):
    """z ~ p(z), x ~ p(x | z), with the guide z = network(x), a point mass: the ELBO is log p(x, z) at the code.

    With a proper prior this is MAP inference; with `priors.Flat` it is the plain autoencoder, whose loss is
    -log p(x | z): a squared error, when the likelihood is Normal.

    Args:
        prior: p(z), event_shape `(latent,)`.
        likelihood: p(x | z), event_shape `(features,)`.
        network: the encoder, `(batch, features)` to `(batch, latent)`.

    >>> from ppvae import networks
    >>> from ppvae.models import likelihoods, priors
    >>> story = Autoencoder(
    ...     prior=priors.Flat(2),
    ...     likelihood=likelihoods.Normal(networks.mlp(2, [], 3)),
    ...     network=networks.mlp(3, [], 2),
    ... )
    >>> story.encoder(torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """

    def __init__(self, prior: Prior, likelihood: Likelihood, network: nn.Module):
        super().__init__()
        self.prior = prior
        self.likelihood = likelihood
        self.encoder = PointMass(network)

    def model(self, x: Tensor) -> Tensor:  # x: (batch, features)
        register(self)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior())  # (batch, latent)
            return pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        register(self)
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", self.encoder(x))
