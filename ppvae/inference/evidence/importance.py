"""Evidence by importance sampling: from the guide, widened or mixed with the prior, or from the prior."""

import math
from functools import partial

import torch
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.evidence.blocks import Budget, Weigh, check_budget, estimate
from ppvae.inference.evidence.evidence import Bound, Evidence
from ppvae.inference.evidence.tally import Tally
from ppvae.inference.program.checks import check_point_mass
from ppvae.inference.program.errors import NoDensity
from ppvae.inference.program.prepared import prepared
from ppvae.inference.program.proposals import defensive_log_weights, widened_log_weights
from ppvae.inference.program.traces import as_batch, run, sample_sites
from ppvae.inference.program.weights import log_weights, sum_sites


def importance(
    story: Story,
    data: Batch,
    *,
    particles: int = 1000,
    seed: int = 0,
    progress: bool = True,
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
    task = prepared(story, data)
    check_point_mass(story, task.first)
    return estimate(task, weigh, budget, seed, progress, f"importance sampling from {how}")


def prior_sampling(
    story: Story, data: Batch, *, particles: int = 1000, seed: int = 0, progress: bool = True
) -> Evidence:
    """log p(x) by draws from the prior: log 1/K sum_k p(x | z_k), z_k ~ p(z). The naive estimate.

    Importance sampling with the prior as proposal, so it has the same errors and diagnostics; what the guide buys is
    the difference. Arguments, streams and errors are those of `importance`.

    Raises:
        ValueError: particles below 1; an improper prior, which cannot be drawn from.
    """
    task = prepared(story, data)
    return estimate(task, prior_log_weights, Budget(particles), seed, progress, "sampling from the prior")


def upper_bound(
    story: Story, data: Batch, *, particles: int = 1000, seed: int = 0, progress: bool = True, order: float = 2.0
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
    task = prepared(story, data)
    check_point_mass(story, task.first)
    method = f"the moment of order {order:g} of the weights of the guide (CUBO)"

    bound: Bound = "upper bound, estimated from below"
    moments = partial(_Moments, order)
    return estimate(task, log_weights, Budget(particles), seed, progress, method, tally=moments, bound=bound)


class _Moments:
    """What `upper_bound` makes of log-weights: the figures of their n-th powers, beside their own ELBO."""

    def __init__(self, order: float, particles: int):
        self.order, self.plain, self.powers = order, Tally(particles), Tally(particles)

    def add(self, log_w: Tensor) -> None:
        self.plain.add(log_w)
        self.powers.add(self.order * log_w.double())

    def figures(self) -> Tensor:
        found = self.powers.figures()
        found[:2] /= self.order
        found[4:6] = self.plain.figures()[4:6]
        return found


@torch.no_grad()
def draws(story: Story, data: Batch, particles: int = 1000, seed: int = 0, progress: bool = True) -> Tensor:
    """The very log-weights, `(particles, data)` nats, that `importance` with the same arguments reduces to figures."""
    task = prepared(story, data)
    check_point_mass(story, task.first)
    kept: list[_Kept] = []

    def keep(count: int) -> _Kept:
        kept.append(_Kept(count))
        return kept[-1]

    estimate(task, log_weights, Budget(particles), seed, progress, "log-weights", tally=keep)
    return torch.cat([torch.cat(one.blocks) for one in kept], dim=1)


class _Kept(Tally):
    """A tally that keeps what it is given."""

    def __init__(self, particles: int):
        super().__init__(particles)
        self.blocks: list[Tensor] = []

    def add(self, log_w: Tensor) -> Tally:
        self.blocks.append(log_w)
        return super().add(log_w)


def prior_log_weights(story: Story, data: Batch, particles: int = 1) -> Tensor:
    """log w = log p(x | z) with z drawn from the model itself: `(particles, batch)`, nats."""
    batch = as_batch(data)
    try:
        trace = run(story.model, batch, particles)
    except NotImplementedError as error:
        raise NoDensity("the prior should be proper to be drawn from; this one has no sampler") from error
    return sum_sites((site for site in sample_sites(trace) if site["is_observed"]), particles, len(batch[0]))


def _proposal(widening: float, defensive: float) -> tuple[Weigh, str]:
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
