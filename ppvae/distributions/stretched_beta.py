"""The Beta distribution on an interval a little wider than [0, 1]."""

import math
from typing import Any

import pyro.distributions as dist
from pyro.distributions import constraints
from torch import Tensor


class StretchedBeta(dist.TorchDistribution):
    """x = (1 + 2 m) u - m with u ~ Beta(a, b): a density on [-m, 1 + m], at 0 and 1 finite whatever a and b are.

    Args:
        concentration1: a, `(...)`.
        concentration0: b, `(...)`.
        margin: m, at least 0.

    >>> StretchedBeta(torch.tensor(0.5), torch.tensor(0.5), margin=0.01).log_prob(torch.tensor([0.0, 0.5, 1.0]))
    tensor([ 1.1529, -0.4714,  1.1529])
    """

    arg_constraints = {"concentration1": constraints.positive, "concentration0": constraints.positive}  # noqa: RUF012
    has_rsample = True

    def __init__(
        self, concentration1: Tensor, concentration0: Tensor, margin: float = 1e-3, validate_args: bool | None = None
    ):
        self.base = dist.Beta(concentration1, concentration0, validate_args=False)
        self.margin = margin
        super().__init__(self.base.batch_shape, validate_args=validate_args)

    @property
    def concentration1(self) -> Tensor:
        return self.base.concentration1

    @property
    def concentration0(self) -> Tensor:
        return self.base.concentration0

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        return constraints.interval(-self.margin, 1 + self.margin)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "StretchedBeta":
        a, b = self.concentration1.expand(batch_shape), self.concentration0.expand(batch_shape)
        return StretchedBeta(a, b, self.margin, validate_args=self._validate_args)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self._stretched(self.base.rsample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        width = 1 + 2 * self.margin
        return self.base.log_prob((value + self.margin) / width) - math.log(width)

    @property
    def mean(self) -> Tensor:
        return self._stretched(self.base.mean)

    def _stretched(self, u: Tensor) -> Tensor:
        return u * (1 + 2 * self.margin) - self.margin
