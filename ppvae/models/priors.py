"""Priors: modules whose call returns p(z), batch_shape `()` and event_shape `(latent,)`.

A prior of your own is a module like these; nothing needs to be registered:

>>> class Wide(torch.nn.Module):
...     def __init__(self, latent: int, scale: float = 3.0):
...         super().__init__()
...         self.latent, self.scale = latent, scale
...
...     def forward(self):
...         return pyro.distributions.Normal(torch.zeros(self.latent), self.scale).to_event(1)
>>> Wide(2)().event_shape
torch.Size([2])
"""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.base import Distribution


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


def at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} should be at least 1, got {value}")
    return value
