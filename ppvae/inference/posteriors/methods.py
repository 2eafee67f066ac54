"""Ways to infer z from x on one decoder: the guide, refinements of it for every datum, Laplace, and Markov chains."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from pyro.infer.mcmc import MCMC, NUTS
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.posteriors.chains import run_chains, starts
from ppvae.inference.posteriors.convergence import effective_draws, r_hat
from ppvae.inference.posteriors.local import LocalNormal, fit_normals
from ppvae.inference.posteriors.local_flow import fit_flows, weigh_flow, weigh_normal
from ppvae.inference.posteriors.newton import climb, curvature, triangle
from ppvae.inference.program.checks import check_point_mass, check_proper, hot_loop
from ppvae.inference.program.prepared import Prepared, prepared
from ppvae.inference.program.streams import Streams, begin_stream, own_generators
from ppvae.inference.program.traces import as_seen, evaluating
from ppvae.inference.program.unconstrained import Unconstrained, check_guide, model_densities, unconstrain
from ppvae.inference.program.weights import draw, log_weights
from ppvae.progress import track

Weigh = Callable[..., Tensor]
"""`(story, datum, *proposal, particles=)` to log-weights `(particles, 1)`, as `blocks.estimate` takes it."""

ROWS = 512  # data whose modes are searched for at once
RESAMPLED_FROM = 10  # draws from the guide for each that is kept


@dataclass(frozen=True)
class Approximation:
    """An answer to p(z | x) for every datum, over its latents in unbounded space."""

    draws: Tensor  # (draws, batch, size)
    mean: Tensor  # (batch, size)
    variance: Tensor  # (batch, size)
    weigh: Weigh | None  # how its density is used as a proposal; None where it has none
    proposal: tuple[Tensor, ...] = ()  # what `weigh` needs of it, one row a datum
    r_hat: Tensor | None = None  # (batch, size), of Markov chains
    ess: Tensor | None = None  # (batch, size), of Markov chains
    num_chains: int = 1  # of which the draws are in turn
    seconds: float = math.nan  # to infer and to draw, of all data


class Task(NamedTuple):
    """One decoder and the data whose latents are asked for: what every method is given."""

    data: Prepared
    flat: Unconstrained
    draws: int
    seed: int
    progress: bool

    @property
    def story(self) -> Story:
        return self.data.story

    def names(self) -> list[bytes]:
        return self.data.keys(self.seed)


Method = Callable[[Task], Approximation]


def task_of(
    story: Story, data: Batch | Prepared, method: str | Method, num_samples: int, seed: int, progress: bool
) -> Task:
    """What a method is given, checked.

    Raises:
        ValueError: an unknown method; samples below 8; a latent that is discrete, lies on a curved set or outside the
            data plate; an improper prior.
    """
    if num_samples < 8:
        raise ValueError(f"num_samples should be at least 8, over all chains, got {num_samples}")
    if isinstance(method, str) and method not in METHODS:
        raise ValueError(f"method should be one of {', '.join(METHODS)}, got {method}")
    task = prepared(story, data)
    check_proper(story, task.first)
    with own_generators(), torch.no_grad():
        flat = unconstrain(story, task.batch, method if isinstance(method, str) else "inference")
        check_guide(story, task.batch)
    return Task(task, flat, num_samples, seed, progress)


def answer(task: Task, method: str | Method) -> Approximation:
    """A method's answer, timed; nothing of the story or of torch's global generators is changed."""
    found = METHODS[method] if isinstance(method, str) else method
    start = time.perf_counter()
    with own_generators(), evaluating(task.story), hot_loop():
        approximation = found(task)
    return replace(approximation, seconds=time.perf_counter() - start)


def approximate(
    story: Story,
    data: Batch | Prepared,
    method: str | Method,
    *,
    num_samples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> Approximation:
    """p(z | x) of every datum by one method, in unbounded space; `task_of` says what is refused."""
    return answer(task_of(story, data, method, num_samples, seed, progress), method)


def amortised(task: Task) -> Approximation:
    """The guide as it is."""
    check_point_mass(task.story, task.data.first)
    return _of_draws(_guide_draws(task, task.draws), log_weights)


def semi_amortised(task: Task, num_steps: int = 10) -> Approximation:
    """A diagonal Normal, a few steps from the guide's answer. Kim et al. 2018, https://arxiv.org/abs/1802.02550"""
    u = _guide_draws(task, task.draws)
    start = LocalNormal(u.mean(0), torch.diag_embed(u.std(0)))
    if not bool((start.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()):
        check_point_mass(task.story, task.data.first)
    return _normal(task, _local(task, num_steps=num_steps, particles=32, covariance="diagonal", lr=0.1, start=start))


def local_diagonal(task: Task, num_steps: int = 400) -> Approximation:
    """The diagonal Normal of every datum that maximises its own ELBO."""
    return _normal(task, _local(task, num_steps=num_steps, particles=16, covariance="diagonal"))


def local_full(task: Task, num_steps: int = 400) -> Approximation:
    """The Normal of every datum, of any covariance, that maximises its own ELBO."""
    return _normal(task, _local(task, num_steps=num_steps, particles=16))


def flow(task: Task, num_steps: int = 600) -> Approximation:
    """The flow of every datum that maximises its own ELBO."""
    found = fit_flows(task.story, task.data, num_steps=num_steps, seed=task.seed, progress=task.progress)
    with torch.no_grad():
        u = found.rsample(Streams(task.names(), "posterior ", found.loc).normal(task.draws, task.flat.size))[0]
    return _of_draws(u, partial(weigh_flow, flat=task.flat), tuple(found))


def laplace_normal(task: Task, newton_steps: int = 20) -> Approximation:
    """The Laplace approximation, in unbounded space, at the mode uphill of the guide's mean."""
    start, found = _guide_draws(task, 64).mean(0), []
    try:
        with torch.backends.cudnn.flags(enabled=False):
            for first in range(0, len(start), ROWS):
                some = slice(first, first + ROWS)
                densities = model_densities(task.story, task.data.rows(some).batch, task.flat)

                def log_p(u: Tensor, at: Callable[[Tensor], tuple[Tensor, Tensor]] = densities) -> Tensor:
                    return at(u.unsqueeze(0))[0][0]

                mode = climb(log_p, start[some], newton_steps)
                found.append(LocalNormal(mode, triangle(curvature(log_p, mode)[1])))
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise ValueError(f"log p(x, z) should have two derivatives in z, but: {said}") from error
    return _normal(task, LocalNormal(*(torch.cat(parts) for parts in zip(*found, strict=True))))


def resampled(task: Task) -> Approximation:
    """Draws from the guide, each kept as often as its weight says: sampling importance resampling. Rubin 1988"""
    check_point_mass(task.story, task.data.first)
    kept = []
    with torch.no_grad():
        for row, name in enumerate(task.names()):
            begin_stream(name, "resampled ")
            datum = task.data.datum(row)
            u = task.flat.vector(draw(task.story, datum, RESAMPLED_FROM * task.draws).latents)
            begin_stream(name, "resampled ")  # the very draws again, with their weights
            weights = log_weights(task.story, datum, particles=RESAMPLED_FROM * task.draws)[:, 0].double().softmax(0)
            kept.append(u[torch.multinomial(weights, task.draws, replacement=True)])
    return _of_draws(torch.cat(kept, dim=1), None)


def hamiltonian(task: Task, num_chains: int = 4, **options: Any) -> Approximation:
    """Hamiltonian Monte Carlo: `draws` in all, over the chains; options as of `run_chains`."""
    each = max(4, -(-task.draws // max(1, num_chains)))
    given: Any = {"num_samples": each, "num_chains": num_chains, "seed": task.seed, "progress": task.progress}
    found = run_chains(task.story, task.data, **given, **options)
    return replace(_of_draws(_mixed(found.u), None), r_hat=found.r_hat, ess=found.ess, num_chains=num_chains)


def no_u_turn(task: Task, num_chains: int = 2, num_warmup: int = 100) -> Approximation:
    """Pyro's own No-U-Turn sampler, a datum and a chain at a time: slow. Hoffman & Gelman 2014,
    https://arxiv.org/abs/1111.4246"""
    each = max(4, -(-task.draws // num_chains))
    found = []
    for row, name in track(list(enumerate(task.names())), "nuts", show=task.progress):
        datum = task.data.rows(slice(row, row + 1))
        densities = model_densities(task.story, datum.batch, task.flat)

        def energy(at: dict[str, Tensor], of: Callable[[Tensor], tuple[Tensor, Tensor]] = densities) -> Tensor:
            return -of(at["u"].reshape(1, 1, -1))[0][0, 0]

        start = starts(datum, task.flat, [name], num_chains)
        begin_stream(name, "nuts ")
        states = []
        for chain in range(num_chains):
            sampler = MCMC(
                NUTS(potential_fn=energy),
                each,
                num_warmup,
                initial_params={"u": start[chain, 0]},
                disable_progbar=True,
            )
            sampler.run()
            states.append(sampler.get_samples()["u"])
        found.append(torch.stack(states))
    u = torch.stack(found, dim=2)  # (chains, draws, batch, size)
    ess = effective_draws(u)
    return replace(_of_draws(_mixed(u), None), r_hat=r_hat(u), ess=ess, num_chains=num_chains)


METHODS: dict[str, Method] = {
    "amortised": amortised,
    "semi-amortised": semi_amortised,
    "local diagonal": local_diagonal,
    "local full": local_full,
    "local flow": flow,
    "laplace": laplace_normal,
    "resampled": resampled,
    "hmc": hamiltonian,
    "nuts": no_u_turn,
}
"""By name, each `Task` to `Approximation`."""


def _local(task: Task, **options: Any) -> LocalNormal:
    return fit_normals(task.story, task.data, tolerance=0.002, seed=task.seed, progress=task.progress, **options)


def _normal(task: Task, q: LocalNormal) -> Approximation:
    noise = Streams(task.names(), "posterior ", q.loc).normal(task.draws, task.flat.size)
    u = q.loc + (q.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
    variance = q.scale_tril.square().sum(-1)
    return Approximation(u, q.loc, variance, partial(weigh_normal, flat=task.flat), tuple(q))


def _of_draws(u: Tensor, weigh: Weigh | None, proposal: tuple[Tensor, ...] = ()) -> Approximation:
    return Approximation(u, u.mean(0), u.var(0), weigh, proposal)


def _mixed(u: Tensor) -> Tensor:
    """Draws of several chains in turn: `(chains, draws, batch, size)` to `(chains * draws, batch, size)`."""
    return u.transpose(0, 1).flatten(0, 1)


@torch.no_grad()
def _guide_draws(task: Task, draws: int) -> Tensor:
    """u from the guide, `(draws, batch, size)`, every datum from its own stream."""
    drawn = []
    for row, name in enumerate(task.names()):
        begin_stream(name, "guide ")
        latents = draw(task.story, task.data.datum(row), draws).latents
        drawn.append(task.flat.vector(latents))
    return torch.cat(drawn, dim=1)


@torch.no_grad()
def log_density_on(story: Story, batch: tuple[Tensor, ...], u: Tensor) -> Tensor:
    """log p(x, u) at points of unbounded space, `(points, batch, size)`: `(points, batch)` nats."""
    with own_generators(), evaluating(story):
        seen = as_seen(story, batch)
        return model_densities(story, seen, unconstrain(story, seen, "a grid"))(u)[0]
