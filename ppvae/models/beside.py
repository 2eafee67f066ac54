"""What stands beside x and z: labels as numbers, and a network's door for them."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def one_hot(labels: Tensor, classes: int, like: Tensor, missing: bool = False) -> Tensor:
    """Labels as rows of one 1 each, `(batch,)` to `(batch, classes)`, in the dtype of `like`.

    Args:
        labels: whole numbers from 0 to `classes` - 1.
        classes: how many labels there are.
        like: a tensor whose dtype and device the result has.
        missing: whether -1 is a label too, that of a row which has none; its row is that of label 0.

    Raises:
        ValueError: labels of another shape or kind, or out of range.

    >>> one_hot(torch.tensor([2, 0]), classes=3, like=torch.zeros(1))
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    if labels.dim() != 1 or labels.is_floating_point():
        kind = f"{tuple(labels.shape)} of {labels.dtype}".replace("torch.", "")
        raise ValueError(f"labels should be whole numbers, one a datum, got shape {kind}")
    lowest = -1 if missing else 0
    outside = (labels < lowest) | (labels >= classes)
    if not torch.compiler.is_compiling() and outside.any():
        kind = f"from 0 to {classes - 1}{', or -1 for none' if missing else ''}"
        raise ValueError(f"labels should be {kind}, got {labels[outside][0].item()}")
    return functional.one_hot(labels.long().clamp_min(0), classes).to(like)


class ShiftedBy(nn.Module):
    """x + W y, for x and y side by side: a network of data that have a shape can then take y too.

    Args:
        features: of x, `(..., features)`.
        beside: of y, `(..., beside)`.

    >>> ShiftedBy(64, 10)(torch.zeros(5, 74)).shape
    torch.Size([5, 64])
    """

    def __init__(self, features: int, beside: int):
        super().__init__()
        self.sizes = [features, beside]
        self.shift = nn.Linear(beside, features, bias=False)

    def forward(self, both: Tensor) -> Tensor:
        x, y = both.split(self.sizes, dim=-1)
        return x + self.shift(y)


def side_by_side(first: Tensor, second: Tensor) -> Tensor:
    """Two tensors side by side along the last dimension, their leading dimensions broadcast."""
    leading = torch.broadcast_shapes(first.shape[:-1], second.shape[:-1])
    return torch.cat([part.expand(*leading, -1) for part in (first, second)], dim=-1)
