"""Greedy layer-wise pre-training: every layer of a deep autoencoder first learns alone, from the bottom up."""

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import nn

from ppvae.base import Batch, Likelihood
from ppvae.inference.program.codes import encode
from ppvae.inference.program.traces import as_batch, networks_of
from ppvae.models import VAE, Autoencoder, likelihoods, priors
from ppvae.training.fit import fit
from ppvae.training.history import History


def pretrain(
    story: Any,
    data: Batch,
    *,
    epochs: int = 10,
    batch_size: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
    progress: bool = True,
) -> list[History]:
    """Fit every layer of the encoder, with its mirror in the decoder, as an autoencoder of the layer beneath.

    Bengio et al. 2006, https://papers.nips.cc/paper/2006/hash/5da713a690c067105aeb2fae32403405-Abstract.html, and
    Hinton & Salakhutdinov 2006, https://doi.org/10.1126/science.1127647, with autoencoders in place of their
    restricted Boltzmann machines. The layers beneath are held fixed, and show the evaluation's codes. The story is left
    in evaluation mode; its own `fit` then tunes all layers together. Tanh and ELU layers gain most: a ReLU of the
    decoder that starts off for all data stays off.

    Args:
        story: a `VAE` of dense networks, or any object with an `encoder` and a `likelihood` that each hold one as
            `network`; its layers' weights move, and nothing else of it.
        data: `(N, features)`, or a tuple of tensors of equal length: a `VAE`'s with missing values or library sizes;
            of another story's the first counts.
        epochs: passes over the data, for every layer.
        batch_size: rows per step.
        lr: Adam's step size.
        seed: of everything random; torch's global generators are left as they were.
        progress: whether to show a bar for every layer.

    Returns:
        list[History]: one per layer, the bottom's first: the loss of the layer alone, nats per datum.

    Raises:
        ValueError: networks that have no layers to pair, see `stages`; an encoder that takes more than x; what `fit`
            refuses.

    >>> import torch
    >>> from ppvae import networks
    >>> family = networks.MLP([8, 4])
    >>> encoder, decoder = family.encoder((6,), 2), family.decoder(2, (6,), 1)
    >>> story = Autoencoder(priors.Flat(2), likelihoods.Normal(decoder), encoder)
    >>> [len(history.epochs) for history in pretrain(story, torch.randn(20, 6), epochs=2, progress=False)]
    [2, 2, 2]
    """
    layers = stages(story)
    batch = as_batch(data) if isinstance(story, VAE) else as_batch(data)[:1]
    _check_width(layers[0], batch[0].shape[-1])
    alone = partial(fit, epochs=epochs, batch_size=batch_size, lr=lr, seed=seed, progress=progress)
    histories = []
    for layer in layers:
        histories.append(alone(layer, batch))
        batch = (encode(layer, batch),)
    networks_of(story).eval()
    return histories


def stages(story: Any) -> list[VAE]:
    """The one-layer autoencoders that a story's dense networks are made of, the bottom one first.

    They hold the very modules of the story, so that to fit one moves the story's own weights. The bottom one is of x,
    with a copy of the story's likelihood around the decoder's last layer; the others are of the codes beneath, with a
    squared error behind the decoder's activation. A corruption, a scale or a sigmoid stays with the layer that it
    stands at, a penalty and the prior stay with the whole story. Layers are paired from the bottom for as long as their
    sizes mirror: a VAE's topmost, from which the guide's parameters come, is no layer's mirror.

    Args:
        story: with `encoder.network` and `likelihood.network`, each of `nn.Linear` in `nn.Sequential`, nested or not.

    Raises:
        ValueError: no layer of the encoder is mirrored in the decoder.

    >>> from ppvae import networks
    >>> encoder, decoder = networks.mlp(6, [4], 2), networks.mlp(2, [4], 6)
    >>> below, above = stages(Autoencoder(priors.Flat(2), likelihoods.Bernoulli(decoder), encoder))
    >>> below.likelihood.network[0] is decoder[2], above.likelihood.network[0] is decoder[0]
    (True, True)
    """
    (up, down), *above = _pairs(story)
    bottom = _autoencoder(up, _with_network(story.likelihood, down))
    return [bottom, *(_autoencoder(up, _squared_error(down)) for up, down in above)]


def _autoencoder(block: nn.Sequential, likelihood: Likelihood) -> VAE:
    return Autoencoder(priors.Flat(_linear(block).out_features), likelihood, block)


def _squared_error(block: nn.Sequential) -> likelihoods.Normal:
    return likelihoods.Normal(block, variance=1.0).to(_linear(block).weight)


def _with_network(likelihood: Any, network: nn.Module) -> Any:
    """A copy of a likelihood around another network; what else it learns is its own."""
    return copy.deepcopy(likelihood, {id(likelihood.network): network})


def _pairs(story: Any) -> list[tuple[nn.Sequential, nn.Sequential]]:
    """Blocks of the encoder with their mirrors in the decoder, from the bottom, as far as there are some."""
    encoder, decoder = (_blocks(getattr(story, part, None)) for part in ("encoder", "likelihood"))
    pairs: list[tuple[nn.Sequential, nn.Sequential]] = []
    for up, down in zip(encoder, decoder[::-1], strict=False):
        mirrored = _linear(down).in_features == _linear(up).out_features  # its other side is the pair's beneath, or x
        if not (mirrored and _one_layer(up) and _one_layer(down)):
            break
        pairs.append((up, down))
    if not pairs:
        raise ValueError(
            "pre-training should find a dense layer in the encoder that is mirrored in the decoder, got "
            f"{type(story).__name__} with {_described(encoder)} and {_described(decoder)}: --network MLP with a hidden "
            "layer has one"
        )
    return pairs


def _blocks(part: Any) -> list[nn.Sequential]:
    """A part's network cut in front of every affine map but the first."""
    modules = list(_flattened(getattr(part, "network", nn.Identity())))
    starts = [i for i, module in enumerate(modules) if isinstance(module, nn.Linear)]
    ends = [*starts[1:], len(modules)]
    return [nn.Sequential(*modules[a:b]) for a, b in zip([0, *ends], ends, strict=False)] if starts else []


def _flattened(network: nn.Module) -> Iterator[nn.Module]:
    if isinstance(network, nn.Sequential):
        for module in network:  # not `children`, which gives a module that stands in two places once
            yield from _flattened(module)
    else:
        yield network


def _linear(block: nn.Sequential) -> nn.Linear:
    return next(module for module in block if isinstance(module, nn.Linear))


def _one_layer(block: nn.Sequential) -> bool:
    """Whether a block's only matrix is its affine map's: a gated or convolutional layer beside it is no part of it."""
    return all(p.dim() < 2 for module in block if not isinstance(module, nn.Linear) for p in module.parameters())


def _described(blocks: list[nn.Sequential]) -> str:
    return ", ".join(f"{_linear(b).in_features} to {_linear(b).out_features}" for b in blocks) or "no dense layers"


def _check_width(bottom: Any, features: int) -> None:
    takes = _linear(bottom.encoder.network).in_features
    if takes != features:
        raise ValueError(
            f"the encoder's first layer should take x alone, {features} features, got one of {takes}: fit a story that "
            "puts labels beside x without pre-training"
        )
