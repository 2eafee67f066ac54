"""Annealed importance sampling: log p(x) by many small steps from the prior, or the guide, to the posterior."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.evidence.evidence import Evidence, assemble
from ppvae.inference.evidence.tally import reduce
from ppvae.inference.posteriors.hmc import adapt, transition
from ppvae.inference.program.checks import observed, of_factors
from ppvae.inference.program.prepared import Prepared, prepared
from ppvae.inference.program.streams import Streams, begin_stream
from ppvae.inference.program.traces import latent_sites, run
from ppvae.inference.program.unconstrained import check_guide_density, guide_densities, model_densities, unconstrain
from ppvae.progress import track

Start = Literal["guide", "prior"]
Schedule = Literal["sigmoid", "linear"]

CHAINS = 4096
"""Chains that move at once, data times particles. It bounds the memory."""

SETTLING = 20  # transitions by which a pilot finds its first step size


@dataclass(frozen=True)
class Path:
    """How chains are moved: the same for a pilot, forward and back. The options are those of `annealed`."""

    particles: int
    num_temperatures: int
    start: Start
    schedule: Schedule
    num_leapfrog_steps: int
    target_accept_prob: float

    def __post_init__(self) -> None:
        for option in ("particles", "num_temperatures", "num_leapfrog_steps"):
            if getattr(self, option) < 1:
                raise ValueError(f"{option} should be at least 1, got {getattr(self, option)}")
        for option, known in (("start", Start), ("schedule", Schedule)):
            if getattr(self, option) not in get_args(known):
                raise ValueError(f"{option} should be {' or '.join(get_args(known))}, got {getattr(self, option)}")
        if not 0 < self.target_accept_prob < 1:
            raise ValueError(f"target_accept_prob should be between 0 and 1, got {self.target_accept_prob}")

    @property
    def betas(self) -> list[float]:
        """b_0 = 0 to b_T = 1."""
        return betas(self.schedule, self.num_temperatures).tolist()


def annealed(
    story: Story,
    data: Batch,
    *,
    particles: int = 32,
    num_temperatures: int = 100,
    start: Start = "guide",
    schedule: Schedule = "sigmoid",
    num_leapfrog_steps: int = 10,
    target_accept_prob: float = 0.65,
    seed: int = 0,
    progress: bool = True,
) -> Evidence:
    """log p(x) by annealed importance sampling with Hamiltonian transitions: a stochastic lower bound.

    Chains go from f_0, the prior or the guide, to f_T(z) = p(x, z) by f_t = f_0^(1 - b_t) f_T^(b_t), moved at every t
    by a transition that leaves f_t invariant; log w = sum_t log f_t(z_t) - log f_(t-1)(z_t), and E[w] = p(x) whatever
    the transitions. Step sizes are tuned for every datum and temperature on a pilot run of its own and then frozen:
    one that follows the chains would bias the estimate. Neal 2001, https://arxiv.org/abs/physics/9803008; Wu et al.
    2017, https://arxiv.org/abs/1611.04273

    Every datum has random streams of its own, as for `importance`. Data are moved together, so that a figure may
    depend on the others in the last digits of the arithmetic.

    Args:
        story: any object with `model` and `guide` whose latents are continuous.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: K, chains per datum.
        num_temperatures: T, steps from f_0 to f_T.
        start: f_0, the `guide` or the `prior`.
        schedule: of b_t: `linear`, or `sigmoid`, whose steps are small near both ends.
        num_leapfrog_steps: steps of a trajectory.
        target_accept_prob: that step sizes are tuned for.
        seed: of the random streams.
        progress: whether to show a bar.

    Raises:
        ValueError: options out of range; a discrete latent, or one on a curved set; a start at a guide that has no
            density; an improper prior; data that the story cannot score.
    """
    path = Path(particles, num_temperatures, start, schedule, num_leapfrog_steps, target_accept_prob)
    task = prepared(story, data)
    measure, factors = observed(story, task.first)
    log_w = in_chunks(task, path, forward, "annealing", seed, progress)
    return lower_bound(log_w, path, measure, of_factors(factors))


def betas(schedule: Schedule, distributions: int, steepness: float = 4.0) -> Tensor:
    """The inverse temperatures b_0 = 0 to b_T = 1: `(distributions + 1,)`.

    >>> betas("linear", 4)
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000], dtype=torch.float64)
    """
    even = torch.linspace(-1, 1, distributions + 1, dtype=torch.float64)
    if schedule == "linear":
        return (even + 1) / 2
    curve = torch.sigmoid(steepness * even)
    return (curve - curve[0]) / (curve[-1] - curve[0])


class Chains:
    """The chains of a chunk of data: the densities at both ends of the path, and how they are moved between them."""

    def __init__(self, whole: Prepared, rows: slice, path: Path, names: list[bytes]):
        self.task, self.rows, self.path, self.names = whole.rows(rows), rows, path, names[rows]
        story, batch = self.task.story, self.task.batch
        self.flat = unconstrain(story, batch, "annealing")
        if path.start == "guide":
            check_guide_density(story, batch)
            self.ends = guide_densities(story, batch, self.flat)
        else:
            self.ends = model_densities(story, batch, self.flat)

    def first(self, label: str) -> Tensor:
        """Draws from f_0, `(particles, batch, size)`, each datum's from a stream of its own."""
        program = self.task.story.guide if self.path.start == "guide" else self.task.story.model
        drawn = []
        for row, name in enumerate(self.names):
            begin_stream(name, label)
            trace = run(program, self.task.datum(row), self.path.particles)
            drawn.append(self.flat.vector({site["name"]: site["value"] for site in latent_sites(trace)}))
        return torch.cat(drawn, dim=1)

    def noise(self, label: str, like: Tensor) -> Streams:
        return Streams(self.names, label, like)

    def density(self, beta: float) -> Callable[[Tensor], Tensor]:
        """log f_t, up to a constant."""

        def log_f(u: Tensor) -> Tensor:
            log_p, log_start = self.ends(u)
            return torch.lerp(log_start, log_p, beta)

        return log_f

    def move(self, beta: float, u: Tensor, step: Tensor, scale: Tensor, noise: Streams) -> tuple[Tensor, Tensor]:
        """u after a transition that leaves f_t invariant, and how likely each chain's was to be accepted."""
        return transition(self.density(beta), u, step, scale, noise, self.path.num_leapfrog_steps)

    @torch.no_grad()
    def slope(self, u: Tensor) -> Tensor:
        """d log f / d beta = log p(x, u) - log f_0(u): `(particles, batch)`, in double precision."""
        log_p, log_start = self.ends(u)
        return log_p.double() - log_start.double()


def _pilot(chains: Chains) -> Iterator[tuple[Tensor, Tensor]]:
    """Step sizes `(distributions, batch)`, by temperature, and scales `(batch, size)`, found by chains of their own.

    One item for every temperature; the last one is the answer.
    """
    path, u = chains.path, chains.first("pilot start ")
    scale = u.std(0) if path.particles > 1 else torch.ones_like(u[0])
    scale = torch.where(scale > 0, scale, 1.0)
    noise, betas = chains.noise("pilot noise ", u), path.betas
    step = torch.full_like(u[0, :, 0], 0.3)
    steps = []
    for t in range(len(betas) - 1):
        for _ in range(1 if t else SETTLING):
            u, accepted = chains.move(betas[t or 1], u, step, scale, noise)
            step = adapt(step, accepted, path.target_accept_prob)
        steps.append(step)
        yield torch.stack(steps), scale


def forward(chains: Chains, steps: Tensor, scale: Tensor) -> Iterator[Tensor]:
    """Log-weights `(particles, batch)` of chains from f_0 to f_T: the sum so far, temperature by temperature."""
    u, betas = chains.first("start "), chains.path.betas
    noise, log_w = chains.noise("noise ", u), u.new_zeros(u.shape[:2], dtype=torch.float64)
    for t in range(1, len(betas)):
        log_w = log_w + (betas[t] - betas[t - 1]) * chains.slope(u)
        if t < len(betas) - 1:
            u, _ = chains.move(betas[t], u, steps[t], scale, noise)
        yield log_w


Way = Callable[[Chains, Tensor, Tensor], Iterator[Tensor]]
"""From chains, their step sizes and scales to their log-weights so far, temperature by temperature."""


def in_chunks(task: Prepared, path: Path, way: Way, title: str, seed: int, progress: bool) -> Tensor:
    """Log-weights `(particles, data)` of all the data, as many at once as fit."""
    size, names, found = max(1, CHAINS // path.particles), task.keys(seed), []
    chunks = [slice(start, start + size) for start in range(0, len(task), size)]

    def temperatures() -> Iterator[Tensor | tuple[Tensor, Tensor]]:
        for rows in chunks:
            chains = Chains(task, rows, path, names)
            steps, scale = yield from _kept(_pilot(chains))
            found.append((yield from _kept(way(chains, steps, scale))))

    with task.running(), torch.no_grad():
        for _ in track(temperatures(), title, total=2 * len(chunks) * path.num_temperatures, show=progress):
            pass
    return torch.cat(found, dim=1)


def _kept(items: Iterator[Any]) -> Generator[Any, None, Any]:
    """Every item of a loop, and the last one as its result."""
    last = None
    for last in items:
        yield last
    return last


def lower_bound(log_w: Tensor, path: Path, measure: str, of: str = "") -> Evidence:
    """Evidence of forward weights, whose mean is p(x)."""
    method = f"annealing from the {path.start} in {path.num_temperatures} steps{of}"
    return assemble(reduce(log_w).T, "stochastic lower bound", method, measure=measure)
