"""Bidirectional Monte Carlo: log p(x) of simulated data from below and from above."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.evidence.annealing import Chains, Path, Schedule, Start, forward, in_chunks, lower_bound
from ppvae.inference.evidence.evidence import COLUMNS, Evidence, assemble
from ppvae.inference.evidence.tally import reduce
from ppvae.inference.program.answers import Answer
from ppvae.inference.program.checks import observed
from ppvae.inference.program.codes import simulate_jointly
from ppvae.inference.program.prepared import Prepared
from ppvae.inference.program.streams import own_generators
from ppvae.inference.program.traces import as_seen, evaluating, placed
from ppvae.inference.program.unconstrained import unconstrain


@dataclass(frozen=True)
class Sandwich(Answer):
    """Bounds on log p(x) of data drawn from the story itself, from below and from above."""

    lower: Evidence
    upper: Evidence
    x: Tensor  # the data, (data, features)

    def gap(self) -> tuple[float, float]:
        """Mean of upper - lower over the data, nats, and its standard error by the spread over the data.

        In expectation neither bound is off by more than this.
        """
        difference = self.upper.estimate - self.lower.estimate
        error = (difference.std() / len(difference) ** 0.5).item() if len(difference) > 1 else float("nan")
        return difference.mean().item(), error

    def summary(self) -> dict[str, Any]:
        """The gap between the bounds, and both; nats per datum."""
        gap, error = self.gap()
        return {"gap": gap, "gap_error": error, "lower": self.lower.summary(), "upper": self.upper.summary()}

    def columns(self) -> dict[str, Sequence[Any]]:
        """A row for each datum: its bounds and their Monte Carlo errors, nats."""
        found: dict[str, Sequence[Any]] = {"datum": range(len(self.x))}
        for side, evidence in {"lower": self.lower, "upper": self.upper}.items():
            found |= {side: evidence.estimate.tolist(), f"{side}_error": evidence.standard_error.tolist()}
        return found

    def __str__(self) -> str:
        gap, error = self.gap()
        lower, upper = (evidence.estimate.mean().item() for evidence in (self.lower, self.upper))
        return (
            f"log p(x) of {len(self.x)} simulated data from below {lower:.3f}, from above {upper:.3f} nats per datum; "
            f"the gap, in which both errors lie on average, is {gap:.3f} ± {error:.3f}"
        )


def bidirectional(
    story: Story,
    like: Batch,
    *,
    particles: int = 32,
    num_temperatures: int = 100,
    start: Start = "guide",
    schedule: Schedule = "sigmoid",
    num_leapfrog_steps: int = 10,
    target_accept_prob: float = 0.65,
    seed: int = 0,
    progress: bool = True,
) -> Sandwich:
    """Bounds on log p(x) from both sides, for data that the story itself draws: bidirectional Monte Carlo.

    z, x ~ p(z) p(x | z), so that z is an exact draw from p(z | x). From it the chains of `annealed` run back to f_0,
    which weighs them by an unbiased estimate of 1 / p(x): minus its logarithm bounds log p(x) from above. The gap
    between the two is a certificate of what `annealed` does on data like these; how like them real data are is another
    question. Grosse et al. 2015, https://arxiv.org/abs/1511.02543

    The chains of a datum share their first state, so that their spread does not hold all the error of the upper
    bound: the gap's error is the spread over data. Arguments and errors are those of `annealed`.

    Args:
        like: one row for every datum to draw; its x does not matter, what else it holds (labels, a mask) is given.
    """
    path = Path(particles, num_temperatures, start, schedule, num_leapfrog_steps, target_accept_prob)
    with own_generators(), torch.no_grad(), evaluating(story):
        measure, factors = observed(story, as_seen(story, tuple(part[:1] for part in placed(story, like))))
    if factors:
        raise ValueError(
            f"bidirectional needs a story that draws from its own density; the factor '{factors[0]}' is drawn from by "
            "nothing: use annealed"
        )
    with own_generators():
        torch.manual_seed(seed)
        batch, latents = simulate_jointly(story, like)
    task = Prepared(story, as_seen(story, batch))
    flat = unconstrain(story, task.batch, "annealing")
    exact = flat.vector(latents)[0]  # (data, size)
    there = in_chunks(task, path, forward, "annealing", seed, progress)
    back = in_chunks(task, path, partial(_backward, exact=exact), "annealing back", seed, progress)
    return Sandwich(lower_bound(there, path, measure), _upper_bound(back, path, measure), task.batch[0])


def _backward(chains: Chains, steps: Tensor, scale: Tensor, exact: Tensor) -> Iterator[Tensor]:
    """Log-weights of chains from exact draws `(data, size)` of f_T back to f_0, by the same kernels reversed.

    Their exponentials are unbiased for 1 / p(x).
    """
    u, betas = exact[chains.rows].expand(chains.path.particles, -1, -1), chains.path.betas
    noise, log_w = chains.noise("back ", u), u.new_zeros(u.shape[:2], dtype=torch.float64)
    for t in range(len(betas) - 1, 0, -1):
        if t < len(betas) - 1:
            u, _ = chains.move(betas[t], u, steps[t], scale, noise)
        log_w = log_w - (betas[t] - betas[t - 1]) * chains.slope(u)
        yield log_w


def _upper_bound(log_w: Tensor, path: Path, measure: str) -> Evidence:
    """Evidence of backward weights, whose mean is 1 / p(x): their negated figures bound log p(x) from above."""
    figures = reduce(log_w).T.clone()
    figures[:, [COLUMNS.index("estimate"), COLUMNS.index("elbo")]] *= -1
    method = f"annealing back to the {path.start} in {path.num_temperatures} steps"
    return assemble(figures, "stochastic upper bound", method, measure=measure)
