"""Networks act on the trailing dimension and leave any leading dimensions alone.

A family of networks makes an encoder's and a decoder's from the sizes alone (`base.Architecture`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn


def mlp(
    inputs: int, hidden: Sequence[int], outputs: int, activation: Callable[[], nn.Module] = nn.ReLU
) -> nn.Sequential:
    """A multilayer perceptron, `(..., inputs)` to `(..., outputs)`; with `hidden=[]` an affine map.

    Args:
        inputs: size of the input's last dimension.
        hidden: size of each hidden layer, first to last.
        outputs: size of the output's last dimension; the last layer has no activation.
        activation: called once per hidden layer.

    >>> mlp(8, [200], 64)(torch.zeros(5, 3, 8)).shape
    torch.Size([5, 3, 64])
    """
    sizes = [inputs, *hidden, outputs]
    if min(sizes) < 1:
        raise ValueError(f"every layer of a network should have at least 1 unit, got {sizes}")
    layers: list[nn.Module] = []
    for size_in, size_out in pairwise(sizes):
        layers += [nn.Linear(size_in, size_out), activation()]
    return nn.Sequential(*layers[:-1])


@dataclass(frozen=True)
class MLP:
    """Multilayer perceptrons: the encoder's hidden layers, and the decoder's in reverse.

    Args:
        hidden: size of each hidden layer of the encoder.

    >>> MLP([200, 100]).decoder(2, shape=(1, 8, 8), outputs=1)(torch.zeros(5, 2)).shape
    torch.Size([5, 64])
    """

    hidden: Sequence[int] = (200,)

    def encoder(self, shape: Sequence[int], outputs: int) -> nn.Module:
        return mlp(prod(shape), self.hidden, outputs)

    def decoder(self, inputs: int, shape: Sequence[int], outputs: int) -> nn.Module:
        return mlp(inputs, self.hidden[::-1], outputs * prod(shape))


class Scale(nn.Module):
    """x times a fixed factor, so that a network sees values near 1: levels up to 255 would saturate it.

    >>> Scale(0.5)(torch.tensor([16.0]))
    tensor([8.])
    """

    factor: Tensor

    def __init__(self, factor: float):
        super().__init__()
        self.register_buffer("factor", torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor
