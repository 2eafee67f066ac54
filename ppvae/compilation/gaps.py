"""How far something is from what it should be, in digits that hide nothing."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Gap(NamedTuple):
    """How far something is from what it should be."""

    what: str
    part: Tensor | None  # the parameter or buffer that it is of
    size: float
    of: float  # how large it should be
    allowed: float

    def share(self) -> float:
        """Of what is allowed: above 1 it is too much."""
        return 0.0 if self.size == 0 else self.size / self.allowed if self.allowed > 0 else math.inf

    def said(self, networks: nn.Module) -> str:
        named = (*networks.named_parameters(), *networks.named_buffers())
        names = [name for name, part in named if part is self.part]
        what = " ".join([self.what, *names[:1]])
        return f"{what} is off by {self.size:.3g}, where ordinary Python has {self.of:.3g}"


def gap(what: str, part: Tensor | None, found: Tensor, expected: Tensor, allowed: float) -> Gap:
    """By the norm."""
    return Gap(what, part, float(_apart(found, expected).norm()), norm(expected), allowed)


def value_gap(found: Tensor, expected: Tensor, tolerance: float) -> list[Gap]:
    """Of a loss, or of the log-weight that is off most: one near 0 is a sum of terms as large as the others'."""
    apart, sizes = _apart(found, expected).abs().flatten(), in_double(expected).abs().nan_to_num(0, 0, 0).flatten()
    if not len(apart):
        return []
    allowed = tolerance * (1 + sizes + sizes.median())
    place = int((apart / allowed).argmax())
    what = "the loss" if expected.dim() == 0 else "a log-weight"
    return [Gap(what, None, float(apart[place]), float(in_double(expected).flatten()[place]), float(allowed[place]))]


def norm(part: Tensor) -> float:
    """Of what is finite."""
    return float(in_double(part).nan_to_num(0, 0, 0).norm())


def in_double(part: Tensor) -> Tensor:
    """As exact as the device can."""
    part = torch.view_as_real(part.detach()) if part.is_complex() else part.detach()
    return part.to(torch.float32 if part.device.type == "mps" else torch.float64)


def _apart(found: Tensor, expected: Tensor) -> Tensor:
    """Their difference: 0 between nan and nan or one infinity, and infinite where but one of the two is finite."""
    if found.shape != expected.shape:
        return torch.full((1,), math.inf)
    one, two = in_double(found), in_double(expected)
    same = (one == two) | (one.isnan() & two.isnan())
    return torch.where(same, 0.0, one - two).nan_to_num(math.inf, math.inf, -math.inf)
