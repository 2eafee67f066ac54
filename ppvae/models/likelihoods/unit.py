"""Likelihoods of numbers from 0 to 1."""

import math

from torch import Tensor, nn

from ppvae.base import Distribution
from ppvae.distributions import continuous_bernoulli, stretched_beta
from ppvae.models.likelihoods.links import positive


class ContinuousBernoulli(nn.Module):
    """p(x | z) = prod_i p_i^x_i (1 - p_i)^(1 - x_i) / norm(p_i) with logit p = network(z): a density on [0, 1].

    What grey pixels have under a Bernoulli, made a density: 0 and 1 are inside. Its mean is not p.
    Loaiza-Ganem & Cunningham 2019, https://arxiv.org/abs/1907.06845

    Args:
        network: `(..., latent)` to `(..., features)`, the logits.

    >>> ContinuousBernoulli(torch.nn.Linear(2, 3))(torch.zeros(5, 2)).log_prob(torch.rand(3)).shape
    torch.Size([5])
    """

    outputs = 1

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> Distribution:
        return continuous_bernoulli.ContinuousBernoulli(self.network(z)).to_event(1)


class Beta(nn.Module):
    """p(x | z) = prod_i Beta((x_i + m) / (1 + 2 m); a_i, b_i) / (1 + 2 m): a density on [-m, 1 + m], m the margin.

    Beta's own density is 0 or infinite at exactly 0 and 1, where many data sets have values. Nothing is clamped here:
    the density is stretched by the margin on both sides, so it is finite at 0 and 1 and integrates to one over what it
    is defined on; a little mass lies outside [0, 1]. That is Smithson & Verkuilen's squeezing of x,
    https://doi.org/10.1037/1082-989X.11.1.54, with its Jacobian. The smaller the margin, the more a datum of exactly 0
    or 1 can be worth: up to -log margin nats. With `margin=0` it is Beta's own, for data strictly inside.
    Ferrari & Cribari-Neto 2004, https://doi.org/10.1080/0266476042000214501

    Args:
        network: `(..., latent)` to `(..., 2 * features)`: a for every feature, then b, each 0.001 + softplus of it.
        margin: m, on the scale of x.

    >>> likelihood = Beta(torch.nn.Linear(2, 6))
    >>> likelihood(torch.zeros(5, 2)).log_prob(torch.tensor([0.0, 0.5, 1.0])).isfinite().all()
    tensor(True)
    """

    outputs = 2

    def __init__(self, network: nn.Module, margin: float = 1e-3):
        super().__init__()
        if not 0 <= margin < math.inf:
            raise ValueError(f"margin should be at least 0 and finite, got {margin}")
        self.network = network
        self.margin = margin

    def forward(self, z: Tensor) -> Distribution:
        a, b = positive(self.network(z)).chunk(2, dim=-1)
        return stretched_beta.StretchedBeta(a, b, self.margin).to_event(1)
