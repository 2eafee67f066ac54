"""Methods of inference side by side on one decoder: bounds, evidence, moments, calibration and seconds."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.diagnostics.calibration import RANKED, Calibration, rank, simulate
from ppvae.inference.diagnostics.gaps import Difference, paired
from ppvae.inference.evidence.blocks import Budget, estimate
from ppvae.inference.evidence.evidence import Evidence
from ppvae.inference.posteriors.chains import run_chains
from ppvae.inference.posteriors.methods import METHODS, Approximation, approximate
from ppvae.inference.program.answers import Answer
from ppvae.inference.program.prepared import prepared

MIXED = 1.05
"""R-hat up to which a reference run is held to be right."""

SLOW = {"nuts": 2}
"""Methods that take a datum at a time, and how many data they are given; none to calibrate them by."""


@dataclass(frozen=True)
class Reference(Answer):
    """Moments of p(z | x) by long Markov chains, in unbounded space."""

    mean: Tensor  # (batch, size)
    variance: Tensor  # (batch, size)
    ess: Tensor  # (batch, size)
    r_hat: Tensor  # (batch, size)
    draws: Tensor  # (draws, batch, size)

    @property
    def mixed(self) -> Tensor:
        """Which data the chains agree on: `(batch,)`."""
        return (self.r_hat <= MIXED).all(-1)

    def summary(self) -> dict[str, Any]:
        """Whether the chains agree."""
        return {
            "data": len(self.mean),
            "draws": len(self.draws),
            "mixed": int(self.mixed.sum()),
            "largest_r_hat": self.r_hat.max().item(),
            "least_ess": self.ess.min().item(),
        }

    def columns(self) -> dict[str, Sequence[Any]]:
        """A row for each datum and coordinate of unbounded space."""
        rows, size = self.mean.shape
        figures = {"mean": self.mean, "variance": self.variance, "ess": self.ess, "r_hat": self.r_hat}
        return {
            "datum": [datum for datum in range(rows) for _ in range(size)],
            "coordinate": list(range(size)) * rows,
            **{name: values.flatten().tolist() for name, values in figures.items()},
        }

    def rows(self, chosen: slice) -> "Reference":
        """Of some of the data."""
        mean, variance, ess, r_hat = (values[chosen] for values in (self.mean, self.variance, self.ess, self.r_hat))
        return Reference(mean, variance, ess, r_hat, self.draws[:, chosen])

    @property
    def noise(self) -> float:
        """The error that its own means have, in posterior standard deviations: none below it can be told from 0."""
        return (1 / self.ess[self.mixed]).mean().sqrt().item()


@dataclass(frozen=True)
class Measured(Answer):
    """What one method's answers are worth. Tensors are of the data that it was given, which may be the first few."""

    method: str
    posterior: Approximation
    evidence: Evidence | None  # with the answers as proposals, `.elbo` theirs; None where they have no density
    mean_error: Tensor  # (batch, size), in standard deviations of the reference
    log_variance_error: Tensor  # (batch, size), log of the ratio to the reference's
    calibration: Calibration | None
    gap: Difference | None  # log p(x) - ELBO, paired over data

    @property
    def data(self) -> int:
        return len(self.posterior.mean)

    def summary(self) -> dict[str, Any]:
        """One row of the table; nan where a method has no such figure."""
        evidence, r_hat = self.evidence, self.posterior.r_hat
        nan = math.nan
        return {
            "method": self.method,
            "data": self.data,
            "elbo": evidence.elbo.mean().item() if evidence else nan,
            "gap": self.gap.mean if self.gap else nan,
            "gap_error": self.gap.error if self.gap else nan,
            "resolved": self.gap.resolved if self.gap else False,
            "log_p": evidence.estimate.mean().item() if evidence else nan,
            "pareto_k_above_0.7": evidence.unreliable() if evidence else nan,
            "mean_error": _rms(self.mean_error),
            "log_variance_bias": _mean(self.log_variance_error),
            "log_variance_error": _rms(self.log_variance_error),
            "calibration_p": self.calibration.worst if self.calibration else nan,
            "r_hat": r_hat.max().item() if r_hat is not None else nan,
            "milliseconds": 1000 * self.posterior.seconds / self.data,
        }

    def columns(self) -> dict[str, Sequence[Any]]:
        """A row for each datum and coordinate of unbounded space: errors against the reference."""
        rows, size = self.mean_error.shape
        return {
            "datum": [datum for datum in range(rows) for _ in range(size)],
            "coordinate": list(range(size)) * rows,
            "mean_error": self.mean_error.flatten().tolist(),
            "log_variance_error": self.log_variance_error.flatten().tolist(),
        }


def reference(
    story: Story, data: Batch, *, num_samples: int = 2000, num_warmup: int = 600, seed: int = 0, progress: bool = True
) -> Reference:
    """A long run of Hamiltonian Monte Carlo: four chains of `draws` each."""
    found = run_chains(
        story, data, num_samples=num_samples, num_warmup=num_warmup, seed=seed + 1_000_003, progress=progress
    )
    u = found.u.transpose(0, 1).flatten(0, 1)
    return Reference(u.mean(0), u.var(0), found.ess, found.r_hat, u)


def leaderboard(
    story: Story,
    data: Batch,
    log_p: Tensor,
    against: Reference,
    *,
    methods: Sequence[str] = tuple(METHODS),
    num_samples: int = 1000,
    num_simulations: int = 200,
    seed: int = 0,
    progress: bool = True,
) -> Iterator[Measured]:
    """Every method in turn on the same data, and on data of the story's own for its calibration.

    Args:
        story: any object with `model` and `guide` whose latents are continuous.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        log_p: the best estimate of log p(x) there is, `(batch,)` nats.
        against: the moments that are held to be right.
        methods: names of `METHODS`.
        num_samples: of each method, and particles of its bound and evidence.
        num_simulations: data to calibrate by; 0 for none.

    Raises:
        ValueError: what `approximate`, `simulate` and `run_chains` raise.
    """
    check_methods(methods)
    task = prepared(story, data)
    simulated = simulate(story, task.batch, num_simulations, seed) if num_simulations else None
    for method in methods:
        rows = slice(0, min(len(task), SLOW.get(method, len(task))))
        given = task.rows(rows)
        found = approximate(story, given, method, num_samples=num_samples, seed=seed, progress=progress)
        part = against.rows(rows)
        evidence = None
        if found.weigh is not None:
            weigh, budget = found.weigh, Budget(max(num_samples, 25))
            evidence = estimate(given, weigh, budget, seed, progress, method, found.proposal)
        calibrated = None
        if simulated is not None and method not in SLOW:
            calibrated = rank(
                approximate(story, simulated[0], method, num_samples=4 * RANKED, seed=seed, progress=progress).draws,
                simulated[1],
            )
        gap = (
            None
            if evidence is None
            else paired(method, log_p[rows] - evidence.elbo, evidence.elbo_standard_error[0].item())
        )
        yield Measured(method, found, evidence, *moment_errors(found, part), calibrated, gap)


def check_methods(methods: Sequence[str]) -> None:
    """Refuse a name that is none of `METHODS`, or no name at all."""
    unknown = [method for method in methods if method not in METHODS]
    if unknown or not methods:
        raise ValueError(f"methods should be of {', '.join(METHODS)}; got {', '.join(unknown) or 'none'}")


def moment_errors(found: Approximation, against: Reference) -> tuple[Tensor, Tensor]:
    """Of the mean, in the reference's standard deviations, and of the log-variance; nan where it has not mixed."""
    known = against.mixed.unsqueeze(-1)
    mean = (found.mean - against.mean) / against.variance.sqrt()
    log_ratio = found.variance.log() - against.variance.log()
    nan = torch.full_like(mean, torch.nan)
    return torch.where(known, mean, nan), torch.where(known, log_ratio, nan)


def _rms(values: Tensor) -> float:
    return values.double().square().nanmean().sqrt().item()


def _mean(values: Tensor) -> float:
    return values.double().nanmean().item()
