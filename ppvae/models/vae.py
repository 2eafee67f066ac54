"""The variational autoencoder: one latent vector per datum."""

from collections.abc import Callable, Sequence
from typing import Any

import pyro
from torch import Tensor, nn

from ppvae import networks
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


def assemble(
    prior: Callable[[int], Any],
    likelihood: Callable[[nn.Module], Any],
    encoder: Callable[[nn.Module], Any],
    *,
    features: int,
    latent: int,
    hidden: Sequence[int] = (200,),
    input_scale: float = 1.0,
) -> VAE:
    """A VAE whose networks are sized from the data and the latent size alone.

    Args:
        prior: called with the latent size.
        likelihood: called with a network from `latent` to `features` times its `outputs`.
        encoder: called with a network from `features` to `latent` times its `outputs`.
        features: size of a datum.
        latent: size of its code.
        hidden: layers of the encoder's network; the decoder has them in reverse.
        input_scale: what the encoder's network multiplies x by (`Observation.input_scale`).

    >>> from ppvae.models import guides, likelihoods, priors
    >>> story = assemble(priors.StandardNormal, likelihoods.Bernoulli, guides.DiagonalNormal, features=64, latent=2)
    >>> story.encoder.network[-1].out_features
    4
    """
    decoder = networks.mlp(latent, hidden[::-1], features * _outputs(likelihood))
    network = networks.mlp(features, hidden, latent * _outputs(encoder))
    if input_scale != 1:
        network = nn.Sequential(networks.Scale(input_scale), *network)
    return VAE(prior(latent), likelihood(decoder), encoder(network))


def _outputs(part: Callable[[nn.Module], Any]) -> int:
    """Network outputs per element: a part knows what it needs once it has its arguments."""
    return getattr(part(nn.Identity()), "outputs", 1)
