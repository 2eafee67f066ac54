"""How stories are put together from the makers of their parts: one function a story, beside the story it makes.

A story of your own is a function like these: `(prior, likelihood, encoder, sizes)` and its own arguments.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import TypeVar

from ppvae import networks
from ppvae.base import Architecture
from ppvae.models import record
from ppvae.models.autoencoders import autoencoder, contractive, denoising, regularised, sparse
from ppvae.models.conditional import conditional
from ppvae.models.hierarchical import hierarchical
from ppvae.models.ladder import ladder
from ppvae.models.linear import Linear, fit_factor_analysis, fit_pca, fit_ppca
from ppvae.models.mixture import mixture
from ppvae.models.recursive import recursive
from ppvae.models.semi_supervised import semi_supervised
from ppvae.models.sequence import sequence
from ppvae.models.sizes import Maker, Sizes
from ppvae.models.vae import VAE, vae

__all__ = [
    "assemble",
    "autoencoder",
    "conditional",
    "contractive",
    "denoising",
    "factor_analysis",
    "hierarchical",
    "ladder",
    "mixture",
    "pca",
    "ppca",
    "recursive",
    "regularised",
    "semi_supervised",
    "sequence",
    "sparse",
    "vae",
]

Made = TypeVar("Made", default=VAE)
"""What a maker of stories gives, and so what `assemble` does: a `VAE` where it is told no maker."""


def pca(prior: Maker, likelihood: Maker, encoder: Maker, sizes: Sizes) -> VAE:
    """z = W^T (x - m), x ~ N(W z + m, v I) under a flat p(z): principal component analysis of `sizes.x`, solved.

    Without data it is the same story unsolved, for its weights to be loaded into. Bourlard & Kamp 1988,
    https://doi.org/10.1007/BF00332918

    Args:
        prior, likelihood, encoder: not used.
        sizes: of the data, which are its `x`, and the code.

    >>> from ppvae.models import encoders, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, encoders.DiagonalNormal)
    >>> story = assemble(*parts, shape=(3,), latent=2, x=torch.randn(9, 3), story=pca)
    >>> story.encoder(torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """
    x = sizes.x if sizes.x is not None else torch.randn(sizes.features, sizes.features)
    return fit_pca(x, sizes.latent).requires_grad_(False)


def ppca(prior: Maker, likelihood: Maker, encoder: Maker, sizes: Sizes) -> Linear:
    """z ~ N(0, I), x ~ N(W z + m, v I): probabilistic principal component analysis of `sizes.x`, in closed form.

    Without data it is the same story unsolved, for its weights to be loaded into, or for a fit. Tipping & Bishop 1999,
    https://doi.org/10.1111/1467-9868.00196

    Args:
        prior, likelihood, encoder: not used.
        sizes: of the data, which are its `x`, and the code.

    >>> from ppvae.models import encoders, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, encoders.DiagonalNormal)
    >>> assemble(*parts, shape=(3,), latent=2, x=torch.randn(9, 3), story=ppca).weight.shape
    torch.Size([3, 2])
    """
    if sizes.x is None:
        return Linear(sizes.features, sizes.latent)
    return fit_ppca(sizes.x, sizes.latent).requires_grad_(False)


def factor_analysis(prior: Maker, likelihood: Maker, encoder: Maker, sizes: Sizes) -> Linear:
    """z ~ N(0, I), x ~ N(W z + m, diag v): factor analysis of `sizes.x`, to maximum likelihood.

    Without data it is the same story unsolved, for its weights to be loaded into, or for a fit. Rubin & Thayer 1982,
    https://doi.org/10.1007/BF02293851

    Args:
        prior, likelihood, encoder: not used.
        sizes: of the data, which are its `x`, and the code.

    >>> from ppvae.models import encoders, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, encoders.DiagonalNormal)
    >>> assemble(*parts, shape=(3,), latent=2, story=factor_analysis).variance.shape
    torch.Size([3])
    """
    if sizes.x is None:
        return Linear(sizes.features, sizes.latent, shared=False)
    return fit_factor_analysis(sizes.x, sizes.latent).requires_grad_(False)


def assemble(
    prior: Maker,
    likelihood: Maker,
    encoder: Maker,
    *,
    shape: Sequence[int],
    latent: int,
    story: Callable[..., Made] = vae,  # type: ignore[assignment]  # the default of `Made` is what it makes
    network: Architecture = networks.MLP(),
    input_scale: float = 1.0,
    x: Tensor | None = None,
    maximum: int | None = None,
    classes: int | None = None,
    output_bias: bool = False,
) -> Made:
    """A story whose networks are sized from the data and the latent size alone.

    Args:
        prior: called with the latent size, and with what else its signature names (`Sizes`).
        likelihood: called with a network from `latent` to its `outputs` times the features, and so on.
        encoder: called with a network from the features to its `outputs` times `latent`, and so on.
        shape: how to look at a datum: `(features,)`, `(channels, height, width)` or `(steps, features)`.
        latent: size of its code.
        story: one of this module's functions, or one like them: what it gives is given back.
        network: the family that every network comes from.
        input_scale: what the encoder's network multiplies x by (`Observation.input_scale`).
        x: data to start from, `(rows, features)`, for parts that can.
        maximum: the largest level of data that have one.
        classes: number of labels of data that have them.
        output_bias: whether the decoder's output starts at what the mean of `x` asks for.

    >>> from ppvae.models import encoders, likelihoods, priors
    >>> story = assemble(priors.StandardNormal, likelihoods.Bernoulli, encoders.DiagonalNormal, shape=(64,), latent=2)
    >>> story.encoder.network[-1].out_features
    4
    """
    makers: dict[str, Any] = {"prior": prior, "likelihood": likelihood, "encoder": encoder, "story": story}
    for name, make in makers.items():
        if not callable(make):
            raise ValueError(
                f"{name} should be a class or a function of this package's, or one like them, got {make!r}"
            )
    if not hasattr(network, "encoder") or isinstance(network, type):
        raise ValueError(f"network should be a family such as networks.MLP([200]), got {network!r}")
    sizes = Sizes(shape, latent, network, input_scale, x, maximum, classes, output_bias)
    return record.recorded(story(prior, likelihood, encoder, sizes), makers | {"network": network}, sizes)
