"""A distribution of which only some elements are scored."""

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor


class Observed(dist.TorchDistribution):
    """log p(x) where `mask` is true and 0 elsewhere, element by element; draws and the mean are those of p itself.

    What x holds at the other elements never matters: a value inside p's support stands there before x is scored, so
    nothing is nan, and no gradient is.

    Args:
        base_dist: p, event_shape `()`, whose support holds 0.5 or 0.
        mask: booleans, broadcasting to p's batch_shape.

    >>> p = dist.Normal(torch.zeros(2), 1)
    >>> Observed(p, torch.tensor([True, False])).log_prob(torch.tensor([0.0, torch.nan]))
    tensor([-0.9189,  0.0000])
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, base_dist: Any, mask: Tensor, validate_args: bool | None = None):
        shape = torch.broadcast_shapes(base_dist.batch_shape, mask.shape)
        self.base_dist = base_dist if base_dist.batch_shape == shape else base_dist.expand(shape)
        self.where = mask.expand(shape)
        super().__init__(shape, validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return bool(self.base_dist.has_rsample)

    @constraints.dependent_property(event_dim=0)
    def support(self) -> Any:
        return ObservedSupport(self.base_dist.support, self.where)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Observed":
        return Observed(self.base_dist.expand(batch_shape), self.where.expand(batch_shape), self._validate_args)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.base_dist.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        half = torch.full_like(value, 0.5)
        inside = torch.where(self.base_dist.support.check(half), half, 0)  # no edge, where 0.5 is no edge
        return torch.where(self.where, self.base_dist.log_prob(torch.where(self.where, value, inside)), 0)

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance


class ObservedSupport(constraints.Constraint):
    """Anything where nothing is observed, and the support of p elsewhere."""

    def __init__(self, base_constraint: Any, mask: Tensor):
        self.base_constraint, self.where = base_constraint, mask
        self.is_discrete = base_constraint.is_discrete

    def check(self, value: Tensor) -> Tensor:
        inside: Tensor = self.base_constraint.check(value)
        return inside | ~self.where
