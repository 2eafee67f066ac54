"""One-hot vectors, relaxed to the simplex."""

from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from torch import Size, Tensor


class RelaxedOneHot(dist.RelaxedOneHotCategorical):
    """softmax((logits + g) / temperature) with g of Gumbel's distribution: a density on the simplex, not a mass.

    It is Pyro's, with draws kept off the simplex's boundary, where a rounded one has no finite density, and with a
    mean. Maddison et al. 2017, https://arxiv.org/abs/1611.00712; Jang et al. 2017, https://arxiv.org/abs/1611.01144

    Args:
        temperature: a positive scalar; towards 0 the draws are one-hot.
        logits: `(..., dim)`.

    >>> RelaxedOneHot(torch.tensor(0.5), logits=torch.zeros(3)).mean.sum().round(decimals=4)
    tensor(1.)
    """

    def expand(self, batch_shape: Any, _instance: Any = None) -> "RelaxedOneHot":
        new: RelaxedOneHot = super().expand(batch_shape, self._get_checked_instance(RelaxedOneHot, _instance))
        return new

    def rsample(self, sample_shape: Any = Size()) -> Tensor:
        draws: Tensor = super().rsample(sample_shape)
        draws = draws / draws.sum(-1, keepdim=True)  # at a low temperature they sum to one only to 1e-5
        return draws.clamp_min(torch.finfo(draws.dtype).tiny)

    def sample(self, sample_shape: Any = Size()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    @property
    def mean(self) -> Tensor:
        """By Monte Carlo over 256 fixed draws of g, the same for every datum: it has no closed form."""
        noise = torch.from_numpy(np.random.default_rng(0).gumbel(size=(256, *self.event_shape)))
        total = torch.zeros_like(self.logits)
        for g in noise.to(self.logits):
            total = total + torch.softmax((self.logits + g) / self.temperature, dim=-1)
        return total / len(noise)
