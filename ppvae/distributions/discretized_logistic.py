"""Logistic distributions cut into levels, and mixtures of them."""

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.nn.functional import logsigmoid


class DiscretizedLogistic(dist.TorchDistribution):
    """P(x) = F((y + h - m) / s) - F((y - h - m) / s), F the logistic function: a mass on {0, ..., levels - 1}.

    y = 2 x / (levels - 1) - 1 is x on a scale from -1 to 1, and h half a level of it. The first and the last level
    take the tails, so the masses sum to one. With a < b, log (F(b) - F(a)) = log F(b) + log F(-a) + log (1 - e^(a-b)),
    which no scale can underflow. Kingma et al. 2016, https://arxiv.org/abs/1606.04934

    Args:
        loc: m, `(...)`, on the scale from -1 to 1.
        scale: s, `(...)`, on it too.
        levels: how many there are.

    >>> DiscretizedLogistic(torch.tensor(0.0), torch.tensor(1e-9), levels=3).log_prob(torch.arange(3.0))
    tensor([-5.0000e+08,  0.0000e+00, -5.0000e+08])
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012

    def __init__(self, loc: Tensor, scale: Tensor, levels: int = 256, validate_args: bool | None = None):
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(0, self.levels - 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiscretizedLogistic":
        loc, scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        return DiscretizedLogistic(loc, scale, self.levels, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        first, last = value <= 0, value >= self.levels - 1
        log_below = torch.where(last, 0, logsigmoid((self._edge(value + 1) - self.loc) / self.scale))
        log_above = torch.where(first, 0, logsigmoid((self.loc - self._edge(value)) / self.scale))
        log_width = torch.log(-torch.expm1(-self._step / self.scale))
        return log_below + log_above + torch.where(first | last, 0, log_width)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            u = torch.rand(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
            y = self.loc + self.scale * torch.logit(u)
            return ((y + 1) / self._step).round().clamp(0, self.levels - 1)

    @property
    def mean(self) -> Tensor:
        """sum_k P(x >= k), one level after the other: no tensor is larger than the mean itself."""
        total = torch.zeros_like(self.loc)
        for k in range(1, self.levels):
            total = total + torch.sigmoid((self.loc - self._edge(k)) / self.scale)
        return total

    @property
    def _step(self) -> float:
        return 2 / (self.levels - 1)

    def _edge(self, value: Any) -> Any:
        """The lower edge of a level on the scale from -1 to 1."""
        return (value - 0.5) * self._step - 1


class DiscretizedLogisticMixture(dist.MixtureSameFamily):
    """sum_k pi_k P_k(x), every P_k a `DiscretizedLogistic`. Salimans et al. 2017, https://arxiv.org/abs/1701.05517

    Args:
        mixture_distribution: a Categorical of the weights, batch_shape `(...)`.
        component_distribution: a `DiscretizedLogistic`, batch_shape `(..., components)`.

    >>> parts = DiscretizedLogistic(torch.tensor([-1.0, 1.0]), torch.tensor([0.01, 0.01]), levels=16)
    >>> DiscretizedLogisticMixture(dist.Categorical(logits=torch.zeros(2)), parts).mean
    tensor(7.5000)
    """

    @property
    def support(self) -> Any:
        return self.component_distribution.support

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiscretizedLogisticMixture":
        new = self._get_checked_instance(DiscretizedLogisticMixture, _instance)
        expanded: DiscretizedLogisticMixture = super().expand(batch_shape, new)
        return expanded
