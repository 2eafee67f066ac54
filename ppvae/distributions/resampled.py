"""A distribution whose draws are accepted or rejected by a function of their value."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

LogAcceptance = Callable[[Tensor], Tensor]
"""log a(z), from z `(..., *event)` to `(...)`, at most 0."""


class Resampled(TorchDistribution):
    """p(z) = pi(z) [a(z) (1 - r) / Z + r], r = (1 - Z)^(T - 1), Z = E_pi[a]: accept a draw of pi with probability a(z).

    One draws from pi until a draw is accepted, and takes the T-th whatever it is; without T, p(z) = pi(z) a(z) / Z.
    Draws are exact whatever `log_rate` is; the density is as exact as `log_rate`: where r is small, an error of e nats
    in log Z is one of -e nats in every log p(z). Bauer & Mnih 2019, https://arxiv.org/abs/1810.11428

    Args:
        proposal: pi.
        log_acceptance: log a, from `(..., *event)` to `(...)`.
        log_rate: log Z, a scalar.
        truncation: T, at least 2; None for no end.

    >>> normal = pyro.distributions.Normal(0.0, 1.0)
    >>> half = Resampled(normal, lambda z: (z > 0).log(), torch.tensor(0.5).log(), truncation=None)
    >>> half.log_prob(torch.tensor(1.0)) - normal.log_prob(torch.tensor(1.0))  # log 2
    tensor(0.6931)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = False

    def __init__(
        self,
        proposal: TorchDistribution,
        log_acceptance: LogAcceptance,
        log_rate: Tensor,
        truncation: int | None = 100,
        validate_args: bool | None = None,
    ):
        if truncation is not None and truncation < 2:
            raise ValueError(
                f"truncation should be at least 2, or None, got {truncation}: the last draw is always taken"
            )
        self.proposal = proposal
        self.log_acceptance = log_acceptance
        self.log_rate = log_rate
        self.truncation = truncation
        super().__init__(proposal.batch_shape, proposal.event_shape, validate_args=validate_args)

    @property
    def support(self) -> Any:
        return self.proposal.support

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Resampled":
        return Resampled(
            self.proposal.expand(batch_shape), self.log_acceptance, self.log_rate, self.truncation, self._validate_args
        )

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        log_a = self.log_acceptance(value)
        log_proposal = self.proposal.log_prob(value)
        if self.truncation is None:
            return log_proposal + log_a - self.log_rate
        rate = self.log_rate.exp().clamp(max=1 - torch.finfo(self.log_rate.dtype).eps)
        log_r = (self.truncation - 1) * torch.log1p(-rate)
        return log_proposal + torch.logaddexp(log_a + torch.log(-torch.expm1(log_r)) - self.log_rate, log_r)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        if self.truncation is None and not self.log_rate.isfinite():  # it would never end
            raise ValueError(f"draws should be accepted at some rate, got log Z = {self.log_rate.item()}")
        z = self.proposal.sample(torch.Size(sample_shape))
        rejected = self._rejected(z)
        draws = 1
        while draws != self.truncation and rejected.any():
            waiting = rejected.reshape(rejected.shape + (1,) * len(self.event_shape))
            z = torch.where(waiting, self.proposal.sample(torch.Size(sample_shape)), z)
            rejected = rejected & self._rejected(z)
            draws += 1
        return z

    def _rejected(self, z: Tensor) -> Tensor:
        log_a = self.log_acceptance(z)
        return torch.rand_like(log_a).log() >= log_a
