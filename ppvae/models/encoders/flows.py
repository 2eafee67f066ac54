"""Encoders that are normalizing flows, their transforms conditioned on the datum.

Each is z = loc + scale * T(e), e ~ N(0, I): network(x) is (loc, log scale, context) side by side, and the context goes
to every transform in T. At the start T is close to the identity, so that a flow begins as `DiagonalNormal`. A draw
and its density take one pass. The mean, which a flow has not in closed form, is taken over fixed draws.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions.transforms import AffineTransform

from ppvae.base import Distribution
from ppvae.distributions.flow import zuko
from ppvae.distributions.guide_flow import GuideFlow
from ppvae.distributions.sylvester import TriangularSylvester
from ppvae.models.checks import at_least_one
from ppvae.networks import checks

_INSIDE = 1 - 1e-6  # a float32 tanh reaches 1, where Sylvester's transform is no longer one-to-one


class InverseAutoregressiveFlow(nn.Module):
    """q(z | x) of z = loc + scale * T(e), where each transform in T is affine in e_d given e_1 ... e_{d-1} and x.

    A draw takes one pass; the density of another point than its own draws, `latent` passes. Kingma et al. 2016,
    https://arxiv.org/abs/1606.04934

    Args:
        network: `(..., features)` to `(..., 2 * latent + context)`.
        latent: number of latent dimensions.
        transforms: number of transforms, each in the reverse order of the last.
        hidden: size of each hidden layer of their networks.
        context: number of network outputs that every transform sees.

    >>> InverseAutoregressiveFlow(torch.nn.Linear(3, 36), latent=2)(torch.zeros(5, 3)).rsample().shape
    torch.Size([5, 2])
    """

    def __init__(
        self, network: nn.Module, latent: int, transforms: int = 2, hidden: Sequence[int] = (64, 64), context: int = 32
    ):
        super().__init__()
        self.network, self.latent, self.context = network, latent, context
        self.transforms = _masked(latent, transforms, hidden, context, passes=latent)

    def outputs(self, latent: int) -> int:
        return 2 * latent + self.context

    def forward(self, x: Tensor) -> Distribution:
        loc, scale, context = _base(self.network(x), self.latent)
        return GuideFlow([*(make(context) for make in self.transforms), AffineTransform(loc, scale, 1)], like=loc)


class NeuralSpline(nn.Module):
    """q(z | x) of z = loc + scale * T(e), where each transform in T bends one half of e, given the other half and x.

    The bends are rational-quadratic splines within [-5, 5]; what lies outside stays as it is. A draw and the density
    of any point are a pass or two. Durkan et al. 2019, https://arxiv.org/abs/1906.04032

    Args:
        network: `(..., features)` to `(..., 2 * latent + context)`.
        latent: number of latent dimensions.
        transforms: number of couplings; the halves take turns.
        hidden: size of each hidden layer of their networks.
        context: number of network outputs that every transform sees.
        bins: number of pieces of a spline.

    >>> NeuralSpline(torch.nn.Linear(3, 36), latent=2)(torch.zeros(5, 3)).rsample().shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        network: nn.Module,
        latent: int,
        transforms: int = 2,
        hidden: Sequence[int] = (64, 64),
        context: int = 32,
        bins: int = 8,
    ):
        super().__init__()
        self.network, self.latent, self.context = network, latent, context
        at_least_one("bins", bins)
        options = {"univariate": zuko.transforms.MonotonicRQSTransform, "shapes": [(bins,), (bins,), (bins - 1,)]}
        self.transforms = _masked(latent, transforms, hidden, context, passes=2, **options)

    def outputs(self, latent: int) -> int:
        return 2 * latent + self.context

    def forward(self, x: Tensor) -> Distribution:
        loc, scale, context = _base(self.network(x), self.latent)
        return GuideFlow([*(make(context) for make in self.transforms), AffineTransform(loc, scale, 1)], like=loc)


class Sylvester(nn.Module):
    """q(z | x) of z = loc + scale * T(e), where each transform in T is y + R tanh(S y + b), R, S triangular, given x.

    R, S and b are linear in the context, so x gives every datum a flow of its own. The triangular flow (T-SNF) of van
    den Berg et al. 2018, https://arxiv.org/abs/1803.05649; with more transforms it is more flexible.

    Args:
        network: `(..., features)` to `(..., 2 * latent + context)`.
        latent: number of latent dimensions.
        transforms: number of transforms, each in the reverse order of the last.
        context: number of network outputs that every transform sees.

    >>> Sylvester(torch.nn.Linear(3, 36), latent=2)(torch.zeros(5, 3)).rsample().shape
    torch.Size([5, 2])
    """

    def __init__(self, network: nn.Module, latent: int, transforms: int = 4, context: int = 32):
        super().__init__()
        self.network, self.latent, self.context = network, latent, context
        sizes = [
            at_least_one("latent", latent) ** 2,
            latent,
            latent,
            latent,
        ]  # R and S off the diagonal, their diagonals, and b
        at_least_one("context", context)
        layers = range(at_least_one("transforms", transforms))
        self.transforms = nn.ModuleList(nn.Linear(context, sum(sizes)) for _ in layers)
        # R starts near 0, which is the identity, and S does not, so that R learns at once
        for layer in self.transforms:
            _shrink(layer, bias=torch.cat([torch.full((n,), float(i == 2)) for i, n in enumerate(sizes)]))

    def outputs(self, latent: int) -> int:
        return 2 * latent + self.context

    def forward(self, x: Tensor) -> Distribution:
        loc, scale, context = _base(self.network(x), self.latent)
        transforms = [self._transform(layer(context), flip=i % 2 == 1) for i, layer in enumerate(self.transforms)]
        return GuideFlow([*transforms, AffineTransform(loc, scale, 1)], like=loc)

    def _transform(self, outputs: Tensor, flip: bool) -> TriangularSylvester:
        matrix, r, s, b = outputs.split([self.latent**2, self.latent, self.latent, self.latent], dim=-1)
        r, s = _INSIDE * r.tanh(), _INSIDE * s.tanh()
        return TriangularSylvester(matrix.unflatten(-1, (self.latent, self.latent)), r, s, b, flip)


def _base(outputs: Tensor, latent: int) -> tuple[Tensor, Tensor, Tensor]:
    """loc, scale, context."""
    return outputs[..., :latent], outputs[..., latent : 2 * latent].exp(), outputs[..., 2 * latent :]


def _masked(
    latent: int, transforms: int, hidden: Sequence[int], context: int, passes: int, **options: Any
) -> nn.ModuleList:
    """Zuko's masked transforms, in alternate orders, close to the identity. In one dimension there is no order."""
    checks.at_least_one(hidden=hidden)
    order = torch.arange(at_least_one("latent", latent))
    options |= {"features": latent, "context": at_least_one("context", context), "hidden_features": tuple(hidden)}
    made: list[Any] = []
    for i in range(at_least_one("transforms", transforms)):
        orders = {"order": order.flip(0) if i % 2 else order, "passes": passes} if latent > 1 else {}
        made.append(zuko.flows.MaskedAutoregressiveTransform(**options, **orders))
        _shrink(made[-1].hyper[-1])
    return nn.ModuleList(made)


def _shrink(layer: Any, bias: Tensor | float = 0.0) -> None:
    """A linear layer's outputs become almost its new bias, yet its inputs still learn."""
    with torch.no_grad():
        layer.weight.mul_(0.01)
        layer.bias.zero_().add_(bias)
