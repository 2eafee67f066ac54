"""Evidence, log p(x), per datum with its errors, by importance sampling from the guide or from the prior."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.checks import check_data
from ppvae.inference.programs import (
    Site,
    as_batch,
    as_seen,
    evaluating,
    is_auxiliary,
    is_point_mass,
    latent_sites,
    placed,
    run,
    sample_sites,
)
from ppvae.inference.weights import (
    effective_sample_size,
    log_mean_exp,
    log_weights,
    pareto_k,
    standard_error,
    sum_sites,
)
from ppvae.progress import track

BLOCK = 4096
"""Particles drawn from one random stream and evaluated at once. It bounds the memory, whatever the particle count."""

Bound = Literal["stochastic lower bound", "stochastic upper bound", "exact"]


class NoDensity(ValueError):
    """There is no evidence to estimate: the guide is a point mass, or the prior integrates to no number."""


@dataclass(frozen=True)
class Evidence:
    """An estimate of log p(x) for every datum, and how wrong each may be. Tensors are `(data,)`, in nats."""

    estimate: Tensor  # log 1/K sum_k w_k
    standard_error: Tensor  # Monte Carlo error of the estimate
    ess: Tensor  # effective sample size, 1 to K
    pareto_k: Tensor  # tail index of the weights: above 0.7 the estimate is unreliable, whatever its error says
    elbo: Tensor  # mean log-weight: the evidence lower bound
    elbo_standard_error: Tensor  # its Monte Carlo error
    bound: Bound  # which way the estimate is off in expectation
    particles: int  # K
    method: str
    measure: str = "mass"  # whether p(x) is a probability mass or a density, by the support of what is observed
    held: str = ""  # a discrete latent of which one value alone is counted: the estimate is then a bound the more

    def summary(self) -> dict[str, float | str]:
        """Means over the data with their two errors, kept apart; nats per datum."""
        data = len(self.estimate)
        return {
            "method": self.method,
            "measure": self.measure,
            "bound": self.bound,
            "data": data,
            "particles": self.particles,
            "log_p": self.estimate.mean().item(),
            "monte_carlo_error": _error_of_mean(self.standard_error),
            "sampling_error": (self.estimate.std() / data**0.5).item() if data > 1 else float("nan"),
            "bias": -0.5 * self.standard_error.square().mean().item(),
            "elbo": self.elbo.mean().item(),
            "elbo_monte_carlo_error": _error_of_mean(self.elbo_standard_error),
            "ess": self.ess.mean().item(),
            "pareto_k_above_0.7": self._k_above() if self.particles >= 25 else float("nan"),
            "verdict": self.verdict(),
        }

    def unreliable(self) -> float:
        """Share of the data whose k-hat is above 0.7, or unknown; all of them, where a part of p(x) is left out."""
        return 1.0 if self.held else self._k_above()

    def _k_above(self) -> float:
        return (~(self.pareto_k <= 0.7)).double().mean().item()

    def verdict(self) -> str:
        """One line: can the figure be trusted?"""
        lost = int((~torch.isfinite(self.estimate)).sum())
        if lost:
            return f"unreliable: no draw had any weight for {lost} of the data"
        if self.particles < 25:
            return "unchecked: Pareto k-hat needs at least 25 particles"
        if self.held:
            return f"a lower bound: of the values of '{self.held}' one alone is counted, and the others add to log p(x)"
        share = self.unreliable()
        if share == 0:
            return "no sign of trouble: k-hat is at most 0.7 for every datum (a mode that no draw visits goes unseen)"
        if share <= 0.05:
            return f"usable: k-hat is above 0.7 for {share:.1%} of the data, whose estimates are likely too low"
        return (
            f"unreliable: k-hat is above 0.7 for {share:.0%} of the data; log p(x) is likely higher than the estimate "
            "by more than its error: more particles or a better guide would show it"
        )

    def __str__(self) -> str:
        s = self.summary()
        checked = self.particles >= 25
        share = f"{s['pareto_k_above_0.7']:.1%} of the data" if checked else "not computed"
        bias = f", bias about {s['bias']:.3f}" if checked and self.unreliable() <= 0.05 else ""
        elbo = f"{s['elbo']:.3f}  (Monte Carlo error {s['elbo_monte_carlo_error']:.3f})"
        elbo = elbo if torch.isfinite(self.elbo).any() else "none: the guide is a point mass"
        return "\n".join(
            [
                f"log p(x) = {s['log_p']:.3f} nats per datum, of a {self.measure}; a {self.bound} by {self.method}",
                f"  Monte Carlo error   {s['monte_carlo_error']:.3f}  ({self.particles} particles{bias})",
                f"  sampling error      {s['sampling_error']:.3f}  ({s['data']} data)",
                f"  ELBO                {elbo}",
                f"  ESS                 {s['ess']:.1f} of {self.particles} on average",
                f"  Pareto k-hat > 0.7  {share}",
                f"  {s['verdict']}",
            ]
        )


def importance(story: Story, data: Batch, particles: int = 1000, seed: int = 0, progress: bool = True) -> Evidence:
    """log p(x) by importance sampling with the guide as proposal: log 1/K sum_k p(x, z_k) / q(z_k | x), z_k ~ q.

    A stochastic lower bound: it is below log p(x) in expectation, and at most log 1/(1 - d) above it with probability
    d. Burda et al. 2016, https://arxiv.org/abs/1509.00519

    Every datum has random streams of its own, seeded by `seed`, the datum and how many equal ones came before it: its
    figure does not depend on which other data are estimated, nor in which order. Nothing of the story or of torch's
    global generators is changed.

    Args:
        story: any object with `model` and `guide` that keeps its data plate at dim -1.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: K, draws per datum.
        seed: of the random streams.
        progress: whether to show a bar.

    Raises:
        ValueError: particles below 1; a guide with a point mass, which is no density, or that cannot be run on one
            datum; an improper prior; data that the story cannot score; what `log_weights` raises.
    """
    batch = placed(story, data)
    with own_generators():
        check_data(story, batch)
    _check_point_mass(story, tuple(part[:1] for part in batch))
    return estimate(story, batch, log_weights, particles, seed, progress, "importance sampling from the guide")


def prior_sampling(story: Story, data: Batch, particles: int = 1000, seed: int = 0, progress: bool = True) -> Evidence:
    """log p(x) by draws from the prior: log 1/K sum_k p(x | z_k), z_k ~ p(z). The naive estimate.

    Importance sampling with the prior as proposal, so it has the same errors and diagnostics; what the guide buys is
    the difference. Arguments, streams and errors are those of `importance`.

    Raises:
        ValueError: particles below 1; an improper prior, which cannot be drawn from.
    """
    batch = placed(story, data)
    with own_generators():
        check_data(story, batch)
    return estimate(story, batch, prior_log_weights, particles, seed, progress, "sampling from the prior")


def prior_log_weights(story: Story, data: Batch, particles: int = 1) -> Tensor:
    """log w = log p(x | z) with z drawn from the model itself: `(particles, batch)`, nats."""
    batch = as_batch(data)
    try:
        trace = run(story.model, batch, particles)
    except NotImplementedError as error:
        raise NoDensity("the prior should be proper to be drawn from; this one has no sampler") from error
    return sum_sites((site for site in sample_sites(trace) if site["is_observed"]), particles, len(batch[0]))


@torch.no_grad()
def estimate(
    story: Story,
    batch: tuple[Tensor, ...],
    weigh: Callable[..., Tensor],
    particles: int,
    seed: int,
    progress: bool,
    method: str,
    proposals: tuple[Tensor, ...] = (),
) -> Evidence:
    """Weigh every datum by itself, in random streams of its own.

    Args:
        weigh: `(story, datum, particles, *proposal)` to log-weights `(particles, 1)`.
        proposals: one row a datum, which seed nothing.
    """
    if particles < 1:
        raise ValueError(f"particles should be at least 1, got {particles}")
    batch = as_seen(story, batch)  # so that what stands where a value is missing seeds nothing
    columns = []
    seen: Counter[bytes] = Counter()
    with evaluating(story), own_generators():
        measure, factors = _observed(story, tuple(part[:1] for part in batch))
        rows = range(len(batch[0]))
        for row in track(rows, method, show=progress):
            datum = tuple(part[row : row + 1] for part in batch)
            content = b"".join(part.cpu().contiguous().view(torch.uint8).numpy().tobytes() for part in datum)
            key = f"{seed} {seen[content]} ".encode() + content  # equal data have draws of their own
            seen[content] += 1
            proposal = tuple(part[row : row + 1] for part in proposals)
            log_w = _one_datum(partial(weigh, story, datum), proposal, particles, key)  # (particles, 1)
            columns.append(_reduce(log_w))
    log_p, error, ess, k, elbo, elbo_error = torch.stack(columns).unbind(-1)
    if factors:
        method += f", of a density that the factor '{factors[0]}' leaves unnormalised"
    bound: Bound = "stochastic lower bound"
    return Evidence(log_p, error, ess, k, elbo, elbo_error, bound, particles, method, measure)


def _one_datum(weigh: Callable[..., Tensor], proposal: tuple[Tensor, ...], particles: int, key: bytes) -> Tensor:
    blocks = []
    for start in range(0, particles, BLOCK):
        digest = hashlib.blake2b(f"{start} ".encode() + key, digest_size=8).digest()
        torch.manual_seed(int.from_bytes(digest, "big") >> 1)  # torch takes signed 64-bit seeds
        blocks.append(weigh(min(BLOCK, particles - start), *proposal))
    return torch.cat(blocks)


def _observed(story: Story, datum: tuple[Tensor, ...]) -> tuple[str, list[str]]:
    """Whether the observed sites have a mass or a density, and the names of the model's factors."""
    sites = check_proper(story, datum)
    factors = [site["name"] for site in sites if isinstance(site["fn"], dist.Unit)]
    observed = [site for site in sites if site["is_observed"] and site["name"] not in factors]
    measures = {_measure(site["fn"].support) for site in observed}
    return ("mass" if measures <= {"mass"} else max(measures - {"mass"}, key=len)), factors


def check_proper(story: Story, datum: tuple[Tensor, ...]) -> list[Site]:
    """The model's sites, none of which has a prior that integrates to no number."""
    guide = run(story.guide, datum, particles=1)
    sites = list(sample_sites(run(poutine.replay(story.model, trace=guide), datum, particles=1)))
    for site in sites:
        if isinstance(site["fn"], dist.ImproperUniform) and not site["is_observed"]:
            raise NoDensity(
                f"evidence needs a proper prior; that of site '{site['name']}' integrates to no number: "
                "take another, or put priors.ex_post(codes) in its place"
            )
    return sites


def _measure(support: Any) -> str:
    """Whether a support's elements have masses or densities: of a table's columns, some may have either."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    discrete = [bool(column.is_discrete) for column in getattr(support, "columns", [support])]
    if any(discrete) and not all(discrete):
        at = [str(column) for column, mass in enumerate(discrete) if mass]
        return f"density, in columns {', '.join(at)} mass"
    return "mass" if all(discrete) else "density"


def _reduce(log_w: Tensor) -> Tensor:
    log_w = log_w.double()
    elbo_error = log_w.std(dim=0) / len(log_w) ** 0.5 if len(log_w) > 1 else torch.full_like(log_w[0], torch.inf)
    reductions = [log_mean_exp(log_w), standard_error(log_w), effective_sample_size(log_w), pareto_k(log_w)]
    return torch.cat([*reductions, log_w.mean(dim=0), elbo_error])


@contextmanager
def own_generators() -> Iterator[None]:
    """Torch's global generators, on every device, come back as they were."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield


def _check_point_mass(story: Story, datum: tuple[Tensor, ...]) -> None:
    with torch.no_grad(), evaluating(story), own_generators():
        sites = list(latent_sites(run(story.guide, datum, particles=1)))
    if any(is_auxiliary(site) for site in sites):
        return  # point masses beside it carry its density
    for site in sites:
        if is_point_mass(site["fn"]):
            raise NoDensity(
                f"importance sampling needs a guide with a density; latent site '{site['name']}' has a point mass "
                "(Delta): use laplace_sampling, which widens it, prior_sampling, or a guide such as DiagonalNormal"
            )


def _error_of_mean(errors: Tensor) -> float:
    """The error of a mean of independent estimates."""
    return float((errors.square().sum().sqrt() / len(errors)).item())
