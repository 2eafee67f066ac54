"""Draws from p(z | x) by Hamiltonian Monte Carlo, many chains of many data at once."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from pyro.poutine import Trace
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.posteriors.convergence import effective_draws, r_hat
from ppvae.inference.posteriors.hmc import adapt, transition
from ppvae.inference.program.checks import check_proper
from ppvae.inference.program.prepared import Prepared, prepared
from ppvae.inference.program.streams import Streams, begin_stream, own_generators
from ppvae.inference.program.traces import evaluating, latent_sites, run
from ppvae.inference.program.unconstrained import Unconstrained, check_guide, model_densities, unconstrain
from ppvae.progress import track

CHAINS = 4096
"""Chains that move at once, data times chains. It bounds the memory."""

PICKED_FROM = 256
"""Draws from the prior among which a chain's start is picked."""


class Chains(NamedTuple):
    """Draws of the latents in unbounded space, and how well the chains have mixed."""

    u: Tensor  # (chains, draws, batch, size)
    r_hat: Tensor  # (batch, size): near 1 where the chains agree
    ess: Tensor  # (batch, size): effective number of draws
    acceptance: Tensor  # (batch,), on average


def run_chains(
    story: Story,
    data: Batch | Prepared,
    *,
    num_samples: int = 500,
    num_warmup: int = 300,
    num_chains: int = 4,
    num_leapfrog_steps: int = 8,
    target_accept_prob: float = 0.8,
    seed: int = 0,
    progress: bool = True,
) -> Chains:
    """Chains of every datum in unbounded space; `posterior.hmc` says what they are, and its arguments are these.

    Step sizes and the scale of every dimension are tuned for each datum in the warm-up and then frozen.
    """
    check_chains(num_samples, num_warmup, num_chains)
    if num_leapfrog_steps < 1:
        raise ValueError(f"num_leapfrog_steps should be at least 1, got {num_leapfrog_steps}")
    if not 0 < target_accept_prob < 1:
        raise ValueError(f"target_accept_prob should be between 0 and 1, got {target_accept_prob}")
    task = prepared(story, data)
    check_proper(story, task.first)
    with own_generators(), evaluating(story), torch.no_grad():
        check_guide(story, task.batch)
    names, size = task.keys(seed), max(1, CHAINS // num_chains)
    kept: list[tuple[Tensor, Tensor]] = []

    def all_transitions() -> Iterator[None]:
        for start in range(0, len(names), size):
            some = slice(start, start + size)
            mover = _Mover(task.rows(some), names[some], num_chains, num_leapfrog_steps, target_accept_prob)
            yield from mover.warm(num_warmup)
            states, rates = [], []
            for _ in range(num_samples):
                rates.append(mover.move())
                states.append(mover.u)
                yield
            kept.append((torch.stack(states, dim=1), torch.stack(rates).mean(0)))

    total = -(-len(names) // size) * (num_warmup + num_samples)
    with task.running(), torch.no_grad():
        for _ in track(all_transitions(), "hmc", total=total, show=progress):
            pass
    u = torch.cat([states for states, _ in kept], dim=2)
    return Chains(u, r_hat(u), effective_draws(u), torch.cat([rates for _, rates in kept]))


def check_chains(num_samples: int, num_warmup: int, num_chains: int) -> None:
    """Refuse what would leave nothing to judge the chains by, before they take their time."""
    smallest = {"num_samples": (num_samples, 4), "num_warmup": (num_warmup, 2), "num_chains": (num_chains, 2)}
    for option, (value, least) in smallest.items():
        if value < least:
            raise ValueError(f"{option} should be at least {least}, got {value}")


@torch.no_grad()
def starts(task: Prepared, flat: Unconstrained, names: list[bytes], chains: int) -> Tensor:
    """Where chains begin, `(chains, batch, size)`: the guide's draws, then, half and more, the prior's.

    Of `PICKED_FROM` draws from the prior each is taken with the probability that its likelihood gives it: a draw as it
    comes may lie beyond a mode that holds next to nothing, which a chain then never leaves.
    """
    story, found = task.story, []
    for row, name in enumerate(names):
        datum = task.datum(row)
        begin_stream(name, "hmc start ")
        guide = flat.vector(_values(run(story.guide, datum, chains // 2)))
        prior = flat.vector(_values(run(story.model, datum, PICKED_FROM)))
        log_p, log_prior = model_densities(story, datum, flat)(prior)
        likely = (log_p - log_prior)[:, 0].double().nan_to_num(-torch.inf, posinf=-torch.inf)
        picked = torch.multinomial(likely.softmax(0), chains - chains // 2, replacement=True)
        found.append(torch.cat([guide, prior[picked]]))
    return torch.cat(found, dim=1)


def _values(trace: Trace) -> dict[str, Tensor]:
    return {site["name"]: site["value"] for site in latent_sites(trace)}


class _Mover:
    """The chains of a chunk of data, their step sizes and scales."""

    def __init__(self, task: Prepared, names: list[bytes], chains: int, leapfrog: int, target: float):
        flat = unconstrain(task.story, task.batch, "HMC")
        self.u = starts(task, flat, names, chains)
        self.densities, self.leapfrog, self.target = model_densities(task.story, task.batch, flat), leapfrog, target
        self.noise = Streams(names, "hmc ", self.u)
        self.scale = torch.ones_like(self.u[0])
        self.step = torch.full_like(self.u[0, :, 0], 0.3)
        self.lengths = torch.Generator().manual_seed(0)

    def move(self) -> Tensor:
        """One transition of every chain; the probability of acceptance, `(batch,)`.

        Trajectories differ in length: those of one length may all end where they began.
        """
        length = int(torch.randint(1, self.leapfrog + 1, (), generator=self.lengths))
        self.u, accepted = transition(self._log_p, self.u, self.step, self.scale, self.noise, length)
        return accepted.mean(0)

    def _log_p(self, u: Tensor) -> Tensor:
        return self.densities(u)[0]

    def warm(self, transitions: int) -> Iterator[None]:
        """Tune: the step size throughout, the scales once, from the second third of the transitions."""
        seen = []
        for number in range(transitions):
            accepted = self.move()
            rate = 0.5 if number < transitions // 2 else 0.1
            self.step = adapt(self.step, accepted.unsqueeze(0), self.target, rate)
            if transitions // 3 <= number < 2 * transitions // 3:
                seen.append(self.u)
            if number == 2 * transitions // 3 and len(seen) * len(self.u) >= 20:
                self.scale = torch.cat(seen).std(0).clamp_min(1e-6)
                self.step = torch.full_like(self.step, 0.5)
            yield
