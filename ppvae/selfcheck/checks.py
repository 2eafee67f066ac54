"""One line of a self-check: a figure, the truth, and how far they are apart."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LIMIT = 4.5
"""Standard errors that a figure may be off: one right figure in 150,000 is further. Seeds are fixed."""


@dataclass(frozen=True)
class Check:
    """A figure, what it should be, and how far it is off in its own standard errors."""

    kind: str  # value, gradient, evidence, its error, bound, flag, posterior, invariance
    story: str
    what: str
    figure: float
    truth: float
    error: float  # standard error of the figure; 0 where there is none, and it should be equal but for rounding
    z: float  # (figure - truth) / error; nan where there is none
    passed: bool


def against(kind: str, story: str, what: str, figure: float, truth: float, error: float) -> Check:
    """A figure that has a standard error."""
    z = (figure - truth) / error if error > 0 else math.inf
    return Check(kind, story, what, figure, truth, error, z, abs(z) <= LIMIT)


def equal(kind: str, story: str, what: str, figures: Tensor, truths: Tensor, tolerance: float = 1e-8) -> Check:
    """Figures that have no error: every one should be equal to its truth, but for rounding."""
    off = (figures - truths).abs()
    worst = int(torch.where(off.isnan(), torch.inf, off).argmax())
    figure, truth = figures.reshape(-1)[worst].item(), truths.expand_as(figures).reshape(-1)[worst].item()
    return Check(kind, story, what, figure, truth, 0.0, math.nan, bool((off <= tolerance).all()))


def at_most(kind: str, story: str, what: str, figure: float, limit: float) -> Check:
    """A figure that should not be above a limit."""
    return Check(kind, story, what, figure, limit, 0.0, math.nan, figure <= limit)


def at_least(kind: str, story: str, what: str, figure: float, limit: float) -> Check:
    """A figure that should not be below a limit."""
    return Check(kind, story, what, figure, limit, 0.0, math.nan, figure >= limit)
