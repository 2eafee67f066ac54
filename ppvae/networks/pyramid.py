"""The two halves that every family of networks for images has; what differs is its layers.

The encoder's layers each shrink the image by the stride, rounded up, and an affine map ends them; the decoder's go the
same way back, to exactly the same sizes.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, prod
from typing import Protocol

from torch import nn

from ppvae.networks.checks import at_least_one, image_shape, known, whose
from ppvae.networks.dense import ACTIVATIONS, Activation
from ppvae.networks.initialisation import Initialisation, initialise
from ppvae.networks.wrappers import Shaped


class Pyramid(Protocol):
    """What the two halves ask of a family."""

    @property
    def channels(self) -> Sequence[int]: ...
    @property
    def kernel(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def hidden(self) -> Sequence[int]: ...
    @property
    def activation(self) -> Activation: ...
    @property
    def initialisation(self) -> Initialisation: ...

    def dense(self, inputs: int, outputs: int) -> nn.Module:
        """A layer of vectors."""
        ...

    def down(self, inputs: int, outputs: int) -> nn.Module:
        """A layer that shrinks an image by the stride."""
        ...

    def up(self, inputs: int, outputs: int, size: tuple[int, int]) -> nn.Module:
        """A layer that makes an image grow to `size`."""
        ...

    def last(self, inputs: int, outputs: int, size: tuple[int, int]) -> nn.Module:
        """The same without an activation."""
        ...


def pyramid_encoder(family: Pyramid, shape: Sequence[int], outputs: int) -> nn.Module:
    at_least_one(family, outputs=outputs)
    channels, height, width = image_shape(shape, type(family).__name__)
    top = _sizes(family, (height, width))[-1]
    flat = [family.channels[-1] * prod(top), *family.hidden]
    layers = [family.down(a, b) for a, b in pairwise([channels, *family.channels])]
    layers += [nn.Flatten(), *(family.dense(a, b) for a, b in pairwise(flat)), nn.Linear(flat[-1], outputs)]
    return initialise(Shaped(nn.Sequential(*layers), (channels, height, width)), family.initialisation, family)


def pyramid_decoder(family: Pyramid, inputs: int, shape: Sequence[int], outputs: int) -> nn.Module:
    at_least_one(family, inputs=inputs, outputs=outputs)
    channels, height, width = image_shape(shape, type(family).__name__)
    *sizes, top = _sizes(family, (height, width))
    top_shape = (family.channels[-1], *top)
    flat = [inputs, *family.hidden[::-1], prod(top_shape)]
    layers = [*(family.dense(a, b) for a, b in pairwise(flat)), nn.Unflatten(-1, top_shape)]
    layers += [
        family.up(a, b, size) for (a, b), size in zip(pairwise(family.channels[::-1]), sizes[:0:-1], strict=True)
    ]
    layers += [family.last(family.channels[0], outputs * channels, sizes[0])]
    return initialise(Shaped(nn.Sequential(*layers), (inputs,)), family.initialisation, family)


def check_pyramid(family: Pyramid) -> None:
    if not family.channels:
        raise ValueError(f"{whose(family)}channels should hold at least 1 layer's, got none")
    at_least_one(family, channels=family.channels, hidden=family.hidden, kernel=family.kernel, stride=family.stride)
    if family.kernel % 2 == 0:
        raise ValueError(f"{whose(family)}kernel should be odd, so that it has a centre, got {family.kernel}")
    known(family, "activation", family.activation, ACTIVATIONS)


def _sizes(family: Pyramid, size: tuple[int, int]) -> list[tuple[int, int]]:
    """The image's size before every layer, and after the last."""
    widest = max(9, 2 * max(size) - 1)  # small ones cost nothing
    if family.kernel > widest:
        rule = f"kernel should be at most {widest} for images of {size[0]} x {size[1]}"
        raise ValueError(f"{whose(family)}{rule}, got {family.kernel}")
    sizes = [size]
    for _ in family.channels:
        height, width = sizes[-1]
        sizes.append((ceil(height / family.stride), ceil(width / family.stride)))
    return sizes
