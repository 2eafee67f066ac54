"""Priors that are normalizing flows: a standard Normal seen through a learned bijection.

They start close to the standard Normal. Their density is exact and their draws pass a gradient; a mean in closed form
they have not.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ppvae.base import Distribution
from ppvae.distributions.flow import Flow, zuko
from ppvae.models.checks import at_least_one
from ppvae.networks import checks


class NeuralSplineFlow(nn.Module):
    """log p(z) = log N(f(z); 0, I) + log |det df / dz|, f of autoregressive rational-quadratic splines.

    The splines act within [-5, 5] and leave what lies outside as it is, so that the tails are the standard Normal's.
    Durkan et al. 2019, https://arxiv.org/abs/1906.04032

    Args:
        latent: number of latent dimensions.
        transforms: number of transformations, each in the reverse order of the last.
        hidden: size of each hidden layer of their networks.
        bins: number of pieces of a spline.

    >>> NeuralSplineFlow(2)().sample().shape
    torch.Size([2])
    """

    def __init__(self, latent: int, transforms: int = 3, hidden: Sequence[int] = (64, 64), bins: int = 8):
        super().__init__()
        at_least_one("bins", bins)
        self.flow = _near_identity(zuko.flows.NSF(**_sizes(latent, transforms, hidden), bins=bins))

    def forward(self) -> Distribution:
        return Flow(self.flow())


class MaskedAutoregressiveFlow(nn.Module):
    """log p(z) = log N(f(z); 0, I) + log |det df / dz|, f of autoregressive affine maps.

    A density is one pass and a draw as many as there are dimensions.
    Papamakarios et al. 2017, https://arxiv.org/abs/1705.07057

    Args:
        latent: number of latent dimensions.
        transforms: number of transformations, each in the reverse order of the last.
        hidden: size of each hidden layer of their networks.

    >>> MaskedAutoregressiveFlow(2)().sample().shape
    torch.Size([2])
    """

    def __init__(self, latent: int, transforms: int = 3, hidden: Sequence[int] = (64, 64)):
        super().__init__()
        self.flow = _near_identity(zuko.flows.MAF(**_sizes(latent, transforms, hidden)))

    def forward(self) -> Distribution:
        return Flow(self.flow())


class RealNVP(nn.Module):
    """log p(z) = log N(f(z); 0, I) + log |det df / dz|, f of affine couplings of one half of z given the other.

    A density and a draw are one pass each. In one dimension there is nothing to couple, and f is affine.
    Dinh et al. 2017, https://arxiv.org/abs/1605.08803

    Args:
        latent: number of latent dimensions.
        transforms: number of couplings; the halves take turns.
        hidden: size of each hidden layer of their networks.

    >>> RealNVP(2)().sample().shape
    torch.Size([2])
    """

    def __init__(self, latent: int, transforms: int = 4, hidden: Sequence[int] = (64, 64)):
        super().__init__()
        self.flow = _near_identity(zuko.flows.RealNVP(**_sizes(latent, transforms, hidden)))

    def forward(self) -> Distribution:
        return Flow(self.flow())


def _sizes(latent: int, transforms: int, hidden: Sequence[int]) -> dict[str, Any]:
    """Sizes as zuko's flows name them."""
    at_least_one("transforms", transforms)
    checks.at_least_one(hidden=hidden)
    return {"features": at_least_one("latent", latent), "transforms": transforms, "hidden_features": tuple(hidden)}


def _near_identity(flow: Any) -> Any:
    """The flow with almost nothing in the last layer of its networks, or in what stands for them in one dimension."""
    with torch.no_grad():
        for transform in flow.transform.transforms:
            for last in transform.hyper[-1].parameters() if hasattr(transform, "hyper") else transform.phi:
                last.mul_(0.01)
    return flow
