"""Likelihoods of counts."""

import pyro.distributions as dist
from torch import Tensor, nn

from ppvae.base import Distribution


class Binomial(nn.Module):
    """p(x | z) = prod_i C(n, x_i) p_i^x_i (1 - p_i)^(n - x_i) with logit p = network(z): a mass on {0, ..., n}.

    The exact likelihood of a pixel that counts the black dots among n.

    Args:
        network: `(..., latent)` to `(..., features)`, the logits.
        total_count: n, the largest count.

    >>> Binomial(torch.nn.Linear(2, 3), total_count=16)(torch.zeros(5, 2)).event_shape
    torch.Size([3])
    """

    outputs = 1

    def __init__(self, network: nn.Module, total_count: int):
        super().__init__()
        if total_count < 1:
            raise ValueError(f"total_count should be at least 1, got {total_count}")
        self.network = network
        self.total_count = total_count

    def forward(self, z: Tensor) -> Distribution:
        return dist.Binomial(self.total_count, logits=self.network(z)).to_event(1)
