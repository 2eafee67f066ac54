"""A Normal whose variance is fitted, in closed form, to what it scores."""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

Fit = Callable[[Tensor, Tensor | None], Tensor]
"""Squared residuals, and where they count (all, where that is None), to the variance that scores them."""


class OptimalNormal(dist.TorchDistribution):
    """N(m, c), with c = `fit` of the squared residuals (x - m)^2 of all that is scored at once, or without it as given.

    The fitted c passes no gradient: at the optimum the log-density is flat in it, so their sum has its gradient anyway.

    Args:
        loc: m, `(...)`.
        variance: c, a scalar; draws are from it, with and without `fit`.
        fit: what makes c.
        mask: where x is observed, broadcasting with m; everywhere, where it is None.

    >>> twice = OptimalNormal(torch.zeros(4), torch.tensor(1.0), fit=lambda square, mask: square.mean())
    >>> twice.log_prob(2 * torch.ones(4)).sum() == dist.Normal(0, 2).log_prob(torch.tensor(2.0)) * 4
    tensor(True)
    """

    arg_constraints = {"loc": constraints.real, "variance": constraints.positive}  # noqa: RUF012
    support = constraints.real
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        variance: Tensor,
        fit: Fit | None = None,
        mask: Tensor | None = None,
        validate_args: bool | None = None,
    ):
        self.loc, self.fixed, self.fit, self.where = loc, variance, fit, mask
        super().__init__(loc.shape, validate_args=validate_args)

    def observed(self, mask: Tensor) -> "OptimalNormal":
        """The same, fitted only to what is observed."""
        return OptimalNormal(self.loc, self.fixed, self.fit, mask, validate_args=self._validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "OptimalNormal":
        loc = self.loc.expand(batch_shape)
        return OptimalNormal(loc, self.fixed, self.fit, self.where, validate_args=self._validate_args)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self._normal(self.fixed).rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        if self.fit is None:
            return self._normal(self.fixed).log_prob(value)
        with torch.no_grad():
            variance = self.fit((value - self.loc).square(), self.where)
        return self._normal(variance).log_prob(value)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.fixed.expand_as(self.loc)

    def _normal(self, variance: Tensor) -> Any:
        return dist.Normal(self.loc, variance.sqrt(), validate_args=False)
