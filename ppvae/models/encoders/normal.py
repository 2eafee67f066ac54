"""Encoders of Normal families."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.base import Distribution
from ppvae.distributions.normal_mixture import NormalMixture as Mixture
from ppvae.models.checks import at_least_one


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


class FullNormal(nn.Module):
    """q(z | x) = N(z; m(x), L(x) L(x)'), where network(x) is m, log diag L, and L's rows below it, side by side.

    With zeros below the diagonal it is `DiagonalNormal`. Kingma & Welling 2019, section 2.5.1,
    https://arxiv.org/abs/1906.02691

    Args:
        network: `(..., features)` to `(..., latent + latent * (latent + 1) / 2)`.

    >>> FullNormal(torch.nn.Linear(3, 5))(torch.zeros(4, 3)).covariance_matrix.shape
    torch.Size([4, 2, 2])
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def outputs(self, latent: int) -> int:
        return latent + latent * (latent + 1) // 2

    def forward(self, x: Tensor) -> Distribution:
        outputs = self.network(x)
        latent = (math.isqrt(9 + 8 * outputs.shape[-1]) - 3) // 2
        loc, log_diagonal, below = outputs.split([latent, latent, latent * (latent - 1) // 2], dim=-1)
        scale_tril = torch.diag_embed(log_diagonal.exp())
        row, column = torch.tril_indices(latent, latent, -1)
        scale_tril[..., row, column] = below
        return dist.MultivariateNormal(loc, scale_tril=scale_tril)


class LowRankNormal(nn.Module):
    """q(z | x) = N(z; m(x), diag s(x)^2 + sum_j u_j(x) u_j(x)'), network(x) being (m, log s, u_1, ..., u_rank).

    Between a diagonal and a full covariance: its outputs grow with latent, not with its square. Rezende et al. 2014,
    section 4.2, https://arxiv.org/abs/1401.4082, who put such a matrix in place of the covariance's inverse.

    Args:
        network: `(..., features)` to `(..., (2 + rank) * latent)`.
        rank: number of directions u that are added to the diagonal.

    >>> LowRankNormal(torch.nn.Linear(3, 12), rank=1)(torch.zeros(5, 3)).event_shape
    torch.Size([4])
    """

    def __init__(self, network: nn.Module, rank: int = 2):
        super().__init__()
        self.network = network
        self.outputs = 2 + at_least_one("rank", rank)

    def forward(self, x: Tensor) -> Distribution:
        loc, log_scale, *directions = self.network(x).chunk(self.outputs, dim=-1)
        return dist.LowRankMultivariateNormal(loc, torch.stack(directions, dim=-1), (2 * log_scale).exp())


class NormalMixture(nn.Module):
    """q(z | x) = sum_k pi_k(x) N(z; m_k(x), diag s_k(x)^2), network(x) being (logits, all of the m, all of the log s).

    The means start apart, at network(x) plus a fixed draw from N(0, I / 4) each: components that start as one would
    stay so. Its draws pass a gradient to the weights too (`distributions.normal_mixture`), one dimension after another,
    so a draw takes a time in proportion to latent. Figurnov et al. 2018, https://arxiv.org/abs/1805.08498

    Args:
        network: `(..., features)` to `(..., components * (1 + 2 * latent))`.
        latent: number of latent dimensions.
        components: K, number of Normals.

    >>> NormalMixture(torch.nn.Linear(3, 15), latent=2, components=3)(torch.zeros(5, 3)).rsample().shape
    torch.Size([5, 2])
    """

    apart: Tensor

    def __init__(self, network: nn.Module, latent: int, components: int = 5):
        super().__init__()
        self.network = network
        shape = (at_least_one("components", components), at_least_one("latent", latent))
        self.register_buffer("apart", 0.5 * torch.randn(shape))

    def outputs(self, latent: int) -> int:
        return len(self.apart) * (1 + 2 * latent)

    def forward(self, x: Tensor) -> Distribution:
        components, latent = self.apart.shape
        size = components * latent
        logits, loc, log_scale = self.network(x).split([components, size, size], dim=-1)
        loc = loc.unflatten(-1, (components, latent)) + self.apart
        return Mixture(logits, loc, log_scale.unflatten(-1, (components, latent)).exp())
