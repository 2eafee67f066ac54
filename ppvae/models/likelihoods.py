"""Likelihoods: modules whose call returns p(x | z), batch_shape `(...)` and event_shape `(features,)`.

Each takes a network from `(..., latent)` to `(..., features * outputs)`, where its attribute `outputs` is the number
of network outputs per observed element.
"""

import math

import pyro.distributions as dist
import torch
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
