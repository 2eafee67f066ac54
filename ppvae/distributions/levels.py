"""A categorical distribution whose values are numbers."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor


class Levels(dist.Categorical):
    """A mass on {0, ..., levels - 1}. It is Pyro's Categorical, with floating-point draws and a mean, sum_k k p_k.

    Args:
        logits: `(..., levels)`.

    >>> Levels(logits=torch.tensor([0.0, -torch.inf, 0.0])).mean
    tensor(1.)
    """

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Levels":
        new: Levels = super().expand(batch_shape, self._get_checked_instance(Levels, _instance))
        return new

    def sample(self, sample_shape: Any = ()) -> Tensor:
        draws: Tensor = super().sample(sample_shape)
        return draws.to(self.logits.dtype)

    @property
    def mean(self) -> Tensor:
        probs: Tensor = self.probs
        return probs @ torch.arange(probs.shape[-1], dtype=probs.dtype, device=probs.device)
