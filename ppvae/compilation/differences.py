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
    """By the norm of the difference: 0 between nan and nan or one infinity, infinite where but one of two is finite."""
    return Gap(what, part, _distance(found, expected), norm(expected), allowed)


def value_gap(found: Tensor, expected: Tensor, tolerance: float) -> list[Gap]:
    """Of a loss, or of the log-weight that is off most: one near 0 is a sum of terms as large as the others'."""
    if not expected.numel():
        return []
    one, two = (_real(part).flatten() for part in (found, expected))
    sizes = two.abs().nan_to_num(0, 0, 0)
    allowed = tolerance * (1 + sizes + sizes.median())
    apart = torch.where(_same(one, two), 0.0, one - two).abs().nan_to_num(math.inf, math.inf)
    place = int((apart / allowed).argmax())
    what = "the loss" if expected.dim() == 0 else "a log-weight"
    return [Gap(what, None, float(apart[place]), float(two[place]), float(allowed[place]))]


def norm(part: Tensor) -> float:
    """Of what is finite."""
    size = _norm(_real(part))
    return size if math.isfinite(size) else _norm(_real(part).nan_to_num(0, 0, 0))


def _distance(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return math.inf
    one, two = _real(found), _real(expected)
    size = _norm(one - two)
    if not math.isfinite(size):
        size = _norm(torch.where(_same(one, two), 0.0, one - two))
    return math.inf if math.isnan(size) else size


def _same(one: Tensor, two: Tensor) -> Tensor:
    return (one == two) | (one.isnan() & two.isnan())


def _norm(part: Tensor) -> float:
    """Added up in double digits, which nothing of float32 overflows."""
    return float(torch.linalg.vector_norm(part, dtype=None if part.device.type == "mps" else torch.float64))


def _real(part: Tensor) -> Tensor:
    """Numbers that can be taken from each other."""
    part = torch.view_as_real(part.detach()) if part.is_complex() else part.detach()
    return part if part.is_floating_point() else part.to(torch.float32 if part.device.type == "mps" else torch.float64)
