"""How stories are put together from the makers of their parts: one function a story.

A story of your own is a function like these: `(prior, likelihood, encoder, sizes)` and its own arguments.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ppvae import networks
from ppvae.base import Architecture
from ppvae.models.sizes import Maker, Sizes
from ppvae.models.vae import VAE


def vae(prior: Maker, likelihood: Maker, encoder: Maker, sizes: Sizes) -> VAE:
    """One latent vector per datum."""
    guide = sizes.encoder(encoder)
    return VAE(sizes.prior(prior, guide), sizes.likelihood(likelihood), guide)


def assemble(
    prior: Maker,
    likelihood: Maker,
    encoder: Maker,
    *,
    shape: Sequence[int],
    latent: int,
    story: Callable[..., Any] = vae,
    network: Architecture = networks.MLP(),
    input_scale: float = 1.0,
    x: Tensor | None = None,
) -> Any:
    """A story whose networks are sized from the data and the latent size alone.

    Args:
        prior: called with the latent size, and with what else its signature names (`Sizes`).
        likelihood: called with a network from `latent` to its `outputs` times the features, and so on.
        encoder: called with a network from the features to its `outputs` times `latent`, and so on.
        shape: how to look at a datum: `(features,)`, `(channels, height, width)` or `(steps, features)`.
        latent: size of its code.
        story: one of this module's functions, or one like them.
        network: the family that every network comes from.
        input_scale: what the encoder's network multiplies x by (`Observation.input_scale`).
        x: data to start from, `(rows, features)`, for parts that can.

    >>> from ppvae.models import guides, likelihoods, priors
    >>> story = assemble(priors.StandardNormal, likelihoods.Bernoulli, guides.DiagonalNormal, shape=(64,), latent=2)
    >>> story.encoder.network[-1].out_features
    4
    """
    return story(prior, likelihood, encoder, Sizes(shape, latent, network, input_scale, x))
