"""Likelihoods of real numbers."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.base import Distribution


class Normal(nn.Module):
    """p(x | z) = N(x; network(z), c I): a density, with one variance c for all elements.

    With c fixed, -log p = |x - network(z)|^2 / (2 c) + (features / 2) log 2 pi c, so 1 / (2 c) is the weight of the
    squared error against the KL term: it is what others call the trade-off constant, or 1 / beta. Learned, c settles
    at the mean squared residual. Rybkin et al. 2021, https://arxiv.org/abs/2006.13202

    Args:
        network: `(..., latent)` to `(..., features)`, the mean.
        variance: c, or where it starts when learned.
        learned: whether c is a parameter of the fit.

    >>> Normal(torch.nn.Linear(2, 3), variance=0.25)(torch.zeros(5, 2)).variance[0]
    tensor([0.2500, 0.2500, 0.2500])
    """

    outputs = 1

    def __init__(self, network: nn.Module, variance: float = 0.1, learned: bool = False):
        super().__init__()
        if not (0 < variance < math.inf):
            raise ValueError(f"variance should be positive and finite, got {variance}")
        self.network = network
        self.log_scale = nn.Parameter(torch.tensor(0.5 * math.log(variance)), requires_grad=learned)

    def forward(self, z: Tensor) -> Distribution:
        loc = self.network(z)
        return dist.Normal(loc, self.log_scale.exp().expand_as(loc)).to_event(1)
