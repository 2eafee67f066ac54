"""Likelihoods of ones and zeros."""

import pyro.distributions as dist
from torch import Tensor, nn

from ppvae.base import Distribution


class Bernoulli(nn.Module):
    """p(x | z) = prod_i p_i^x_i (1 - p_i)^(1 - x_i) with logit p = network(z): a mass on {0, 1}.

    Grey pixels have no probability under it: binarise them, or use a likelihood of their own kind.
    Kingma & Welling 2014, https://arxiv.org/abs/1312.6114

    Args:
        network: `(..., latent)` to `(..., features)`, the logits.

    >>> Bernoulli(torch.nn.Linear(2, 3))(torch.zeros(5, 2)).log_prob(torch.ones(3)).shape
    torch.Size([5])
    """

    outputs = 1

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> Distribution:
        return dist.Bernoulli(logits=self.network(z)).to_event(1)

    def output_bias(self, x: Tensor) -> Tensor:
        """The logits of the mean of x, kept 0.001 away from 0 and 1."""
        return x.mean(0).clamp(1e-3, 1 - 1e-3).logit()
