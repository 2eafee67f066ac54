"""Every estimator of log p(x), its errors and its diagnostics, where log p(x) is known."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppvae.base import Batch
from ppvae.inference import (
    Evidence,
    annealed,
    bidirectional,
    exact,
    flow_sampling,
    importance,
    laplace_evidence,
    laplace_sampling,
    prior_sampling,
    refined_sampling,
    upper_bound,
)
from ppvae.inference.evidence.blocks import LEAST
from ppvae.models.missing import masked
from ppvae.selfcheck.analytic import Enumerable, LinearGaussian, TwoLayers
from ppvae.selfcheck.checks import LIMIT, Check, against, at_least, equal

Estimator = Callable[..., Evidence]
WIDEN, SHIFT = 1.3, 0.1  # of the guides, about the exact posterior


class Case(NamedTuple):
    """A story, data, and their log p(x)."""

    name: str
    story: Any
    data: Batch
    truth: Tensor


def cases() -> list[Case]:
    """The stories whose evidence is known."""
    known, two, discrete = LinearGaussian(), TwoLayers(widen=1.2), Enumerable()
    x, y = known.data(60), torch.linspace(-2, 3, 40).double()
    x_two, hidden = two.data(40), known.data(40, seed=2)
    hidden[torch.rand(hidden.shape, generator=torch.Generator().manual_seed(0)) < 0.3] = torch.nan
    return [
        Case("linear-Gaussian", known.story(WIDEN, SHIFT), x, known.log_evidence(x)),
        Case("enumerable", discrete, y, discrete.log_evidence(y).detach()),
        Case("two layers", two, x_two, two.log_evidence(x_two)),
        Case("masked data", known.story(2.0), masked(hidden), known.log_evidence(*masked(hidden))),
    ]


ANYWHERE: dict[str, Estimator] = {
    "importance, K = 10": partial(importance, particles=10),
    "importance, K = 300": partial(importance, particles=300),
    "importance, K = 5000": partial(importance, particles=5000),  # two blocks
    "importance, defensive": partial(importance, particles=1000, defensive=0.2),
    "importance to an error of 0.05": partial(importance, particles=100, target_error=0.05),
    "prior_sampling": partial(prior_sampling, particles=5000),
}
WHERE_GRADIENTS_ARE: dict[str, Estimator] = {
    "importance, widened": partial(importance, particles=1000, widening=1.2),
    "refined_sampling": partial(refined_sampling, particles=300, num_steps=60),
    "flow_sampling": partial(flow_sampling, particles=300, num_steps=60),
    "laplace_sampling": partial(laplace_sampling, particles=300),
    "annealed from the guide": partial(annealed, num_temperatures=20, schedule="linear", num_leapfrog_steps=5),
    "annealed from the prior": partial(annealed, num_temperatures=40, start="prior", num_leapfrog_steps=5),
}


def evidence_checks(seed: int = 0) -> Iterator[Check]:
    """Every estimator on every story that it is for: is exp(estimate) unbiased for p(x), and are its errors right?"""
    for case in cases():
        smooth = case.name != "enumerable"
        yield equal("evidence", case.name, "exact", exact(case.story, case.data, progress=False).estimate, case.truth)
        for what, estimator in (ANYWHERE | WHERE_GRADIENTS_ARE if smooth else ANYWHERE).items():
            evidence = estimator(case.story, case.data, seed=seed, progress=False)
            yield unbiased("evidence", case, what, evidence.estimate - case.truth, evidence)
            if int(evidence.particles.min()) >= LEAST:  # fewer cannot tell their own error
                yield calibrated(case, what, evidence)
    case = cases()[0]
    found = laplace_evidence(case.story, case.data, progress=False)
    yield equal("evidence", case.name, "laplace_evidence", found.estimate, case.truth)


def unbiased(kind: str, case: Case, what: str, log_ratio: Tensor, evidence: Evidence) -> Check:
    """log p(x) and its truth; z tells whether the ratio of p(x) to its truth is 1 on average, as it should be."""
    ratio = torch.expm1(log_ratio)
    z = (ratio.mean() / (ratio.std() / len(ratio) ** 0.5)).item()
    error = float(evidence.summary()["monte_carlo_error"])
    found = against(kind, case.name, what, z, 0.0, 1.0)  # the spread over data is the error, not what is reported
    return Check(
        kind, case.name, what, evidence.estimate.mean().item(), case.truth.mean().item(), error, z, found.passed
    )


def calibrated(case: Case, what: str, evidence: Evidence) -> Check:
    """The errors that are reported, by the mean square of (estimate - truth) / error: 1, if they are right.

    Its own error is from its spread, in proportion, and at least that of normal errors; z is of its cube root, which is
    nearly normal for a sum of squares: so errors that are too large are told as well as those that are too small.
    """
    squares = ((evidence.estimate - case.truth) / evidence.standard_error).square()
    mean = squares.mean().item()
    error = max((squares.std() / mean).item(), 2**0.5) / len(squares) ** 0.5
    z = 3 * (mean ** (1 / 3) - 1) / error
    return Check("its error", case.name, what, mean, 1.0, mean * error, z, abs(z) <= LIMIT)


def bound_checks(seed: int = 0) -> Iterator[Check]:
    """Bounds from below and above that are no estimates of log p(x): the ELBO, CUBO and both ways of annealing."""
    known = LinearGaussian()
    x = known.data(60)
    story, truth = known.story(WIDEN, SHIFT), known.log_evidence(known.data(60))
    evidence = importance(story, x, particles=1000, seed=seed, progress=False)
    elbo = truth.mean().item() - known.gap(WIDEN, SHIFT)
    summary = evidence.summary()
    yield against(
        "bound", "linear-Gaussian", "ELBO", float(summary["elbo"]), elbo, float(summary["elbo_monte_carlo_error"])
    )
    above = upper_bound(story, x, particles=5000, seed=seed, progress=False)
    cubo, error = truth.mean().item() + known.moment_gap(WIDEN, SHIFT), float(above.summary()["monte_carlo_error"])
    yield against("bound", "linear-Gaussian", "upper_bound", above.estimate.mean().item(), cubo, error)
    both = bidirectional(story, x, num_temperatures=30, start="prior", num_leapfrog_steps=5, seed=seed, progress=False)
    case = Case("linear-Gaussian", story, both.x, known.log_evidence(both.x))
    yield unbiased("bound", case, "bidirectional, lower", both.lower.estimate - case.truth, both.lower)
    yield unbiased("bound", case, "bidirectional, upper", case.truth - both.upper.estimate, both.upper)


def flag_checks(seed: int = 0) -> Iterator[Check]:
    """A proposal that is far too narrow must be flagged, and a good one must not."""
    known = LinearGaussian()
    x = known.data(30)
    narrow, good = (
        importance(known.story(widen), x, particles=5000, seed=seed, progress=False) for widen in (0.25, 1.2)
    )
    said = float(narrow.verdict().startswith("unreliable"))
    share = narrow.unreliable()  # k is 0.94 +- 0.15
    yield at_least("flag", "linear-Gaussian", "too narrow: share flagged", share, 0.7)
    yield at_least("flag", "linear-Gaussian", "too narrow: the verdict says so", said, 1.0)
    yield at_least("flag", "linear-Gaussian", "good: share not flagged", 1 - good.unreliable(), 0.9)
