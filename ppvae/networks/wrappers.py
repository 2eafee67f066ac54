"""What stands around a network: a scale before it, a shift behind it, a shape for its data."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Scale(nn.Module):
    """x times a fixed factor, so that a network sees values near 1: levels up to 255 would saturate it.

    Args:
        factor: a number, or one for every feature.

    >>> Scale(0.5)(torch.tensor([16.0]))
    tensor([8.])
    """

    factor: Tensor

    def __init__(self, factor: float | Tensor):
        super().__init__()
        self.register_buffer("factor", torch.as_tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Shift(nn.Module):
    """x plus a learned vector.

    >>> Shift(torch.tensor([1.0, 2.0]))(torch.zeros(2))
    tensor([1., 2.], grad_fn=<AddBackward0>)
    """

    def __init__(self, shift: Tensor):
        super().__init__()
        self.shift = nn.Parameter(shift.clone())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


class Shaped(nn.Module):
    """A network of shaped data, `(rows, *shape)`, as one of flat data with any leading dimensions.

    Args:
        network: `(rows, *shape)` to `(rows, ...)`.
        shape: how to look at a datum.

    >>> Shaped(torch.nn.Conv2d(1, 4, 3), shape=(1, 8, 8))(torch.zeros(5, 3, 64)).shape
    torch.Size([5, 3, 144])
    """

    def __init__(self, network: nn.Module, shape: Sequence[int]):
        super().__init__()
        self.network = network
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        y = self.network(x.reshape(-1, *self.shape)).flatten(1)
        return y.reshape(*x.shape[:-1], y.shape[-1])
