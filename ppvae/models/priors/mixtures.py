"""Priors that are mixtures."""

import pyro.distributions as dist
import torch
from torch import nn

from ppvae.base import Distribution
from ppvae.models.checks import at_least_one


class GaussianMixture(nn.Module):
    """p(z) = sum_k pi_k N(z; m_k, diag s_k^2), with every pi, m and s learned.

    The components start at draws from N(0, I) with unit scales, so the prior starts close to the standard one.
    Dilokthanakul et al. 2016, https://arxiv.org/abs/1611.02648

    Args:
        latent: number of latent dimensions.
        components: number of Gaussians.

    >>> GaussianMixture(2, components=10)().sample().shape
    torch.Size([2])
    """

    def __init__(self, latent: int, components: int = 10):
        super().__init__()
        shape = (at_least_one("components", components), at_least_one("latent", latent))
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(shape))
        self.log_scale = nn.Parameter(torch.zeros(shape))

    def forward(self) -> Distribution:
        gaussians = dist.Normal(self.loc, self.log_scale.exp()).to_event(1)  # (components) | (latent)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), gaussians)
