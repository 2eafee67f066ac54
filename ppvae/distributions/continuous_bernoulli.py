"""The continuous Bernoulli distribution, to all digits at any logit."""

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor


class ContinuousBernoulli(dist.TorchDistribution):
    """p(x) = e^(l x) l / (e^l - 1) on [0, 1], with l the logit: an exponential density, cut off and rising where l > 0.

    PyTorch's clamps e^l / (1 + e^l), so in float32 its mass is 0.80 at l = 20 and 0.32 at l = 50, and no gradient
    passes there. Loaiza-Ganem & Cunningham 2019, https://arxiv.org/abs/1907.06845

    Args:
        logits: l, `(...)`.

    >>> ContinuousBernoulli(torch.tensor([0.0, 50.0])).mean
    tensor([0.5000, 0.9800])
    """

    arg_constraints = {"logits": constraints.real}  # noqa: RUF012
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None):
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "ContinuousBernoulli":
        return ContinuousBernoulli(self.logits.expand(batch_shape), validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """l (x - 1/2) - log sinh(l/2) / (l/2): the last term is even in l, and has a gradient at 0."""
        if self._validate_args:
            self._validate_sample(value)
        t, small = self._size()
        l2 = self.logits.square()
        series = l2 / 24 - l2**2 / 2880 + l2**3 / 181440
        return self.logits * (value - 0.5) - torch.where(small, series, t / 2 + (-torch.expm1(-t) / t).log())

    @property
    def mean(self) -> Tensor:
        """1 / (1 - e^-l) - 1 / l."""
        t, small = self._size()
        l2 = self.logits.square()
        series = self.logits * (1 / 12 - l2 / 720 + l2**2 / 30240 - l2**3 / 1209600)
        return 0.5 + torch.where(small, series, self.logits.sign() * (-1 / torch.expm1(-t) - 1 / t - 0.5))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """By the inverse of F(x) = (1 - e^(-t x)) / (1 - e^-t) for l = -t below 0; mirrored above it."""
        u = torch.rand(self._extended_shape(sample_shape), dtype=self.logits.dtype, device=self.logits.device)
        t, small = self._size(1e-3)
        draws = -torch.log1p(u * torch.expm1(-t)) / t
        mirrored = torch.where(self.logits > 0, 1 - draws, draws)
        return torch.where(small, u + self.logits * u * (1 - u) / 2, mirrored).clamp(0, 1)

    def _size(self, smallest: float = 0.1) -> tuple[Tensor, Tensor]:
        """t = |l|, or 1 where it is small, and where that is: there 1 / t loses digits, and a series takes over."""
        t = self.logits.abs()
        small = t < smallest
        return torch.where(small, 1, t), small
