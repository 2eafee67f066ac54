"""Encoders to the unit sphere."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from ppvae.base import Distribution
from ppvae.distributions import von_mises_fisher


class VonMisesFisher(nn.Module):
    """q(z | x) proportional to exp(k(x) <m(x), z>) on the unit sphere of R^latent.

    network(x) is m before it is brought to length one (where it is 0, m is the first axis), and then k before a
    softplus, less latent: k starts near latent, for codes that start all but uniform say nothing and learn nothing. k
    is at most 1e5, where codes are known to about 0.3 % of the sphere's radius, and has no floor: at 0 the code is
    uniform. It goes with a prior on the sphere.
    Davidson et al. 2018, https://arxiv.org/abs/1804.00891

    Args:
        network: `(..., features)` to `(..., latent + 1)`, latent at least 2.

    >>> VonMisesFisher(torch.nn.Linear(3, 4))(torch.zeros(5, 3)).sample().norm(dim=-1).round(decimals=4)
    tensor([1., 1., 1., 1., 1.])
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def outputs(self, latent: int) -> int:
        return latent + 1

    def forward(self, x: Tensor) -> Distribution:
        outputs = self.network(x)
        loc = _direction(outputs[..., :-1])
        concentration = softplus(outputs[..., -1] + loc.shape[-1]).clamp_max(1e5)
        return von_mises_fisher.VonMisesFisher(loc, concentration)


def _direction(m: Tensor) -> Tensor:
    """m at length one; what has no length points along the first axis, and learns from there."""
    axis = torch.eye(1, m.shape[-1], dtype=m.dtype, device=m.device).squeeze(0)
    none = m.detach().norm(dim=-1, keepdim=True) < 1e-12  # where `normalize` gives less than one
    return normalize(torch.where(none, m + axis, m), dim=-1)
