"""Encoders of Normal families."""

import pyro.distributions as dist
from torch import Tensor, nn

from ppvae.base import Distribution


class DiagonalNormal(nn.Module):
    """q(z | x) = N(z; m(x), diag s(x)^2), where network(x) is (m, log s) side by side.

    Kingma & Welling 2014, https://arxiv.org/abs/1312.6114

    Args:
        network: `(..., features)` to `(..., 2 * latent)`.

    >>> DiagonalNormal(torch.nn.Linear(3, 4))(torch.zeros(5, 3)).rsample().shape
    torch.Size([5, 2])
    """

    outputs = 2

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Distribution:
        loc, log_scale = self.network(x).chunk(2, dim=-1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)
