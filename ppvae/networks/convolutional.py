"""Networks that see an image as an image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from ppvae.networks.checks import at_least_one, known
from ppvae.networks.dense import ACTIVATIONS, Activation, gated
from ppvae.networks.initialisation import Initialisation
from ppvae.networks.pyramid import check_pyramid, pyramid_decoder, pyramid_encoder

POOLS: dict[str, Callable[..., nn.Module]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)


def _transposed(inputs: int, outputs: int, kernel: int, stride: int, size: tuple[int, int]) -> nn.Module:
    """The way back from a strided convolution, to an image of the given size."""
    left = ((size[0] - 1) % stride, (size[1] - 1) % stride)
    return nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding=kernel // 2, output_padding=left)


@dataclass(frozen=True)
class Convolutional:
    """Strided convolutions, and transposed ones back, for data of shape (height, width) or (channels, height, width).

    LeCun et al. 1998, https://doi.org/10.1109/5.726791; strided both ways, Radford et al. 2016,
    https://arxiv.org/abs/1511.06434.

    Args:
        channels: of each of the encoder's convolutions; the decoder's are in reverse.
        kernel: their side, odd.
        stride: by which each shrinks the image.
        hidden: sizes of dense layers between the convolutions and the code.
        activation: after each layer.
        initialisation: where the weights start.

    Raises:
        ValueError: for sizes out of range or an unknown name; for a shape that is no image.

    >>> Convolutional([8, 16]).decoder(2, shape=(3, 9, 10), outputs=2)(torch.zeros(5, 2)).shape
    torch.Size([5, 540])
    """

    channels: Sequence[int] = (32, 64)
    kernel: int = 3
    stride: int = 2
    hidden: Sequence[int] = ()
    activation: Activation = "relu"
    initialisation: Initialisation = "default"

    def __post_init__(self) -> None:
        check_pyramid(self)

    def encoder(self, shape: Sequence[int], outputs: int) -> nn.Module:
        return pyramid_encoder(self, shape, outputs)

    def decoder(self, inputs: int, shape: Sequence[int], outputs: int) -> nn.Module:
        return pyramid_decoder(self, inputs, shape, outputs)

    def dense(self, inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, outputs), ACTIVATIONS[self.activation]())

    def down(self, inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(_convolution(inputs, outputs, self.kernel, self.stride), ACTIVATIONS[self.activation]())

    def up(self, inputs: int, outputs: int, size: tuple[int, int]) -> nn.Module:
        return nn.Sequential(self.last(inputs, outputs, size), ACTIVATIONS[self.activation]())

    def last(self, inputs: int, outputs: int, size: tuple[int, int]) -> nn.Module:
        return _transposed(inputs, outputs, self.kernel, self.stride, size)


@dataclass(frozen=True)
class PooledConvolutional:
    """Convolutions that keep the size, each followed by pooling; on the way back each follows an upsampling.

    LeCun et al. 1998, https://doi.org/10.1109/5.726791; upsampling by copies of the nearest pixel leaves no
    checkerboard, Odena et al. 2016, https://doi.org/10.23915/distill.00003.

    Args:
        channels: of each of the encoder's convolutions; the decoder's are in reverse.
        kernel: their side, odd.
        stride: side of a pooling window, by which it shrinks the image.
        pool: what is kept of a window: its largest value, or its average.
        hidden: sizes of dense layers between the convolutions and the code.
        activation: after each layer.
        initialisation: where the weights start.

    Raises:
        ValueError: for sizes out of range or an unknown name; for a shape that is no image.

    >>> PooledConvolutional([8, 16]).encoder(shape=(9, 10), outputs=4)(torch.zeros(5, 90)).shape
    torch.Size([5, 4])
    """

    channels: Sequence[int] = (32, 64)
    kernel: int = 3
    stride: int = 2
    pool: Literal["max", "average"] = "max"
    hidden: Sequence[int] = ()
    activation: Activation = "relu"
    initialisation: Initialisation = "default"

    def __post_init__(self) -> None:
        check_pyramid(self)
        known(self, "pool", self.pool, POOLS)

    def encoder(self, shape: Sequence[int], outputs: int) -> nn.Module:
        return pyramid_encoder(self, shape, outputs)

    def decoder(self, inputs: int, shape: Sequence[int], outputs: int) -> nn.Module:
        return pyramid_decoder(self, inputs, shape, outputs)

    def dense(self, inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, outputs), ACTIVATIONS[self.activation]())

    def down(self, inputs: int, outputs: int) -> nn.Module:
        pool = POOLS[self.pool](self.stride, ceil_mode=True)
        return nn.Sequential(_convolution(inputs, outputs, self.kernel), ACTIVATIONS[self.activation](), pool)

    def up(self, inputs: int, outputs: int, size: tuple[int, int]) -> nn.Module:
        return nn.Sequential(self.last(inputs, outputs, size), ACTIVATIONS[self.activation]())

    def last(self, inputs: int, outputs: int, size: tuple[int, int]) -> nn.Module:
        return nn.Sequential(nn.Upsample(size), _convolution(inputs, outputs, self.kernel))


@dataclass(frozen=True)
class GatedConvolutional:
    """`Convolutional` with gated layers: h = activation(V * x + b) * sigmoid(W * x + c).

    van den Oord et al. 2016, https://arxiv.org/abs/1606.05328 (with `tanh`); Dauphin et al. 2017,
    https://arxiv.org/abs/1612.08083, and the ConvHVAE of Tomczak & Welling 2018, https://arxiv.org/abs/1705.07120
    (with `identity`).

    Args:
        channels: of each of the encoder's convolutions; the decoder's are in reverse.
        kernel: their side, odd.
        stride: by which each shrinks the image.
        hidden: sizes of dense layers, gated too, between the convolutions and the code.
        activation: of the values that the gates let through.
        initialisation: where the weights start.

    Raises:
        ValueError: for sizes out of range or an unknown name; for a shape that is no image.

    >>> GatedConvolutional([8, 16]).encoder(shape=(9, 10), outputs=4)(torch.zeros(5, 90)).shape
    torch.Size([5, 4])
    """

    channels: Sequence[int] = (32, 64)
    kernel: int = 3
    stride: int = 2
    hidden: Sequence[int] = ()
    activation: Activation = "identity"
    initialisation: Initialisation = "default"

    def __post_init__(self) -> None:
        check_pyramid(self)

    def encoder(self, shape: Sequence[int], outputs: int) -> nn.Module:
        return pyramid_encoder(self, shape, outputs)

    def decoder(self, inputs: int, shape: Sequence[int], outputs: int) -> nn.Module:
        return pyramid_decoder(self, inputs, shape, outputs)

    def dense(self, inputs: int, outputs: int) -> nn.Module:
        return gated(lambda: nn.Linear(inputs, outputs), self.activation)

    def down(self, inputs: int, outputs: int) -> nn.Module:
        return gated(lambda: _convolution(inputs, outputs, self.kernel, self.stride), self.activation)

    def up(self, inputs: int, outputs: int, size: tuple[int, int]) -> nn.Module:
        return gated(lambda: self.last(inputs, outputs, size), self.activation)

    def last(self, inputs: int, outputs: int, size: tuple[int, int]) -> nn.Module:
        return _transposed(inputs, outputs, self.kernel, self.stride, size)


class ResidualBlock(nn.Module):
    """f(shortcut(x) + B f(A x)) with convolutions A and B; the shortcut is x itself wherever the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, activation: nn.Module):
        super().__init__()
        self.first = _convolution(inputs, outputs, kernel, stride)
        self.second = _convolution(outputs, outputs, kernel)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _convolution(inputs, outputs, 1, stride)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.shortcut(x) + self.second(self.activation(self.first(x))))


@dataclass(frozen=True)
class Residual:
    """Residual networks: every stage is a few blocks h = f(x + B f(A x)), of which the encoder's first shrinks.

    He et al. 2016, https://arxiv.org/abs/1512.03385, without their batch normalisation: it would make a datum's
    evidence depend on the rest of its batch. The decoder's stages each follow an upsampling by copies of the nearest
    pixel.

    Args:
        channels: of each of the encoder's stages; the decoder's are in reverse.
        blocks: in each stage.
        kernel: side of the convolutions, odd.
        stride: by which a stage shrinks the image.
        hidden: sizes of dense layers between the stages and the code.
        activation: f.
        initialisation: where the weights start.

    Raises:
        ValueError: for sizes out of range or an unknown name; for a shape that is no image.

    >>> Residual([8, 16], blocks=1).encoder(shape=(9, 10), outputs=4)(torch.zeros(5, 90)).shape
    torch.Size([5, 4])
    """

    channels: Sequence[int] = (32, 64)
    blocks: int = 2
    kernel: int = 3
    stride: int = 2
    hidden: Sequence[int] = ()
    activation: Activation = "relu"
    initialisation: Initialisation = "default"

    def __post_init__(self) -> None:
        check_pyramid(self)
        at_least_one(self, blocks=self.blocks)

    def encoder(self, shape: Sequence[int], outputs: int) -> nn.Module:
        return pyramid_encoder(self, shape, outputs)

    def decoder(self, inputs: int, shape: Sequence[int], outputs: int) -> nn.Module:
        return pyramid_decoder(self, inputs, shape, outputs)

    def dense(self, inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, outputs), ACTIVATIONS[self.activation]())

    def down(self, inputs: int, outputs: int) -> nn.Module:
        return self._stage(inputs, outputs, self.stride)

    def up(self, inputs: int, outputs: int, size: tuple[int, int]) -> nn.Module:
        return nn.Sequential(nn.Upsample(size), self._stage(inputs, outputs, 1))

    def last(self, inputs: int, outputs: int, size: tuple[int, int]) -> nn.Module:
        return nn.Sequential(nn.Upsample(size), _convolution(inputs, outputs, self.kernel))

    def _stage(self, inputs: int, outputs: int, stride: int) -> nn.Module:
        sizes = [(inputs, stride), *[(outputs, 1)] * (self.blocks - 1)]
        activation = ACTIVATIONS[self.activation]
        return nn.Sequential(*(ResidualBlock(a, outputs, self.kernel, s, activation()) for a, s in sizes))
