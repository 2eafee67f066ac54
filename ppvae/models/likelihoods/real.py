"""Likelihoods of real numbers."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.base import Distribution
from ppvae.models import checks
from ppvae.models.likelihoods.links import positive


class Normal(nn.Module):
    """p(x | z) = N(x; network(z), c I): a density, with one variance c for all elements.

    With c fixed, -log p = |x - network(z)|^2 / (2 c) + (features / 2) log 2 pi c, so C = 1 / (2 c) is the weight of the
    squared error against the KL term: what others call the trade-off constant. A weight b on the KL term does the same:
    |x - network(z)|^2 / (2 c) + b KL = b (|x - network(z)|^2 / (2 b c) + KL), so a beta-VAE of variance c has the
    minimisers of a VAE of variance b c, and up to a constant b times its loss; the bound on -log p(x) is the VAE's.
    Learned, c settles at the mean squared residual. Rybkin et al. 2021, https://arxiv.org/abs/2006.13202

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
        self.network = network
        log_scale = 0.5 * math.log(checks.positive("variance", variance))
        self.log_scale = nn.Parameter(torch.tensor(log_scale), requires_grad=learned)

    def forward(self, z: Tensor) -> Distribution:
        loc = self.network(z)
        return dist.Normal(loc, self.log_scale.exp().expand_as(loc)).to_event(1)

    def output_bias(self, x: Tensor) -> Tensor:
        """The mean of x."""
        return x.mean(0)


class HeteroscedasticNormal(nn.Module):
    """p(x | z) = prod_i N(x_i; m_i, s_i^2), with m and s = network(z): a density, each element of its own scale.

    s = floor + softplus, because a density has no upper bound: as s shrinks on elements that the mean fits exactly
    (a constant pixel, a repeated value) the likelihood grows without end and the rest is no longer fitted. The floor is
    the resolution of the data: nothing is gained below it. Each element can be worth at most -log floor - 0.92 nats.
    Mattei & Frellsen 2018, https://arxiv.org/abs/1802.04826

    Args:
        network: `(..., latent)` to `(..., 2 * features)`: m for every feature, then what s is made of.
        floor: the smallest s, in units of x.

    >>> HeteroscedasticNormal(torch.nn.Linear(2, 6))(torch.zeros(5, 2)).event_shape
    torch.Size([3])
    """

    outputs = 2

    def __init__(self, network: nn.Module, floor: float = 0.01):
        super().__init__()
        self.network = network
        self.floor = checks.positive("floor", floor)

    def forward(self, z: Tensor) -> Distribution:
        loc, scale = self.network(z).chunk(2, dim=-1)
        return dist.Normal(loc, positive(scale, self.floor)).to_event(1)

    def output_bias(self, x: Tensor) -> Tensor:
        """The mean of x, and 0 for the scale."""
        return torch.cat([x.mean(0), torch.zeros_like(x[0])])


class Laplace(nn.Module):
    """p(x | z) = prod_i exp(-|x_i - m_i| / s) / (2 s) with m = network(z): a density, of the absolute error.

    The median is fitted instead of the mean, and far values weigh less. Learned, s settles at the mean absolute error.
    https://en.wikipedia.org/wiki/Laplace_distribution

    Args:
        network: `(..., latent)` to `(..., features)`, m.
        scale: s, or where it starts when learned.
        learned: whether s is a parameter of the fit.

    >>> Laplace(torch.nn.Linear(2, 3), scale=0.5)(torch.zeros(5, 2)).variance[0]
    tensor([0.5000, 0.5000, 0.5000])
    """

    outputs = 1

    def __init__(self, network: nn.Module, scale: float = 0.3, learned: bool = False):
        super().__init__()
        self.network = network
        log_scale = math.log(checks.positive("scale", scale))
        self.log_scale = nn.Parameter(torch.tensor(log_scale), requires_grad=learned)

    def forward(self, z: Tensor) -> Distribution:
        loc = self.network(z)
        return dist.Laplace(loc, self.log_scale.exp().expand_as(loc)).to_event(1)

    def output_bias(self, x: Tensor) -> Tensor:
        """The median of x."""
        return x.median(0).values


class StudentT(nn.Module):
    """p(x | z) = prod_i t(x_i; df, m_i, s) with m = network(z): a density whose heavy tails make outliers weigh little.

    df above 1, so that there is a mean; towards infinity it is the Normal of variance s^2. Takahashi et al. 2018,
    https://doi.org/10.24963/ijcai.2018/374

    Args:
        network: `(..., latent)` to `(..., features)`, m.
        df: degrees of freedom, or where they start when learned.
        scale: s, or where it starts when learned.
        learned: whether df and s are parameters of the fit.

    >>> StudentT(torch.nn.Linear(2, 3), df=5.0)(torch.zeros(5, 2)).event_shape
    torch.Size([3])
    """

    outputs = 1

    def __init__(self, network: nn.Module, df: float = 4.0, scale: float = 0.3, learned: bool = False):
        super().__init__()
        if not 1 < df < math.inf:
            raise ValueError(f"df should be above 1, so that there is a mean, and finite; got {df}")
        self.network = network
        self.log_excess = nn.Parameter(torch.tensor(math.log(df - 1)), requires_grad=learned)
        log_scale = math.log(checks.positive("scale", scale))
        self.log_scale = nn.Parameter(torch.tensor(log_scale), requires_grad=learned)

    def forward(self, z: Tensor) -> Distribution:
        loc = self.network(z)
        return dist.StudentT(1 + self.log_excess.exp(), loc, self.log_scale.exp()).to_event(1)

    def output_bias(self, x: Tensor) -> Tensor:
        """The median of x: outliers do not move it."""
        return x.median(0).values
