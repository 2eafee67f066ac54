"""Where a bound loses what it loses: the family of the guide, its amortisation, and data that it was not fitted to."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch import distributions as torch_dist

from ppvae.base import Batch, Story
from ppvae.inference.evidence.blocks import Budget, estimate
from ppvae.inference.evidence.evidence import Evidence, error_of_mean
from ppvae.inference.evidence.flow import mixture_sampling
from ppvae.inference.posteriors.local import LocalNormal, fit_normals
from ppvae.inference.posteriors.local_flow import LocalFlow, fit_flows, weigh_flow, weigh_normal
from ppvae.inference.program.answers import Answer
from ppvae.inference.program.checks import check_point_mass, check_proper
from ppvae.inference.program.prepared import prepared
from ppvae.inference.program.streams import own_generators
from ppvae.inference.program.traces import evaluating, latent_sites, run
from ppvae.inference.program.unconstrained import check_guide_density, unconstrain
from ppvae.inference.program.weights import log_weights

Family = Literal["diagonal", "full", "flow"]
RESOLVED = 2.0  # standard errors that a difference should be away from 0


class Difference(NamedTuple):
    """A mean difference, nats per datum, and its standard error."""

    name: str
    mean: float
    error: float

    @property
    def resolved(self) -> bool:
        """Whether it is 2 standard errors or more away from 0."""
        return abs(self.mean) >= RESOLVED * self.error

    def summary(self) -> dict[str, Any]:
        return {"mean": self.mean, "standard_error": self.error, "resolved": self.resolved}

    def __str__(self) -> str:
        said = f"{self.name} {self.mean:.3f} ± {self.error:.3f}"
        return said if self.resolved else f"{said}, unresolved"


@dataclass(frozen=True)
class Gaps(Answer):
    """log p(x) of every datum and bounds on it, `(data,)` nats, by one decoder and ever better inference."""

    log_p: Evidence  # the best certified estimate
    flow: Evidence  # `.elbo`: of a flow fitted to each datum
    full: Evidence  # of a Normal of any covariance, fitted to each
    diagonal: Evidence  # of a diagonal one
    amortised: Evidence  # of the guide
    family: Family  # which of these holds the guide's own answers

    @property
    def local(self) -> Tensor:
        """The best ELBO in the guide's own family: `(data,)` nats."""
        return getattr(self, self.family).elbo

    @property
    def approximation(self) -> Tensor:
        """log p(x) - max_q L[q] over the guide's family."""
        return self.log_p.estimate - self.local

    @property
    def amortisation(self) -> Tensor:
        """max_q L[q] - L[q(z | x)]: what sharing one encoder costs."""
        return self.local - self.amortised.elbo

    @property
    def inference(self) -> Tensor:
        """log p(x) - L[q(z | x)]: both."""
        return self.log_p.estimate - self.amortised.elbo

    @property
    def beyond_flow(self) -> Tensor:
        """log p(x) - L of a flow for each datum: what no family here reaches."""
        return self.log_p.estimate - self.flow.elbo

    def levels(self) -> list[Difference]:
        """log p(x) and the bounds below it, means over the data, with the error that they have from their draws."""
        rows = [Difference("log p(x)", self.log_p.estimate.mean().item(), error_of_mean(self.log_p.standard_error))]
        for name, evidence in self.bounds().items():
            error = error_of_mean(evidence.elbo_standard_error)
            rows.append(Difference(name, evidence.elbo.mean().item(), error))
        return rows

    def bounds(self) -> dict[str, Evidence]:
        return {
            "local flow ELBO": self.flow,
            "local full ELBO": self.full,
            "local diagonal ELBO": self.diagonal,
            "amortised ELBO": self.amortised,
        }

    def differences(self) -> list[Difference]:
        """The gaps, means over the data, with paired errors: those of a mean of differences, draws and data both."""
        named = {
            "approximation gap": self.approximation,
            "amortisation gap": self.amortisation,
            "inference gap": self.inference,
            "beyond a local flow": self.beyond_flow,
        }
        return [paired(name, values, self._noise(name)) for name, values in named.items()]

    def summary(self) -> dict[str, Any]:
        """Levels and gaps, means over the data with their errors, nats per datum."""
        rows = {row.name: row.summary() for row in [*self.levels(), *self.differences()]}
        return {"family": self.family, "data": len(self.log_p.estimate), **rows}

    def columns(self) -> dict[str, Sequence[Any]]:
        """A row for each datum: log p(x), every ELBO, their Monte Carlo errors, k-hat."""
        log_p = self.log_p
        columns = {"log_p": log_p.estimate, "log_p_error": log_p.standard_error, "pareto_k": log_p.pareto_k}
        for name, evidence in self.bounds().items():
            short = name.replace(" ELBO", "").replace(" ", "_")
            columns |= {f"{short}_elbo": evidence.elbo, f"{short}_elbo_error": evidence.elbo_standard_error}
        return {"datum": range(len(log_p.estimate)), **{name: values.tolist() for name, values in columns.items()}}

    def _noise(self, name: str) -> float:
        """The error that one difference has from its draws alone: for a single datum."""
        log_p, best = self.log_p.standard_error, getattr(self, self.family).elbo_standard_error
        guide, flow = self.amortised.elbo_standard_error, self.flow.elbo_standard_error
        pair = {
            "approximation gap": (log_p, best),
            "amortisation gap": (best, guide),
            "inference gap": (log_p, guide),
        }.get(name, (log_p, flow))
        return error_of_mean((pair[0].square() + pair[1].square()).sqrt())

    def __str__(self) -> str:
        return "\n".join(str(row) for row in [*self.levels(), *self.differences()])


def paired(name: str, values: Tensor, noise: float = math.nan) -> Difference:
    """The mean of per-datum differences; its error by their spread, or of one datum by its draws."""
    values = values.double()
    error = (values.std() / len(values) ** 0.5).item() if len(values) > 1 else noise
    return Difference(name, values.mean().item(), error)


@dataclass(frozen=True)
class Generalisation(Answer):
    """How far a level or a gap on the training data is from the same on the test data."""

    differences: list[Difference]

    def summary(self) -> dict[str, Any]:
        return {row.name: row.summary() for row in self.differences}

    def columns(self) -> dict[str, Sequence[Any]]:
        """A row for each difference."""
        rows = self.differences
        return {
            "name": [row.name for row in rows],
            "mean": [row.mean for row in rows],
            "standard_error": [row.error for row in rows],
            "resolved": [row.resolved for row in rows],
        }

    def __str__(self) -> str:
        return "\n".join(f"train - test: {row}" for row in self.differences)


def generalisation(train: Gaps, test: Gaps) -> Generalisation:
    """Train less test: of log p(x), of the amortised ELBO, and of each gap; the data differ, so the errors add up.

    What the decoder has overfitted shows in log p(x), what the encoder has in the amortisation gap. Cremer et al. 2018,
    section 5.4, https://arxiv.org/abs/1801.03558
    """
    found = []
    pairs = {
        "log p(x)": (train.log_p.estimate, test.log_p.estimate),
        "amortised ELBO": (train.amortised.elbo, test.amortised.elbo),
        "approximation gap": (train.approximation, test.approximation),
        "amortisation gap": (train.amortisation, test.amortisation),
        "inference gap": (train.inference, test.inference),
    }
    for name, (seen, unseen) in pairs.items():
        one, other = paired(name, seen), paired(name, unseen)
        found.append(Difference(name, one.mean - other.mean, math.hypot(one.error, other.error)))
    return Generalisation(found)


def gaps(
    story: Story,
    data: Batch,
    *,
    particles: int = 1000,
    num_steps: int = 400,
    num_flow_steps: int = 600,
    family: Family | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Gaps:
    """The gaps of inference on a decoder that stays as it is, for every datum.

        log p(x) - L[q(z | x)] = (log p(x) - max_q L[q]) + (max_q L[q] - L[q(z | x)])
                                  approximation gap          amortisation gap

    with the maximum over the guide's own family, found for each datum by itself. As it is found by ascent, the first is
    at most, and the second at least, what is said here. log p(x) is by importance sampling from a flow, a Normal and
    the guide in equal parts, a stochastic lower bound, so the first is too small by its bias. Figures are of fresh
    draws, which no fit has seen. Cremer et al. 2018, https://arxiv.org/abs/1801.03558

    Args:
        story: any object with `model` and `guide` whose latents are continuous.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: draws per datum, of log p(x) and of each ELBO.
        num_steps: of the ascent of a Normal, at most.
        num_flow_steps: of that of a flow.
        family: which the guide's answers lie in: `diagonal`, `full` or `flow`; by the guide where it is left out.
        seed: of the random streams, each datum its own.
        progress: whether to show bars.

    Raises:
        ValueError: options out of range; a latent that is discrete, lies on a curved set or outside the data plate; a
            guide that is a point mass; an improper prior.
    """
    if particles < 25:
        raise ValueError(f"particles should be at least 25, so that k-hat can be told, got {particles}")
    if family not in (None, "diagonal", "full", "flow"):
        raise ValueError(f"family should be diagonal, full or flow, got {family}")
    task = prepared(story, data)
    check_proper(story, task.first)
    check_point_mass(story, task.first)
    with own_generators(), torch.no_grad():
        flat = unconstrain(story, task.batch, "a gap")
        check_guide_density(story, task.first)
        family = family or family_of(story, task.first)
    fit: Any = partial(
        fit_normals, story, task, num_steps=num_steps, particles=16, seed=seed, progress=progress, tolerance=0.002
    )
    normals = {covariance: fit(covariance=covariance) for covariance in ("full", "diagonal")}
    flow = fit_flows(story, task, num_steps=num_flow_steps, seed=seed, progress=progress, start=normals["full"])

    def bound(weigh: Any, name: str, proposal: LocalNormal | LocalFlow | tuple[Tensor, ...]) -> Evidence:
        return estimate(task, weigh, Budget(particles), seed, progress, name, tuple(proposal))

    by_normal = partial(weigh_normal, flat=flat)
    return Gaps(
        mixture_sampling(task, flow, normals["full"], Budget(particles), seed, progress),
        bound(partial(weigh_flow, flat=flat), "a flow for every datum", flow),
        bound(by_normal, "a Normal for every datum", normals["full"]),
        bound(by_normal, "a diagonal Normal for every datum", normals["diagonal"]),
        bound(log_weights, "the guide", ()),
        family,
    )


def family_of(story: Story, datum: tuple[Tensor, ...]) -> Family:
    """The smallest family that holds the guide's answers: of one site that is a Normal; else flows, for want of it."""
    with torch.no_grad(), evaluating(story):
        bases = list(_bases(story, datum))
    if len(bases) == 1 and isinstance(bases[0], torch_dist.Normal):
        return "diagonal"
    if len(bases) == 1 and isinstance(bases[0], torch_dist.MultivariateNormal | torch_dist.LowRankMultivariateNormal):
        return "full"
    return "flow"


def _bases(story: Story, datum: tuple[Tensor, ...]) -> Iterator[Any]:
    for site in latent_sites(run(story.guide, datum, particles=1)):
        fn = site["fn"]
        while isinstance(fn, torch_dist.Independent) or type(fn).__name__ in {
            "MaskedDistribution",
            "ExpandedDistribution",
        }:
            fn = fn.base_dist
        yield fn
