"""Priors on the unit sphere of R^latent, with densities over its surface."""

import math

import torch
from torch import Tensor, nn

from ppvae.base import Distribution
from ppvae.distributions import von_mises_fisher
from ppvae.models.checks import at_least_one, positive


class HypersphericalUniform(nn.Module):
    """p(z) = 1 / A on the unit sphere |z| = 1, A = 2 pi^(latent / 2) / Gamma(latent / 2) its area.

    For an encoder on the sphere. Davidson et al. 2018, https://arxiv.org/abs/1804.00891

    Args:
        latent: number of dimensions of the space around the sphere, at least 2.

    >>> HypersphericalUniform(2)().log_prob(torch.tensor([1.0, 0.0]))  # -log 2 pi
    tensor(-1.8379)
    """

    zeros: Tensor

    def __init__(self, latent: int):
        super().__init__()
        self.register_buffer("zeros", torch.zeros(_around_a_sphere(latent)))

    def forward(self) -> Distribution:
        return von_mises_fisher.SphereUniform(len(self.zeros), like=self.zeros)


class VonMisesFisher(nn.Module):
    """p(z) proportional to exp(k <m, z>) on the unit sphere |z| = 1, with m and k learned.

    It starts at a random direction. Davidson et al. 2018, https://arxiv.org/abs/1804.00891

    Args:
        latent: number of dimensions of the space around the sphere, at least 2.
        concentration: where k starts; at 0 it would be the uniform distribution.

    >>> VonMisesFisher(3)().sample().norm()
    tensor(1.)
    """

    def __init__(self, latent: int, concentration: float = 1.0):
        super().__init__()
        self.direction = nn.Parameter(torch.randn(_around_a_sphere(latent)))
        self.log_concentration = nn.Parameter(torch.tensor(math.log(positive("concentration", concentration))))

    def forward(self) -> Distribution:
        loc = nn.functional.normalize(self.direction, dim=-1)
        return von_mises_fisher.VonMisesFisher(loc, self.log_concentration.exp())


def _around_a_sphere(latent: int) -> int:
    if at_least_one("latent", latent) < 2:
        raise ValueError(f"latent should be at least 2 for a sphere, got {latent}")
    return latent
