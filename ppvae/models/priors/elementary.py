"""Priors of one elementary distribution."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.base import Distribution
from ppvae.models.checks import at_least_one


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


class Flat(nn.Module):
    """p(z) = 1 everywhere: improper, so that maximising log p(x, z) is maximum likelihood in z.

    With a point-mass guide this is the plain autoencoder. It cannot be sampled and gives no evidence.

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
