"""Distributions on the unit sphere of R^dim, with densities with respect to its surface measure."""

import math
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Size, Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ppvae.distributions.bessel import bessel_ratio, log_bessel


def log_surface(dim: int) -> float:
    """log 2 pi^(dim/2) / Gamma(dim/2), the area of the unit sphere in R^dim: a circle's is 2 pi."""
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


class SphereUniform(dist.TorchDistribution):
    """The uniform distribution on the unit sphere of R^dim.

    Args:
        dim: of the space around the sphere, at least 2.
        like: a tensor whose dtype and device the draws take; torch's defaults where it is not given.

    Raises:
        ValueError: dim below 2.

    >>> SphereUniform(2).log_prob(torch.tensor([0.6, 0.8]))  # -log 2 pi
    tensor(-1.8379)
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.sphere
    has_rsample = True  # there is no parameter

    def __init__(self, dim: int, like: Tensor | None = None, validate_args: bool | None = None):
        if dim < 2:
            raise ValueError(f"dim of a sphere should be at least 2, got {dim}")
        self.zeros = torch.zeros(dim) if like is None else torch.zeros(dim, dtype=like.dtype, device=like.device)
        super().__init__(event_shape=self.zeros.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "SphereUniform":
        new: SphereUniform = self._get_checked_instance(SphereUniform, _instance)
        new.zeros = self.zeros
        super(SphereUniform, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        return self.zeros.expand(self._extended_shape())

    def rsample(self, sample_shape: Any = Size()) -> Tensor:
        return _unit(torch.randn_like(self.zeros.expand(self._extended_shape(sample_shape))))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return self.zeros.new_full(shape, -log_surface(len(self.zeros)))

    def entropy(self) -> Tensor:
        return self.zeros.new_full(self.batch_shape, log_surface(len(self.zeros)))


class VonMisesFisher(dist.TorchDistribution):
    """p(z) proportional to exp(concentration <loc, z>) on the unit sphere of R^dim; uniform at concentration 0.

    The normaliser is k^v / ((2 pi)^(dim/2) I_v(k)) with v = dim/2 - 1. Draws are z = cos(t) loc + sin(t) w: the angle t
    by Wood's rejection, w a uniform direction across loc. Both gradients are pathwise and exact: w is carried along as
    loc turns, and dt/dk = -(dF/dk) / p(t) with F the distribution of t, by quadrature (Figurnov et al. 2018,
    https://arxiv.org/abs/1805.08498), so no correction for the rejection is needed. Wood 1994,
    https://doi.org/10.1080/03610919408813161; Davidson et al. 2018, https://arxiv.org/abs/1804.00891

    Args:
        loc: unit vectors, `(..., dim)`, dim at least 2.
        concentration: `(...)`, from 0 to 1e5; the angle's spread is about 1 / sqrt(concentration).

    Raises:
        ValueError: dim below 2.

    >>> VonMisesFisher(torch.tensor([0.0, 0.0, 1.0]), torch.tensor(2.0)).mean
    tensor([0.0000, 0.0000, 0.5373])
    """

    arg_constraints: ClassVar = {"loc": constraints.sphere, "concentration": constraints.nonnegative}
    support = constraints.sphere
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor | float, validate_args: bool | None = None):
        if loc.shape[-1] < 2:
            raise ValueError(f"dim of a sphere should be at least 2, got {loc.shape[-1]}")
        concentration = torch.as_tensor(concentration, dtype=loc.dtype, device=loc.device)
        batch_shape = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
        self.loc = loc.expand(*batch_shape, -1)
        self.concentration = concentration.expand(batch_shape)
        super().__init__(batch_shape, loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "VonMisesFisher":
        new: VonMisesFisher = self._get_checked_instance(VonMisesFisher, _instance)
        new.loc = self.loc.expand(*batch_shape, -1)
        new.concentration = self.concentration.expand(batch_shape)
        super(VonMisesFisher, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def _order(self) -> float:
        return self.event_shape[0] / 2 - 1

    @property
    def mean(self) -> Tensor:
        return bessel_ratio(self._order, self.concentration).unsqueeze(-1) * self.loc

    def rsample(self, sample_shape: Any = Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        loc, concentration = self.loc.expand(shape), self.concentration.expand(shape[:-1])
        angle = _Angle.apply(concentration, shape[-1]).unsqueeze(-1)
        with torch.no_grad():
            across = _unit(_reject(torch.randn_like(loc), loc))
        across = _reject(across, loc)  # nothing to the value; its gradient is that of the least rotation that moves loc
        return _unit(angle.cos() * loc + angle.sin() * across)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        cosine_less_one = -(value - self.loc).square().sum(-1) / 2  # no cancellation at a high concentration
        return self.concentration * cosine_less_one - self._log_normalizer()

    def entropy(self) -> Tensor:
        k = self.concentration.double()
        return self._log_normalizer() + (k * (1 - bessel_ratio(self._order, k))).to(self.loc.dtype)

    def _log_normalizer(self) -> Tensor:
        """log of the integral of exp(k (cos t - 1)) over the sphere."""
        return self.event_shape[0] / 2 * math.log(2 * math.pi) + log_bessel(self._order, self.concentration)


def _unit(vector: Tensor) -> Tensor:
    return vector / torch.linalg.vector_norm(vector, dim=-1, keepdim=True)


def _reject(vector: Tensor, loc: Tensor) -> Tensor:
    """The part of a vector that lies across loc."""
    return vector - loc * (loc * vector).sum(-1, keepdim=True)


class _Angle(Function):
    """Draws of the angle t to loc, density proportional to sin(t)^(dim - 2) exp(k cos t) on [0, pi]."""

    @staticmethod
    def forward(ctx: Any, concentration: Tensor, dim: int) -> Tensor:
        angle = _draw_angle(concentration.double(), dim)
        ctx.save_for_backward(angle, concentration)
        ctx.dim = dim
        return angle.to(concentration.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        angle, concentration = ctx.saved_tensors
        return grad * _angle_slope(angle, concentration.double(), ctx.dim).to(grad.dtype), None


def _draw_angle(concentration: Tensor, dim: int) -> Tensor:
    """Wood's rejection, in terms of tan(t/2)^2 = b g1 / g2 with g1, g2 ~ Gamma((dim - 1) / 2), exact near 0 and pi."""
    power = dim - 1
    b = power / (2 * concentration + torch.sqrt(4 * concentration.square() + power**2))
    centre = (1 - b) / (1 + b)
    angle = torch.empty_like(concentration)
    waiting = torch.ones_like(concentration, dtype=torch.bool)
    gamma = torch.distributions.Gamma(b.new_tensor(power / 2), b.new_ones(()), validate_args=False)
    while waiting.any():  # two thirds are accepted at each turn, at the least
        k, c, shape = concentration[waiting], centre[waiting], b[waiting]
        square = shape * gamma.sample(k.shape) / gamma.sample(k.shape)
        cosine = (1 - square) / (1 + square)
        log_ratio = k * (cosine - c) + power * (torch.log1p(-c * cosine) - torch.log1p(-c * c))
        accepted = ~(log_ratio < torch.rand_like(k).log())  # nan too, or it would wait for ever
        angle[waiting] = torch.where(accepted, 2 * torch.atan(square.sqrt()), angle[waiting])
        waiting[waiting.clone()] = ~accepted
    return angle


def _angle_slope(angle: Tensor, k: Tensor, dim: int) -> Tensor:
    """dt/dk = -(dF/dk) / p(t), the integral from t to pi of (cos s - E cos) p(s) / p(t) ds, or to 0 of the same.

    It is taken on the side of t away from the mode, where p(s) / p(t) falls, and 14 scales of the density far.
    """
    power = dim - 2
    cosine = 2 * k / (power + torch.sqrt(power**2 + 4 * k.square())).clamp_min(1e-300)  # of the mode
    curvature = k * cosine + (power / (1 - cosine.square()).clamp_min(1e-300) if power else 0)
    mode = torch.acos(cosine) if power else torch.zeros_like(k)
    reach = 14 / curvature.clamp_min(1e-300).sqrt()
    above = angle > mode
    end = torch.where(above, (mode + reach).clamp_max(math.pi), (mode - reach).clamp_min(0))
    nodes, weights = (part.to(k.device) for part in _gauss_legendre())
    start = angle.unsqueeze(-1)
    s = start + (end.unsqueeze(-1) - start) * nodes
    log_ratio = k.unsqueeze(-1) * (s.cos() - start.cos())
    if power:
        log_ratio = log_ratio + power * (s.sin() / start.sin()).log()
    centred = s.cos() - bessel_ratio(dim / 2 - 1, k).unsqueeze(-1)
    return (end - angle) * (weights * centred * log_ratio.exp()).sum(-1)


@cache
def _gauss_legendre(nodes: int = 64) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the Gauss-Legendre rule on [0, 1], float64."""
    x, weights = np.polynomial.legendre.leggauss(nodes)
    return torch.from_numpy((x + 1) / 2), torch.from_numpy(weights / 2)
