"""Priors of one elementary distribution."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.base import Distribution
from ppvae.models.checks import at_least_one, positive


class StandardNormal(nn.Module):
    """p(z) = N(0, I).

    Kingma & Welling 2014, https://arxiv.org/abs/1312.6114

    Args:
        latent: number of latent dimensions.

    >>> StandardNormal(2)().log_prob(torch.zeros(2))  # -log 2 pi
    tensor(-1.8379)
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, latent: int):
        super().__init__()
        self.register_buffer("loc", torch.zeros(at_least_one("latent", latent)))
        self.register_buffer("scale", torch.ones(latent))

    def forward(self) -> Distribution:
        return dist.Normal(self.loc, self.scale).to_event(1)


class DiagonalNormal(nn.Module):
    """p(z) = N(z; m, diag s^2), with m and s learned, from N(0, I) on.

    The Normal that is nearest to the encoder's average over the data. Hoffman & Johnson 2016, ELBO surgery,
    https://approximateinference.org/2016/accepted/HoffmanJohnson2016.pdf

    Args:
        latent: number of latent dimensions.

    >>> DiagonalNormal(2)().log_prob(torch.zeros(2))
    tensor(-1.8379, grad_fn=<SumBackward1>)
    """

    def __init__(self, latent: int):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(at_least_one("latent", latent)))
        self.log_scale = nn.Parameter(torch.zeros(latent))

    def forward(self) -> Distribution:
        return dist.Normal(self.loc, self.log_scale.exp()).to_event(1)


class Laplace(nn.Module):
    """log p(z) = -sum_i (|z_i| / b_i + log 2 b_i): sparse codes.

    Barello et al. 2018, https://doi.org/10.1101/399246

    Args:
        latent: number of latent dimensions.
        scale: b, or where it starts when learned.
        learned: whether each dimension's b is a parameter of the fit.

    >>> Laplace(2)().log_prob(torch.zeros(2))  # -2 log 2
    tensor(-1.3863)
    """

    loc: Tensor

    def __init__(self, latent: int, scale: float = 1.0, learned: bool = False):
        super().__init__()
        self.register_buffer("loc", torch.zeros(at_least_one("latent", latent)))
        log_scale = math.log(positive("scale", scale))
        self.log_scale = nn.Parameter(torch.full((latent,), log_scale), requires_grad=learned)

    def forward(self) -> Distribution:
        return dist.Laplace(self.loc, self.log_scale.exp()).to_event(1)


class StudentT(nn.Module):
    """p(z) = t_v(z; m, diag s^2), the multivariate Student's t-distribution: heavy tails, as likely in any direction.

    Abiri & Ohlsson 2020, https://arxiv.org/abs/2004.02581

    Args:
        latent: number of latent dimensions.
        df: v, degrees of freedom, or where they start when learned; below 2 there is no variance, below 1 no mean.
        scale: s, or where it starts when learned; the variance of a dimension is s^2 v / (v - 2).
        learned: whether v, m and s are parameters of the fit.

    >>> StudentT(2)().log_prob(torch.zeros(2))  # -log 2 pi
    tensor(-1.8379)
    """

    def __init__(self, latent: int, df: float = 5.0, scale: float = 1.0, learned: bool = False):
        super().__init__()
        start = (math.log(positive("df", df)), math.log(positive("scale", scale)))
        self.loc = nn.Parameter(torch.zeros(at_least_one("latent", latent)), requires_grad=learned)
        self.log_df = nn.Parameter(torch.tensor(start[0]), requires_grad=learned)
        self.log_scale = nn.Parameter(torch.full((latent,), start[1]), requires_grad=learned)

    def forward(self) -> Distribution:
        return dist.MultivariateStudentT(self.log_df.exp(), self.loc, self.log_scale.exp().diag())


class Flat(nn.Module):
    """p(z) = 1 everywhere: improper, so that maximising log p(x, z) is maximum likelihood in z.

    With a point-mass guide this is the plain autoencoder, Goodfellow et al. 2016, chapter 14,
    https://www.deeplearningbook.org/contents/autoencoders.html. It cannot be sampled and gives no evidence.

    Args:
        latent: number of latent dimensions.

    >>> Flat(2)().log_prob(torch.ones(5, 2))
    tensor([0., 0., 0., 0., 0.])
    """

    def __init__(self, latent: int):
        super().__init__()
        self.latent = at_least_one("latent", latent)

    def forward(self) -> Distribution:
        return dist.ImproperUniform(dist.constraints.real_vector, (), (self.latent,))
