"""The upper tail of the weights: how heavy it is tells whether an estimate and its error can be trusted."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST = 5
"""Fewer weights than that are no tail to fit: there are as many from 25 particles on."""


class Tail(NamedTuple):
    """The generalised Pareto distribution of the weights above a cut-off: w - cut-off ~ GPD(k, scale).

    Tensors are `(batch,)`, in float64. There is no curve, and `log_scale` is nan, where `k` is no finite number.
    """

    k: Tensor  # shape, k-hat
    log_scale: Tensor  # nats, as log w
    log_cutoff: Tensor  # nats: the log-weight that the tail begins above
    share: Tensor  # of the draws that lie in the tail, 0 to 1


def pareto_k(log_w: Tensor) -> Tensor:
    """Tail index k-hat of the weights, `(particles, batch)` to `(batch)`: how heavy their upper tail is.

    A generalised Pareto distribution is fitted to the M = min(K / 5, 3 sqrt K) largest weights: below 0.5 the weights
    have a finite variance and errors can be trusted, to 0.7 they can be used, above it the estimate is unreliable
    whatever its standard error says. nan below 25 particles, where there is no tail to fit; -inf where the weights lie
    within 1e-3 nats of one another. Vehtari et al. 2024, https://arxiv.org/abs/1507.02646; the fit is Zhang & Stephens
    2009, https://doi.org/10.1198/tech.2009.08017
    """
    return fit_tail(log_w).k


def fit_tail(log_w: Tensor) -> Tail:
    """The tail that `pareto_k` judges, so that it can be drawn: `(particles, batch)` nats to a `Tail` of `(batch)`.

    p(w) = 1/scale (1 + k (w - cut-off) / scale)^(-1/k - 1) above the cut-off. `k` is drawn to 0.5 by a prior as strong
    as ten observations and `scale` is not, as in Pareto smoothing. Vehtari et al. 2024, appendix C,
    https://arxiv.org/abs/1507.02646
    """
    size = tail_size(len(log_w))
    return tail_of(log_w.topk(min(size + 1, len(log_w)), dim=0).values, log_w.min(dim=0).values, len(log_w))


def tail_size(particles: int) -> int:
    """How many of the largest weights are the tail."""
    return int(min(particles / 5, 3 * math.sqrt(particles)))


def tail_of(log_largest: Tensor, smallest: Tensor, particles: int) -> Tail:
    """The tail by what it needs of the log-weights, which need not be kept: the largest, the smallest, how many.

    Args:
        log_largest: the largest log-weights, one more than `tail_size`, descending: `(tail + 1, batch)`.
        smallest: of all, `(batch,)`.
        particles: of how many.
    """
    size = tail_size(particles)
    if size < SMALLEST:
        unknown = torch.full_like(smallest, torch.nan, dtype=torch.double)
        return Tail(unknown, unknown, unknown, torch.zeros_like(unknown))
    largest_log_w = log_largest[0].double()
    log_largest = log_largest.double() - largest_log_w  # the last one is the cut-off
    largest = log_largest.exp()
    exceedances = (largest[:-1] - largest[-1]).flip(0)  # (tail, batch), ascending
    k, scale = _fit_generalised_pareto(exceedances)
    k = _without_a_curve(k, smallest.double() - largest_log_w, log_largest, exceedances)
    log_scale = torch.where(k.isfinite(), scale.log() + largest_log_w, torch.nan)
    return Tail(k, log_scale, log_largest[-1] + largest_log_w, torch.full_like(k, size / particles))


def _without_a_curve(k: Tensor, smallest: Tensor, log_largest: Tensor, exceedances: Tensor) -> Tensor:
    """k-hat, or an infinity where the weights are of few values, to which no curve can be fitted."""
    size = len(exceedances)
    constant = smallest > -1e-3
    flat_tail = exceedances[-1] <= 1e-12  # the largest weights are all equal: bounded
    # Weights of few values (a discrete latent) tie at the cut-off, where no curve can be fitted: the tail is bounded
    # when its largest value came up again and again, and cannot be judged otherwise.
    ties = log_largest[size - 1 - size // 4] == log_largest[-1]
    repeated = (log_largest == log_largest[0]).sum(dim=0) >= 5
    k = torch.where(ties, torch.where(repeated, -torch.inf, torch.inf), k)
    return torch.where(constant | flat_tail, -torch.inf, k)


def _fit_generalised_pareto(exceedances: Tensor) -> tuple[Tensor, Tensor]:
    """Shape and scale, `(batch,)` each, of `(tail, batch)` ascending exceedances.

    Zhang & Stephens' posterior mean under their empirical prior; the shape is drawn to 0.5 by ten observations.
    """
    size = len(exceedances)
    exceedances = exceedances.clamp_min(1e-300)
    grid_size = 30 + int(math.sqrt(size))
    steps = torch.arange(1, grid_size + 1, dtype=exceedances.dtype, device=exceedances.device).unsqueeze(-1)
    quartile = exceedances[int(size / 4 + 0.5) - 1]
    theta = 1 / exceedances[-1] + (1 - torch.sqrt(grid_size / (steps - 0.5))) / (3 * quartile)  # (grid, batch)
    k = torch.log1p(-theta.unsqueeze(1) * exceedances).mean(dim=1)  # (grid, batch)
    log_likelihood = size * (torch.log(-theta / k) - k - 1)
    theta_hat = (torch.softmax(log_likelihood, dim=0) * theta).sum(0)
    k_hat = torch.log1p(-theta_hat * exceedances).mean(dim=0)
    return (size * k_hat + 10 * 0.5) / (size + 10), -k_hat / theta_hat
