"""Every datum weighed by itself, in random streams of its own, block by block of particles."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ppvae.base import Story
from ppvae.compilation.steps import Steps
from ppvae.inference.evidence.evidence import Bound, Evidence, assemble
from ppvae.inference.evidence.tally import Tally
from ppvae.inference.program.checks import hot_loop, observed, of_factors
from ppvae.inference.program.prepared import Prepared
from ppvae.inference.program.streams import begin_stream, own_generators
from ppvae.inference.program.traces import evaluating, networks_of
from ppvae.progress import track

BLOCK = 4096
"""Particles that are drawn from one random stream and weighed at once, at most."""

MEMORY = 2**28
"""Bytes that the tensors of one block may take, all operators together: a story that needs more has smaller blocks."""

UNIT = 1024  # adaptive counts above it are a multiple, and below it a power of 2: there are few sizes, so few graphs
LEAST = 100  # particles of any adaptive estimate: enough to tell k-hat by
SAFETY = 3.0  # a pilot of n draws asks for 1 + 3 / sqrt n times what it says is needed: its own error is in that number

Weigh = Callable[..., Tensor]
"""`(story, datum, *proposal, particles=)` to log-weights `(particles, 1)`, as `log_weights` does."""


class Budget(NamedTuple):
    """How many particles a datum is given: K of them; or, with a target, as many as a pilot of K says it needs."""

    particles: int
    target_error: float | None = None
    max_particles: int = 1_000_000


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


@torch.no_grad()
def estimate(
    task: Prepared,
    weigh: Weigh,
    budget: Budget,
    seed: int,
    progress: bool,
    method: str,
    proposals: tuple[Tensor, ...] = (),
    tally: Callable[[int], Any] = Tally,
    bound: Bound = "stochastic lower bound",
) -> Evidence:
    """The figures of every datum's log-weights; of these themselves no more than a block is kept.

    Blocks are weighed as ordinary Python, by a graph, or compiled, whichever ends first: the draws are the same, and
    the figures but for the rounding of the arithmetic.

    Args:
        task: the story and its data.
        weigh: see `Weigh`.
        proposals: one row a datum, which seed nothing.
        tally: of how many log-weights, to what is given them block by block and has `figures` in the order of
            `COLUMNS`.
    """
    check_budget(budget)
    with evaluating(task.story), own_generators():
        measure, factors = observed(task.story, task.first)
        drawing = _Drawing(task.story, weigh, budget, [*task.batch, *proposals], len(task.batch))
        found = []
        for row, key in track(list(enumerate(task.keys(seed))), method, show=progress):
            drawing.place(row, key)
            particles = needed(drawing.pilot, budget)
            found.append(drawing.into(tally(particles), particles).figures())
    figures, method = torch.cat(found, dim=1).T, method + of_factors(factors)
    return assemble(figures, bound, method, measure=measure, target_error=budget.target_error)


class _Drawing:
    """Log-weights of one datum after another."""

    def __init__(self, story: Story, weigh: Weigh, budget: Budget, tensors: Sequence[Tensor], parts: int):
        self.story, self.weigh, self.budget, self.tensors, self.parts = story, weigh, budget, tensors, parts
        self.ways: dict[int, Steps] = {}  # by the size of a block
        first = [tensor[:1] for tensor in tensors]
        few, more = (_allocated(partial(self._weighed, particles, *first)) for particles in (2, 4))
        fitting = 2 ** int(math.log2(max(1, 2 * MEMORY / max(1, more - few))))
        self.most = min(fitting, BLOCK if budget.target_error is None else UNIT)

    def place(self, row: int, key: bytes) -> None:
        """The datum whose turn it is."""
        self.datum, self.key = [tensor[row : row + 1] for tensor in self.tensors], key

    def into(self, tally: Any, particles: int, of: str = "") -> Any:
        """Draw so many, and add them up; `of` names streams of their own."""
        start = 0
        for size in sizes(particles, self.most):
            begin_stream(self.key, f"{of}{start}")
            tally.add(self._block(size))
            start += size
        return tally

    def pilot(self, particles: int, of: str) -> float:
        """The Monte Carlo error that so many particles have."""
        return float(self.into(Tally(particles), particles, of).standard_error())

    def _block(self, size: int) -> Tensor:
        if size not in self.ways:
            often = sizes(self.budget.particles, self.most).count(size) if self.budget.target_error is None else 1
            left = max(1, often) * len(self.tensors[0])
            weighed = partial(self._weighed, size)
            self.ways[size] = Steps(weighed, networks_of(self.story), left=left, backward=False)
        with hot_loop():
            return self.ways[size](*self.datum)

    def _weighed(self, particles: int, *tensors: Tensor) -> Tensor:
        return self.weigh(self.story, tensors[: self.parts], *tensors[self.parts :], particles=particles)


def needed(pilot: Callable[[int, str], float], budget: Budget) -> int:
    """How many particles a datum needs, by pilots that grow until they are a tenth of what they ask for.

    Args:
        pilot: how many particles, and what names their streams, to their error.
    """
    if budget.target_error is None:
        return budget.particles
    count, round_ = min(budget.particles, budget.max_particles), 0
    while True:
        error = pilot(count, f"pilot {round_} ")
        share = (error / budget.target_error) ** 2 if math.isfinite(error) else math.inf
        wanted = (1 + SAFETY / count**0.5) * share * count
        if wanted <= 10 * count or 10 * count >= budget.max_particles:
            return rounded(max(wanted, LEAST), budget.max_particles)
        count, round_ = rounded(max(count + 1, min(wanted / 10, 10 * count)), budget.max_particles), round_ + 1


def sizes(particles: int, most: int) -> list[int]:
    """Blocks as equal as can be: each size has a graph of its own.

    >>> sizes(5000, 4096)
    [2500, 2500]
    """
    count = -(-particles // most)
    size = -(-particles // count)
    return [min(size, particles - start) for start in range(0, particles, size)]


def rounded(particles: float, most: int) -> int:
    """At least so many, of few sizes: powers of 2, and multiples of `UNIT`; and never more than `most`.

    >>> rounded(100, 1_000_000), rounded(1025, 1_000_000), rounded(1025, 2000)
    (128, 2048, 2000)
    """
    if particles >= most:
        return most
    if particles <= UNIT:
        return min(most, 2 ** math.ceil(math.log2(particles)))
    return min(most, UNIT * math.ceil(particles / UNIT))


class _Allocating(TorchDispatchMode):
    """Bytes of all that operators return, but for views."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        if not any(returned.alias_info for returned in func._schema.returns):
            for result in results if isinstance(results, list | tuple) else [results]:
                if isinstance(result, Tensor):
                    self.total += result.numel() * result.element_size()
        return results


def _allocated(call: Callable[[], Tensor]) -> int:
    with _Allocating() as mode:
        call()
    return mode.total
