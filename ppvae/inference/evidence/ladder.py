"""The K-ladder: how an importance-weighted bound rises with its particles, from the ELBO to log p(x)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ppvae.inference.program.weights import log_mean_exp, standard_error

FEW = 8
"""The spread of fewer groups than that is a poor guess of their error."""


class Ladder(NamedTuple):
    """Importance-weighted bounds for a rising number of particles, and how wrong each may be."""

    particles: Tensor  # (rungs,), K of each rung, as integers
    estimate: Tensor  # (rungs, batch), nats
    standard_error: Tensor  # (rungs, batch), nats: Monte Carlo error of the estimate


def ladder(log_w: Tensor, rungs: Sequence[int] | None = None) -> Ladder:
    """E[log 1/K sum_k w_k] for K = 1, 2, 5, 10, ... and at last all N draws, from one set of log-weights.

    It rises with K, from the ELBO to log p(x): where it still rises at the last rung, the estimate is too low. Burda
    et al. 2016, theorem 1, https://arxiv.org/abs/1509.00519

    Every rung is the mean of `log_mean_exp` over the floor(N / K) groups of K draws that come one after another, so
    that it is unbiased for its bound. Its error is the spread of the groups, sd / sqrt(groups); where they are fewer
    than eight, that of all their draws by the delta method, which is the same to first order. Rungs share their
    draws: their errors are not independent.

    Args:
        log_w: `(particles, batch)`, nats, independent draws.
        rungs: particle counts; 1, 2 and 5 times the powers of ten up to N, and N, where they are not given.

    Raises:
        ValueError: a rung below 1, or above the number of draws.
    """
    chosen = default_rungs(len(log_w)) if rungs is None else list(rungs)
    unknown = [particles for particles in chosen if not 1 <= particles <= len(log_w)]
    if unknown or not chosen:
        came = unknown[0] if unknown else "none"
        raise ValueError(f"a rung should be from 1 to the number of draws, {len(log_w)}; got {came}")
    steps = [_rung(log_w, particles) for particles in chosen]
    estimates, errors = zip(*steps, strict=True)
    return Ladder(torch.tensor(chosen), torch.stack(estimates), torch.stack(errors))


def default_rungs(draws: int) -> list[int]:
    """1, 2, 5, 10, 20, ... below the number of draws, and that number.

    >>> default_rungs(60)
    [1, 2, 5, 10, 20, 50, 60]
    """
    decades = range(len(str(draws)))
    return [*(rung for decade in decades for step in (1, 2, 5) if (rung := step * 10**decade) < draws), draws]


def _rung(log_w: Tensor, particles: int) -> tuple[Tensor, Tensor]:
    """The bound of `particles` draws and its error: `(batch,)` each."""
    groups = len(log_w) // particles
    used = log_w[: groups * particles]
    bounds = log_mean_exp(used.unflatten(0, (groups, particles)).transpose(0, 1))  # (groups, batch)
    error = standard_error(used) if groups < FEW else bounds.std(dim=0) / groups**0.5
    return bounds.mean(dim=0), error
