"""The variational autoencoder: one latent vector per datum."""

import pyro
from torch import Tensor, nn

from ppvae.base import Encoder, Likelihood, Prior
from ppvae.models.registration import register


class VAE(nn.Module):
    """z ~ p(z), x ~ p(x | z), with the guide z ~ q(z | x). Kingma & Welling 2014, https://arxiv.org/abs/1312.6114

    Args:
        prior: p(z), event_shape `(latent,)`.
        likelihood: p(x | z), event_shape `(features,)`.
        encoder: q(z | x), event_shape `(latent,)`.

    >>> from ppvae import networks
    >>> from ppvae.models import guides, likelihoods, priors
    >>> story = VAE(
    ...     prior=priors.StandardNormal(2),
    ...     likelihood=likelihoods.Bernoulli(networks.mlp(2, [8], 3)),
    ...     encoder=guides.DiagonalNormal(networks.mlp(3, [8], 4)),
    ... )
    >>> pyro.poutine.trace(story.model).get_trace(torch.ones(5, 3)).nodes["z"]["value"].shape
    torch.Size([5, 2])
    """

    def __init__(self, prior: Prior, likelihood: Likelihood, encoder: Encoder):
        super().__init__()
        self.prior = prior
        self.likelihood = likelihood
        self.encoder = encoder

    def model(self, x: Tensor) -> Tensor:  # x: (batch, features)
        register(self)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior())  # (batch, latent)
            return pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        register(self)
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", self.encoder(x))
