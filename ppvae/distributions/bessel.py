"""The modified Bessel function I_v of any real order, differentiable in its argument."""

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

_ORDER, _TERMS = 16, 12  # Debye's expansion has about 1e-14 left at this order with this many terms


def log_bessel(order: float, k: Tensor) -> Tensor:
    """log(I_v(k) k^-v exp(-k)), finite at every k >= 0, with v = order >= 0.

    Debye's uniform expansion (https://dlmf.nist.gov/10.41) at an order of 16 or more, and from there down by the ratios
    R_v = I_{v+1} / I_v = 1 / (2 (v + 1) / k + R_{v+1}), a recurrence that is stable. Computed in float64.

    >>> log_bessel(0.5, torch.tensor(2.0))  # sqrt(2 / pi) sinh(k) / k exp(-k)
    tensor(-1.6306)
    """
    return _LogBessel.apply(order, k)


def bessel_ratio(order: float, k: Tensor) -> Tensor:
    """R_v(k) = I_{v+1}(k) / I_v(k), from 0 to 1.

    >>> bessel_ratio(0.5, torch.tensor(2.0))  # coth(k) - 1/k
    tensor(0.5373)
    """
    return _BesselRatio.apply(order, k)


class _LogBessel(Function):
    @staticmethod
    def forward(ctx: Any, order: float, k: Tensor) -> Tensor:
        ctx.order = order
        ctx.save_for_backward(k)
        return _both(order, k)[0].to(k.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (k,) = ctx.saved_tensors
        return None, grad * (bessel_ratio(ctx.order, k.double()) - 1).to(grad.dtype)


class _BesselRatio(Function):
    @staticmethod
    def forward(ctx: Any, order: float, k: Tensor) -> Tensor:
        ratio_over_k = _both(order, k)[1]
        ratio = ratio_over_k * k.double()
        ctx.save_for_backward(1 - ratio.square() - (2 * order + 1) * ratio_over_k)
        return ratio.to(k.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad * ctx.saved_tensors[0].to(grad.dtype)


def _both(order: float, k: Tensor) -> tuple[Tensor, Tensor]:
    """log(I_v(k) k^-v exp(-k)), and R_v(k) / k, in float64."""
    k = k.double()
    steps = max(0, math.ceil(_ORDER - order))
    high = order + steps
    root, above = torch.hypot(k, k.new_tensor(high)), torch.hypot(k, k.new_tensor(high + 1))
    series, series_above = _debye(high, high / root), _debye(high + 1, (high + 1) / above)
    log_i = high**2 / (root + k) - high * (high + root).log() - (2 * math.pi * root).log() / 2 + series.log()
    more = (2 * high + 1) / (above + root)  # above - root, without its cancellation
    log_r = more - (high + 1 + above).log() - high * torch.log1p((1 + more) / (high + root))
    r = torch.exp(log_r + (root / above).log() / 2) * series_above / series
    for v in reversed(range(steps)):
        r = 1 / (2 * (order + v + 1) + k.square() * r)
        log_i = log_i - r.log()
    return log_i, r


def _debye(order: float, p: Tensor) -> Tensor:
    """sum_j U_j(p) / order^j."""
    total = torch.zeros_like(p)
    for coefficient in reversed(_debye_polynomial(order)):  # Horner
        total = total * p + coefficient
    return total


@cache
def _debye_polynomial(order: float) -> list[float]:
    """The coefficients in p of sum_j U_j(p) / order^j, lowest power first.

    U_{j+1}(p) = p^2 (1 - p^2) U_j'(p) / 2 + 1/8 integral from 0 to p of (1 - 5 t^2) U_j(t) dt
    """
    u, total = [1.0], [0.0] * (3 * _TERMS + 1)
    for j in range(_TERMS + 1):
        for power, value in enumerate(u):
            total[power] += value / order**j
        following = [0.0] * (len(u) + 3)
        for power, value in enumerate(u):
            following[power + 1] += value * (power / 2 + 1 / (8 * (power + 1)))
            following[power + 3] -= value * (power / 2 + 5 / (8 * (power + 3)))
        u = following
    return total
