"""One distribution an element, of unlike families."""

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Size, Tensor

Group = tuple[Sequence[int], Any]
"""Which columns, and their distribution, batch_shape `(..., len(columns))`."""


class Columns(dist.TorchDistribution):
    """p(x_j) of a family of its own for every column j: batch_shape `(..., columns)`, event_shape `()`.

    Args:
        groups: columns and their distribution, every column once; all leading dimensions are the same.

    >>> real, count = dist.Normal(torch.zeros(5, 2), 1), dist.Poisson(torch.ones(5, 1))
    >>> Columns([([0, 2], real), ([1], count)]).sample().shape
    torch.Size([5, 3])
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, groups: Sequence[Group], validate_args: bool | None = None):
        self.groups = groups
        columns = [column for indices, _ in groups for column in indices]
        self.order = [columns.index(column) for column in range(len(columns))]  # back to the columns' own
        leading = groups[0][1].batch_shape[:-1]
        super().__init__(Size([*leading, len(columns)]), validate_args=validate_args)

    @constraints.dependent_property(event_dim=0)
    def support(self) -> Any:
        return ColumnSupport([(indices, part.support) for indices, part in self.groups], self.order)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Columns":
        leading = Size(batch_shape)[:-1]
        groups = [(indices, part.expand([*leading, len(indices)])) for indices, part in self.groups]
        return Columns(groups, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return torch.cat([part.log_prob(value[..., indices]) for indices, part in self.groups], -1)[..., self.order]

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return torch.cat([part.sample(sample_shape) for _, part in self.groups], dim=-1)[..., self.order]

    @property
    def mean(self) -> Tensor:
        return torch.cat([part.mean for _, part in self.groups], dim=-1)[..., self.order]


class ColumnSupport(constraints.Constraint):
    """Every column in the support of its own distribution."""

    def __init__(self, groups: Sequence[tuple[Sequence[int], Any]], order: Sequence[int]):
        self.groups, self.order = groups, order
        self.is_discrete = all(support.is_discrete for _, support in groups)
        self.columns = [support for column in range(len(order)) for at, support in groups if column in at]

    def check(self, value: Tensor) -> Tensor:
        inside = [support.check(value[..., indices]) for indices, support in self.groups]
        leading = torch.broadcast_shapes(*(part.shape[:-1] for part in inside))  # bounds may have dimensions too
        return torch.cat([part.expand(*leading, -1) for part in inside], dim=-1)[..., self.order]
