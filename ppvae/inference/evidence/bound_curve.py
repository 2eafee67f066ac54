"""The K-curve: how an importance-weighted bound rises with its particles, from the ELBO to log p(x)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppvae.inference.evidence.evidence import error_of_mean
from ppvae.inference.program.answers import Answer
from ppvae.inference.program.weights import log_mean_exp, standard_error

FEW = 8
"""The spread of fewer groups than that is a poor guess of their error."""


@dataclass(frozen=True)
class BoundCurve(Answer):
    """Importance-weighted bounds for a rising number of particles, and how wrong each may be."""

    particles: Tensor  # (counts,), K of each bound, as integers
    estimate: Tensor  # (counts, batch), nats
    standard_error: Tensor  # (counts, batch), nats: Monte Carlo error of the estimate

    def summary(self) -> dict[str, Any]:
        """The bounds by all draws and by the fewest, means over the data, nats per datum."""
        means = self.estimate.mean(-1).tolist()
        return {
            "data": self.estimate.shape[-1],
            "particles": self.particles[-1].item(),
            "first": means[0],
            "last": means[-1],
        }

    def columns(self) -> dict[str, Sequence[Any]]:
        """A row for each K: the mean over the data, and its Monte Carlo error, nats per datum."""
        return {
            "particles": self.particles.tolist(),
            "estimate": self.estimate.mean(-1).tolist(),
            "standard_error": [error_of_mean(errors) for errors in self.standard_error],
        }


def bound_curve(log_w: Tensor, counts: Sequence[int] | None = None) -> BoundCurve:
    """E[log 1/K sum_k w_k] for K = 1, 2, 5, 10, ... and at last all N draws, from one set of log-weights.

    It rises with K, from the ELBO to log p(x): where it still rises at the last K, the estimate is too low. Burda
    et al. 2016, theorem 1, https://arxiv.org/abs/1509.00519

    Every bound is the mean of `log_mean_exp` over the floor(N / K) groups of K draws that come one after another, so
    that it is unbiased for its bound. Its error is the spread of the groups, sd / sqrt(groups); where they are fewer
    than eight, that of all their draws by the delta method, which is the same to first order. Bounds share their
    draws: their errors are not independent.

    Args:
        log_w: `(particles, batch)`, nats, independent draws.
        counts: of particles; 1, 2 and 5 times the powers of ten up to N, and N, where they are not given.

    Raises:
        ValueError: a count below 1, or above the number of draws.
    """
    chosen = default_counts(len(log_w)) if counts is None else list(counts)
    unknown = [particles for particles in chosen if not 1 <= particles <= len(log_w)]
    if unknown or not chosen:
        came = unknown[0] if unknown else "none"
        raise ValueError(f"a count should be from 1 to the number of draws, {len(log_w)}; got {came}")
    bounds = [_bound(log_w, particles) for particles in chosen]
    estimates, errors = zip(*bounds, strict=True)
    return BoundCurve(torch.tensor(chosen), torch.stack(estimates), torch.stack(errors))


def default_counts(draws: int) -> list[int]:
    """1, 2, 5, 10, 20, ... below the number of draws, and that number.

    >>> default_counts(60)
    [1, 2, 5, 10, 20, 50, 60]
    """
    decades = range(len(str(draws)))
    return [*(count for decade in decades for step in (1, 2, 5) if (count := step * 10**decade) < draws), draws]


def _bound(log_w: Tensor, particles: int) -> tuple[Tensor, Tensor]:
    """The bound of `particles` draws and its error: `(batch,)` each."""
    groups = len(log_w) // particles
    used = log_w[: groups * particles]
    bounds = log_mean_exp(used.unflatten(0, (groups, particles)).transpose(0, 1))  # (groups, batch)
    error = standard_error(used) if groups < FEW else bounds.std(dim=0) / groups**0.5
    return bounds.mean(dim=0), error
