"""How stories are put together from the makers of their parts: one function a story.

A story of your own is a function like these: `(prior, likelihood, encoder, sizes)` and its own arguments.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ppvae import networks
from ppvae.base import Architecture
from ppvae.models import linear
from ppvae.models.autoencoders import autoencoder, contractive, denoising, regularised, sparse
from ppvae.models.conditional import Conditional, Moved
from ppvae.models.hierarchical import Hierarchical, Ladder, LayerNormal
from ppvae.models.linear import PCA, Linear
from ppvae.models.mixture import Mixture
from ppvae.models.recursive import recursive
from ppvae.models.semi_supervised import SemiSupervised
from ppvae.models.sequence import Amounts, Reading, Recurrent, SequenceVAE, Tokens
from ppvae.models.sizes import Maker, Sizes
from ppvae.models.vae import VAE

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


def vae(prior: Maker, likelihood: Maker, encoder: Maker, sizes: Sizes) -> VAE:
    """z ~ p(z), x ~ p(x | z), with the guide z ~ q(z | x): one latent vector per datum.

    Kingma & Welling 2014, https://arxiv.org/abs/1312.6114

    Args:
        prior: makes p(z).
        likelihood: makes p(x | z).
        encoder: makes q(z | x).
        sizes: of the data and the code, and the family of the networks.

    >>> from ppvae.models import guides, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, guides.DiagonalNormal)
    >>> assemble(*parts, shape=(3,), latent=2).encoder(torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """
    guide = sizes.encoder(encoder)
    return VAE(sizes.prior(prior, guide), sizes.likelihood(likelihood), guide)


def pca(prior: Maker, likelihood: Maker, encoder: Maker, sizes: Sizes) -> VAE:
    """z = W^T (x - m), x ~ N(W z + m, v I) under a flat p(z): principal component analysis of `sizes.x`, solved.

    Without data it is the same story unsolved, for its weights to be loaded into. Bourlard & Kamp 1988,
    https://doi.org/10.1007/BF00332918

    Args:
        prior, likelihood, encoder: not used.
        sizes: of the data, which are its `x`, and the code.

    >>> from ppvae.models import guides, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, guides.DiagonalNormal)
    >>> story = assemble(*parts, shape=(3,), latent=2, x=torch.randn(9, 3), story=pca)
    >>> story.encoder(torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """
    x = sizes.x if sizes.x is not None else torch.randn(sizes.features, sizes.features)
    return PCA(x, min(sizes.latent, sizes.features)).requires_grad_(False)


def ppca(prior: Maker, likelihood: Maker, encoder: Maker, sizes: Sizes) -> Linear:
    """z ~ N(0, I), x ~ N(W z + m, v I): probabilistic principal component analysis of `sizes.x`, in closed form.

    Without data it is the same story unsolved, for its weights to be loaded into, or for a fit. Tipping & Bishop 1999,
    https://doi.org/10.1111/1467-9868.00196

    Args:
        prior, likelihood, encoder: not used.
        sizes: of the data, which are its `x`, and the code.

    >>> from ppvae.models import guides, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, guides.DiagonalNormal)
    >>> assemble(*parts, shape=(3,), latent=2, x=torch.randn(9, 3), story=ppca).weight.shape
    torch.Size([3, 2])
    """
    if sizes.x is None:
        return Linear(sizes.features, sizes.latent)
    return linear.ppca(sizes.x, sizes.latent).requires_grad_(False)


def factor_analysis(prior: Maker, likelihood: Maker, encoder: Maker, sizes: Sizes) -> Linear:
    """z ~ N(0, I), x ~ N(W z + m, diag v): factor analysis of `sizes.x`, to maximum likelihood.

    Without data it is the same story unsolved, for its weights to be loaded into, or for a fit. Rubin & Thayer 1982,
    https://doi.org/10.1007/BF02293851

    Args:
        prior, likelihood, encoder: not used.
        sizes: of the data, which are its `x`, and the code.

    >>> from ppvae.models import guides, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, guides.DiagonalNormal)
    >>> assemble(*parts, shape=(3,), latent=2, story=factor_analysis).variance.shape
    torch.Size([3])
    """
    if sizes.x is None:
        return Linear(sizes.features, sizes.latent, shared=False)
    return linear.factor_analysis(sizes.x, sizes.latent).requires_grad_(False)


def hierarchical(
    prior: Maker,
    likelihood: Maker,
    encoder: Maker,
    sizes: Sizes,
    above: Sequence[int] = (4,),
    between: Sequence[int] = (100,),
) -> Hierarchical:
    """z_L ~ p(z_L), z_l ~ p(z_l | z_l+1), x ~ p(x | z_1), with the guide z_1 ~ q(z_1 | x), z_l+1 ~ q(z_l+1 | z_l).

    Burda et al. 2016, https://arxiv.org/abs/1509.00519

    Args:
        prior: makes p(z_L).
        likelihood: makes p(x | z_1).
        encoder: makes q(z_1 | x), and q(z_l+1 | z_l).
        sizes: of the data and the code, and the family of the networks.
        above: size of every layer above the first, whose size is `latent`.
        between: hidden layers of the networks from a layer to the one above it; those down are in reverse.

    >>> from ppvae.models import guides, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, guides.DiagonalNormal)
    >>> len(assemble(*parts, shape=(3,), latent=2, story=partial(hierarchical, above=[2, 1])).encoders)
    3
    """
    dense = _dense(sizes, between)
    encoders: list[Any] = [sizes.encoder(encoder)]
    for below, latent in pairwise([sizes.latent, *above]):
        encoders.append(_of_latents(sizes, below, dense).encoder(encoder, latent))
    top = sizes if not above else _of_latents(sizes, [sizes.latent, *above][-2], dense)
    return Hierarchical(
        top.prior(prior, encoders[-1], latent=[sizes.latent, *above][-1]),
        _conditionals(sizes, above, dense),
        sizes.likelihood(likelihood),
        encoders,
    )


def ladder(
    prior: Maker,
    likelihood: Maker,
    encoder: Maker,
    sizes: Sizes,
    above: Sequence[int] = (4,),
    between: Sequence[int] = (100,),
) -> Ladder:
    """The `hierarchical` model, with the guide z_L ~ q(z_L | x), z_l ~ q(z_l | x) p(z_l | z_l+1) / norm, down it.

    Sønderby et al. 2016, https://arxiv.org/abs/1602.02282

    Args:
        prior: makes p(z_L).
        likelihood: makes p(x | z_1).
        encoder: makes q(z_l | x), a diagonal Normal, for every layer.
        sizes: of the data and the code, and the family of the networks.
        above: size of every layer above the first, whose size is `latent`.
        between: layers of the networks upwards from one layer to the next, the last of which a layer's message is
            read off; hidden layers of those down, in reverse.

    >>> from ppvae.models import guides, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, guides.DiagonalNormal)
    >>> len(assemble(*parts, shape=(3,), latent=2, story=partial(ladder, above=[2, 1])).messages)
    3
    """
    if not between:
        raise ValueError("between should hold at least 1 layer, of which a ladder's messages are read off; got none")
    latents, width, dense = [sizes.latent, *above], between[-1], _dense(sizes, between)
    upwards = [sizes.encoder_network(width), *(dense.encoder((width,), width) for _ in above)]
    upwards = [nn.Sequential(network, networks.dense.ACTIVATIONS[dense.activation]()) for network in upwards]
    flat = _of_latents(sizes, width, replace(dense, hidden=()))
    messages: list[Any] = [flat.encoder(encoder, latent) for latent in latents]
    return Ladder(
        sizes.prior(prior, nn.Sequential(*upwards, messages[-1]), latent=latents[-1]),
        _conditionals(sizes, above, dense),
        sizes.likelihood(likelihood),
        upwards,
        messages,
    )


def conditional(
    prior: Maker, likelihood: Maker, encoder: Maker, sizes: Sizes, prior_given_labels: bool = False
) -> Conditional:
    """z ~ p(z), x ~ p(x | z, y), with the guide z ~ q(z | x, y), of data whose labels y are given.

    Sohn et al. 2015, https://papers.nips.cc/paper/2015/hash/8d55a249e6baa5c06772297520da2051-Abstract.html

    Args:
        prior: makes p(z).
        likelihood: makes p(x | z, y).
        encoder: makes q(z | x, y).
        sizes: of the data and the code, and the family of the networks.
        prior_given_labels: whether the prior is moved and scaled by the label.

    >>> from ppvae.models import guides, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, guides.DiagonalNormal)
    >>> story = assemble(*parts, shape=(3,), latent=2, classes=4, story=conditional)
    >>> story.encoder(torch.zeros(5, 3 + 4)).mean.shape
    torch.Size([5, 2])
    """
    classes = _classes(sizes)
    guide = sizes.encoder(encoder, beside=classes)
    made: Any = _with_labels(sizes, classes).prior(prior, guide)
    return Conditional(
        Moved(made, classes, sizes.latent) if prior_given_labels else made,
        sizes.likelihood(likelihood, inputs=sizes.latent + classes),
        guide,
        classes,
        given=prior_given_labels,
    )


def semi_supervised(
    prior: Maker, likelihood: Maker, encoder: Maker, sizes: Sizes, alpha: float = 10.0
) -> SemiSupervised:
    """y ~ Cat(pi), z ~ p(z), x ~ p(x | z, y), with the guide y ~ q(y | x), z ~ q(z | x, y); some y are given.

    Kingma et al. 2014, https://arxiv.org/abs/1406.5298

    Args:
        prior: makes p(z).
        likelihood: makes p(x | z, y).
        encoder: makes q(z | x, y).
        sizes: of the data and the code, and the family of the networks.
        alpha: weight of -log q(y | x) in the objective of a datum that has a label, nats.

    >>> from ppvae.models import guides, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, guides.DiagonalNormal)
    >>> story = assemble(*parts, shape=(3,), latent=2, classes=4, story=semi_supervised)
    >>> story.classifier(torch.zeros(5, 3)).shape
    torch.Size([5, 4])
    """
    classes = _classes(sizes)
    guide = sizes.encoder(encoder, beside=classes)
    return SemiSupervised(
        _with_labels(sizes, classes).prior(prior, guide),
        sizes.likelihood(likelihood, inputs=sizes.latent + classes),
        guide,
        sizes.encoder_network(classes),
        classes,
        alpha,
    )


def mixture(prior: Maker, likelihood: Maker, encoder: Maker, sizes: Sizes) -> Mixture:
    """c ~ Cat(pi), z ~ N(m_c, diag s_c^2), x ~ p(x | z), with the guide z ~ q(z | x), c ~ p(c | z).

    The prior has to be such a mixture, `--prior GaussianMixture` or one like it: any other, the default one too, is
    refused. Dilokthanakul et al. 2016, https://arxiv.org/abs/1611.02648

    Args:
        prior: makes p(z), a mixture of diagonal Normals.
        likelihood: makes p(x | z).
        encoder: makes q(z | x).
        sizes: of the data and the code, and the family of the networks.

    >>> from ppvae.models import guides, likelihoods, priors
    >>> parts = (priors.GaussianMixture, likelihoods.Normal, guides.DiagonalNormal)
    >>> assemble(*parts, shape=(3,), latent=2, story=mixture).encoder(torch.zeros(5, 3)).mean.shape
    torch.Size([5, 2])
    """
    guide = sizes.encoder(encoder)
    return Mixture(sizes.prior(prior, guide), sizes.likelihood(likelihood), guide)


def sequence(
    prior: Maker,
    likelihood: Maker,
    encoder: Maker,
    sizes: Sizes,
    hidden: int = 128,
    embedding: int = 0,
    word_dropout: float = 0.0,
) -> SequenceVAE:
    """z ~ p(z), x_t ~ p(x_t | x_1, ..., x_t-1, z) for every step, with the guide z ~ q(z | x).

    The networks of the family go from the states of two LSTMs, one that reads and one that writes, to the parts.
    Bowman et al. 2016, https://arxiv.org/abs/1511.06349

    Args:
        prior: makes p(z).
        likelihood: makes p(x_t | x_1, ..., x_t-1, z).
        encoder: makes q(z | x).
        sizes: of the data and the code, and the family of the networks.
        hidden: size of an LSTM's state.
        embedding: size of a learned vector for every level, where levels are names (of words, of letters); 0 where
            they are amounts.
        word_dropout: probability that, in training, a step's density is not shown the step before it.

    >>> from ppvae.models import guides, likelihoods, priors
    >>> parts = (priors.StandardNormal, likelihoods.Normal, guides.DiagonalNormal)
    >>> story = assemble(*parts, shape=(7, 3), latent=2, story=sequence)
    >>> story.encoder(torch.zeros(5, 21)).mean.shape
    torch.Size([5, 2])
    """
    steps, features = networks.checks.sequence_shape(sizes.shape, "the sequence story")
    if isinstance(sizes.network, networks.LSTM | networks.Recursive):
        raise ValueError("the sequence story reads and writes with LSTMs of its own; its network should be dense: MLP")
    x = None if sizes.x is None else sizes.x.reshape(-1, features)
    emission: Any = replace(sizes, shape=(features,), x=x).likelihood(likelihood, inputs=hidden)
    names: int = getattr(emission, "levels", 0 if sizes.maximum is None else sizes.maximum + 1)
    if embedding and not names:
        raise ValueError("embedding is of names, 0 to a largest one, and these data have none; leave it 0")
    inputs = partial(Tokens, features, names, embedding) if embedding else partial(Amounts, features, sizes.input_scale)
    reading = replace(sizes, network=Reading(sizes.network, inputs, hidden), input_scale=1.0)
    guide = reading.encoder(encoder)
    writer = Recurrent(emission, inputs(), sizes.latent, (steps, features), hidden, word_dropout, bool(embedding))
    return SequenceVAE(reading.prior(prior, guide), writer, guide)


def _classes(sizes: Sizes) -> int:
    if sizes.classes is None:
        raise ValueError("this story needs labels: the number of classes should be given, and these data have none")
    return sizes.classes


def _with_labels(sizes: Sizes, classes: int) -> Sizes:
    """What a prior made of the encoder is told of data: that labels, equally likely, stand beside them."""
    x = sizes.x
    rows = None if x is None else torch.cat([x, x.new_full((len(x), classes), 1 / classes)], dim=-1)
    return replace(sizes, shape=(sizes.features + classes,), x=rows)


def _dense(sizes: Sizes, hidden: Sequence[int]) -> networks.MLP:
    """Networks between layers of latents: with the activation of the others, where these are dense too."""
    family = sizes.network if isinstance(sizes.network, networks.MLP) else networks.MLP()
    return replace(family, hidden=hidden)


def _of_latents(sizes: Sizes, features: int, network: networks.MLP) -> Sizes:
    """Sizes of parts whose data are a layer of latents."""
    return replace(sizes, shape=(features,), network=network, input_scale=1.0, x=None, maximum=None)


def _conditionals(sizes: Sizes, above: Sequence[int], network: networks.MLP) -> list[nn.Module]:
    """p(z_l | z_l+1) for every two layers, p(z_1 | z_2) first."""
    layers = pairwise([sizes.latent, *above])
    return [LayerNormal(network.decoder(latent, (below,), 2)) for below, latent in layers]


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
    maximum: int | None = None,
    classes: int | None = None,
    output_bias: bool = False,
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
        maximum: the largest level of data that have one.
        classes: number of labels of data that have them.
        output_bias: whether the decoder's output starts at what the mean of `x` asks for.

    >>> from ppvae.models import guides, likelihoods, priors
    >>> story = assemble(priors.StandardNormal, likelihoods.Bernoulli, guides.DiagonalNormal, shape=(64,), latent=2)
    >>> story.encoder.network[-1].out_features
    4
    """
    sizes = Sizes(shape, latent, network, input_scale, x, maximum, classes, output_bias)
    return story(prior, likelihood, encoder, sizes)
