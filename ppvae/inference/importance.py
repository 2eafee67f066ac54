"""Evidence by importance sampling: from the guide, widened or mixed with the prior, or from the prior."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.checks import check_data
from ppvae.inference.evidence import Bound, Evidence, NoDensity, assemble, reduce
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
from ppvae.inference.proposals import defensive_log_weights, widened_log_weights
from ppvae.inference.streams import keys, own_generators, stream_seed
from ppvae.inference.weights import log_weights, standard_error, sum_sites
from ppvae.progress import track

BLOCK = 4096
"""Particles drawn from one random stream and evaluated at once. It bounds the memory, whatever the particle count."""

LEAST = 100  # particles of any adaptive estimate: enough to tell k-hat by
SAFETY = 3.0  # a pilot of n draws asks for 1 + 3 / sqrt n times what it says is needed: its own error is in that number


class Budget(NamedTuple):
    """How many particles a datum is given: K of them; or, with a target, as many as a pilot of K says it needs."""

    particles: int
    target_error: float | None = None
    max_particles: int = 1_000_000


def importance(
    story: Story,
    data: Batch,
    particles: int = 1000,
    seed: int = 0,
    progress: bool = True,
    *,
    widening: float = 1.0,
    defensive: float = 0.0,
    target_error: float | None = None,
    max_particles: int = 1_000_000,
) -> Evidence:
    """log p(x) by importance sampling with the guide as proposal: log 1/K sum_k p(x, z_k) / q(z_k | x), z_k ~ q.

    A stochastic lower bound: it is below log p(x) in expectation, and at most log 1/(1 - d) above it with probability
    d. Burda et al. 2016, https://arxiv.org/abs/1509.00519

    Every datum has random streams of its own, seeded by `seed`, the datum and how many equal ones came before it: its
    figure does not depend on which other data are estimated, nor in which order. Nothing of the story or of torch's
    global generators is changed.

    Where the guide is too narrow, a safer proposal is made of it: `widening` stretches it about its mean, and with
    `defensive` a share of the draws is from the prior, q = (1 - a) q(z | x) + a p(z), which bounds every weight by
    p(x | z) / a. Hesterberg 1995, https://doi.org/10.1080/00401706.1995.10484303

    With `target_error` a datum gets as many particles as it needs for that Monte Carlo error. Pilots of its own say how
    many: draws that were looked at to decide are not used again, since stopping when an error looks small would bias
    the figure.

    Args:
        story: any object with `model` and `guide` that keeps its data plate at dim -1.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: K, draws per datum; of the first pilot, where there is a target.
        seed: of the random streams.
        progress: whether to show a bar.
        widening: of the guide's standard deviations.
        defensive: share of the draws that come from the prior.
        target_error: nats per datum.
        max_particles: for one datum, where there is a target.

    Raises:
        ValueError: particles below 1, other options out of range; a guide with a point mass, which is no density, or
            that cannot be run on one datum; an improper prior; data that the story cannot score; what `log_weights`
            raises.
    """
    budget = check_budget(Budget(particles, target_error, max_particles))
    weigh, how = _proposal(widening, defensive)
    batch = placed(story, data)
    with own_generators():
        check_data(story, batch)
    check_point_mass(story, tuple(part[:1] for part in batch))
    return estimate(story, batch, weigh, budget, seed, progress, f"importance sampling from {how}")


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
    return estimate(story, batch, prior_log_weights, Budget(particles), seed, progress, "sampling from the prior")


def upper_bound(
    story: Story, data: Batch, particles: int = 1000, seed: int = 0, progress: bool = True, order: float = 2.0
) -> Evidence:
    """An upper bound on log p(x), for real data: CUBO_n = 1/n log E_q[(p(x, z) / q(z | x))^n] >= log p(x) for n >= 1.

    It needs the n-th moment of the weights, and its estimate, 1/n log 1/K sum_k w_k^n, is biased low: so it says how
    heavy the weights are rather than certifying anything, unless its error and its k-hat (that of w^n, n times that of
    w) are small. `bidirectional` has an upper bound that holds in expectation, for simulated data. Dieng et al. 2017,
    https://arxiv.org/abs/1611.00328

    Arguments, streams and errors are those of `importance`; the log-weights are the very same.

    Args:
        order: n.
    """
    if not 1 < order < math.inf:
        raise ValueError(f"order should be above 1 and finite, got {order}")
    batch = placed(story, data)
    with own_generators():
        check_data(story, batch)
    check_point_mass(story, tuple(part[:1] for part in batch))
    method = f"the moment of order {order:g} of the weights of the guide (CUBO)"

    def figures(log_w: Tensor) -> Tensor:
        found = reduce(order * log_w)
        plain = reduce(log_w)
        found[:2] /= order
        found[4:6] = plain[4:6]  # the ELBO beside it is the weights' own
        return found

    bound: Bound = "upper bound, estimated from below"
    return estimate(story, batch, log_weights, Budget(particles), seed, progress, method, figures=figures, bound=bound)


@torch.no_grad()
def draws(story: Story, data: Batch, particles: int = 1000, seed: int = 0, progress: bool = True) -> Tensor:
    """The very log-weights, `(particles, data)` nats, that `importance` with the same arguments reduces to figures."""
    batch = placed(story, data)
    with own_generators():
        check_data(story, batch)
    check_point_mass(story, tuple(part[:1] for part in batch))
    columns = []

    def kept(log_w: Tensor) -> Tensor:
        columns.append(log_w)
        return reduce(log_w)

    estimate(story, batch, log_weights, Budget(particles), seed, progress, "log-weights", figures=kept)
    return torch.cat(columns, dim=1)


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
    budget: Budget,
    seed: int,
    progress: bool,
    method: str,
    proposals: tuple[Tensor, ...] = (),
    figures: Callable[[Tensor], Tensor] = reduce,
    bound: Bound = "stochastic lower bound",
) -> Evidence:
    """Weigh every datum by itself, in random streams of its own.

    Args:
        weigh: `(story, datum, particles, *proposal)` to log-weights `(particles, 1)`.
        proposals: one row a datum, which seed nothing.
        figures: log-weights of a datum to the figures of `COLUMNS`.
    """
    check_budget(budget)
    batch = as_seen(story, batch)  # so that what stands where a value is missing seeds nothing
    with evaluating(story), own_generators():
        measure, factors = observed(story, tuple(part[:1] for part in batch))
        found = []
        for row, key in track(list(enumerate(keys(batch, seed))), method, show=progress):
            datum = tuple(part[row : row + 1] for part in batch)
            proposal = tuple(part[row : row + 1] for part in proposals)
            one = partial(_draw, partial(weigh, story, datum), proposal, key)
            found.append(figures(one(_needed(one, budget))))
    return assemble(
        torch.stack(found), bound, method + of_factors(factors), measure=measure, target_error=budget.target_error
    )


def _needed(draw: Callable[..., Tensor], budget: Budget) -> int:
    """How many particles a datum needs, by pilots that grow until they are a tenth of what they ask for."""
    if budget.target_error is None:
        return budget.particles
    pilot, round_ = min(budget.particles, budget.max_particles), 0
    while True:
        error = standard_error(draw(pilot, f"pilot {round_} ").double()).item()
        share = (error / budget.target_error) ** 2 if math.isfinite(error) else math.inf
        needed = (1 + SAFETY / pilot**0.5) * share * pilot
        if needed <= 10 * pilot or 10 * pilot >= budget.max_particles:
            return int(min(max(needed, LEAST), budget.max_particles))
        pilot, round_ = max(pilot + 1, int(min(needed / 10, 10 * pilot))), round_ + 1


def _draw(
    weigh: Callable[..., Tensor], proposal: tuple[Tensor, ...], key: bytes, particles: int, of: str = ""
) -> Tensor:
    """Log-weights of one datum, `(particles, 1)`, block by block from streams of their own."""
    blocks = []
    for start in range(0, particles, BLOCK):
        torch.manual_seed(stream_seed(key, f"{of}{start}"))
        blocks.append(weigh(min(BLOCK, particles - start), *proposal))
    return torch.cat(blocks)


def _proposal(widening: float, defensive: float) -> tuple[Callable[..., Tensor], str]:
    """How to weigh, and from what, in words."""
    if not 0 < widening < math.inf:
        raise ValueError(f"widening should be positive and finite, got {widening}")
    if not 0 <= defensive < 1:
        raise ValueError(f"defensive should be a share from 0 to below 1, got {defensive}")
    if defensive and widening != 1:
        raise ValueError("a proposal should be widened or defensive, got both: leave one of them out")
    if defensive:
        mixed = partial(defensive_log_weights, share=defensive)
        return mixed, f"the guide, with a defensive share of {defensive:g} from the prior"
    if widening != 1:
        return partial(widened_log_weights, widening=widening), f"the guide, {widening:g} times as wide"
    return log_weights, "the guide"


def check_budget(budget: Budget) -> Budget:
    if budget.particles < 1:
        raise ValueError(f"particles should be at least 1, got {budget.particles}")
    if budget.target_error is not None:
        if not 0 < budget.target_error < math.inf:
            raise ValueError(f"target_error should be positive and finite, got {budget.target_error}")
        if budget.max_particles < LEAST or budget.particles < 2:
            raise ValueError(
                f"a target needs pilots of at least 2 particles and max_particles of at least {LEAST}, got "
                f"{budget.particles} and {budget.max_particles}"
            )
    return budget


def observed(story: Story, datum: tuple[Tensor, ...]) -> tuple[str, list[str]]:
    """Whether the observed sites have a mass or a density, and the names of the model's factors."""
    sites = check_proper(story, datum)
    factors = [site["name"] for site in sites if isinstance(site["fn"], dist.Unit)]
    seen = [site for site in sites if site["is_observed"] and site["name"] not in factors]
    measures = {_measure(site["fn"].support) for site in seen}
    return ("mass" if measures <= {"mass"} else max(measures - {"mass"}, key=len)), factors


def of_factors(factors: list[str]) -> str:
    """What a method's name ends in, where the model has factors."""
    return f", of a density that the factor '{factors[0]}' leaves unnormalised" if factors else ""


def check_proper(story: Story, datum: tuple[Tensor, ...]) -> list[Site]:
    """The model's sites, none of which has a prior that integrates to no number."""
    with torch.no_grad(), evaluating(story), own_generators():
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


def check_point_mass(story: Story, datum: tuple[Tensor, ...]) -> None:
    """Refuse a guide with no density as a proposal."""
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
