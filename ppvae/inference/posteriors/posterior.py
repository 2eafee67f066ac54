"""p(z | x) as its users have it: draws of every latent site, each in the site's own space."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.posteriors.chains import check_chains
from ppvae.inference.posteriors.local import Covariance
from ppvae.inference.posteriors.methods import (
    Method,
    Task,
    answer,
    flow,
    hamiltonian,
    local_diagonal,
    local_full,
    no_u_turn,
    task_of,
)
from ppvae.inference.program.answers import Answer

QUANTILES = {"5%": 0.05, "median": 0.5, "95%": 0.95}


@dataclass(frozen=True)
class Posterior(Answer):
    """Draws from p(z | x) of every datum by one method."""

    method: str
    draws: dict[str, Tensor]  # by latent site: (draws, batch, plates within the data's if any, *event)
    seconds: float  # to infer and to draw, of all data
    num_chains: int = 1  # the draws are of each in turn
    r_hat: Tensor | None = None  # (batch,): of a datum's coordinates the one whose chains agree least; 1 is best
    ess: Tensor | None = None  # (batch,): effective number of draws, of its worst coordinate

    def by_chain(self, site: str) -> Tensor:
        """The draws of a site, `(chains, draws, batch, ...)`: what ArviZ takes."""
        return self.draws[site].unflatten(0, (-1, self.num_chains)).transpose(0, 1)

    def summary(self) -> dict[str, Any]:
        """How many draws there are, and whether the chains have met."""
        count, rows = next(iter(self.draws.values())).shape[:2]
        return {
            "method": self.method,
            "data": rows,
            "draws": count,
            "chains": self.num_chains,
            "largest_r_hat": math.nan if self.r_hat is None else self.r_hat.max().item(),
            "least_ess": math.nan if self.ess is None else self.ess.min().item(),
            "seconds": self.seconds,
        }

    def columns(self) -> dict[str, Sequence[Any]]:
        """A row for every number of every latent of every datum: its mean, deviation and quantiles."""
        table: dict[str, list[Any]] = {name: [] for name in ("datum", "site", "index", "mean", "deviation", *QUANTILES)}
        for site, draws in self.draws.items():
            flat = draws.flatten(2) if draws.dim() > 2 else draws.unsqueeze(-1)  # (draws, batch, numbers)
            quantiles = np.quantile(flat.cpu().numpy(), list(QUANTILES.values()), axis=0)  # torch's takes 2^24 numbers
            figures = [flat.mean(0), flat.std(0), *quantiles]
            rows, numbers = flat.shape[1:]
            table["datum"] += [datum for datum in range(rows) for _ in range(numbers)]
            table["site"] += [site] * (rows * numbers)
            table["index"] += list(range(numbers)) * rows
            for name, values in zip(("mean", "deviation", *QUANTILES), figures, strict=True):
                table[name] += values.flatten().tolist()
        return dict(table)


def infer(
    story: Story,
    data: Batch,
    method: str | Method,
    *,
    num_samples: int = 1000,
    seed: int = 0,
    progress: bool = True,
) -> Posterior:
    """p(z | x) of every datum by one method, as draws.

    Every datum has random streams of its own; nothing of the story or of torch's global generators is changed.

    Args:
        story: any object with `model` and `guide` whose latents are continuous.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        method: a name of `posteriors.METHODS`, or a function like those.
        num_samples: to keep of every datum, of all chains together.
        seed: of the streams.
        progress: whether to show a bar.

    Raises:
        ValueError: an unknown method; samples below 8; a latent that is discrete, lies on a curved set or outside the
            data plate; an improper prior; a point mass where a density is needed.
    """
    task = task_of(story, data, method, num_samples, seed, progress)
    return _drawn(method if isinstance(method, str) else getattr(method, "__name__", "inference"), task, method)


def hmc(
    story: Story,
    data: Batch,
    *,
    num_samples: int = 500,
    num_warmup: int = 300,
    num_chains: int = 4,
    num_leapfrog_steps: int = 8,
    target_accept_prob: float = 0.8,
    seed: int = 0,
    progress: bool = True,
) -> Posterior:
    """Draws from p(z | x) of every datum by Hamiltonian Monte Carlo, many chains of many data at once.

    Half of the chains start at draws from the guide, and half where the likelihood picks among draws from the prior,
    which know nothing of the guide: so the two disagree where the guide misses a mode. Neal 2011,
    https://arxiv.org/abs/1206.1901; R-hat and ESS as in Vehtari et al. 2021, https://arxiv.org/abs/1903.08008

    Args:
        story: any object with `model` and `guide` whose latents are continuous.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        num_samples: kept from every chain.
        num_warmup: transitions before these, by which step sizes and scales are tuned for each datum.
        num_chains: per datum.
        num_leapfrog_steps: steps of a trajectory, at most.
        target_accept_prob: that step sizes are tuned for.
        seed: of the random streams, each datum its own.
        progress: whether to show a bar.

    Raises:
        ValueError: options out of range; a latent that is discrete or lies on a curved set; an improper prior.
    """
    check_chains(num_samples, num_warmup, num_chains)
    method = partial(
        hamiltonian,
        num_chains=num_chains,
        num_warmup=num_warmup,
        num_leapfrog_steps=num_leapfrog_steps,
        target_accept_prob=target_accept_prob,
    )
    return _drawn("hmc", task_of(story, data, "hmc", num_samples * num_chains, seed, progress), method)


def nuts(
    story: Story,
    data: Batch,
    *,
    num_samples: int = 500,
    num_warmup: int = 100,
    num_chains: int = 2,
    seed: int = 0,
    progress: bool = True,
) -> Posterior:
    """Draws from p(z | x) by Pyro's own No-U-Turn sampler, a datum and a chain at a time: slow.

    Hoffman & Gelman 2014, https://arxiv.org/abs/1111.4246. Arguments and errors are those of `hmc`.
    """
    check_chains(num_samples, num_warmup, num_chains)
    method = partial(no_u_turn, num_chains=num_chains, num_warmup=num_warmup)
    return _drawn("nuts", task_of(story, data, "nuts", num_samples * num_chains, seed, progress), method)


def local_normal(
    story: Story,
    data: Batch,
    *,
    covariance: Covariance = "full",
    num_samples: int = 1000,
    num_steps: int = 400,
    seed: int = 0,
    progress: bool = True,
) -> Posterior:
    """Draws from the Normal of every datum that maximises its own ELBO: local variational inference.

    The Normal is over unbounded reals; a latent of another support is their image under Pyro's own map. Cremer et al.
    2018, https://arxiv.org/abs/1801.03558

    Args:
        story: any object with `model` and `guide` whose latents are continuous.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        covariance: `full` or `diagonal`.
        num_samples: to draw for every datum.
        num_steps: of Adam, at most.
        seed: of the draws.
        progress: whether to show a bar.

    Raises:
        ValueError: options out of range; a latent that is discrete or lies on a curved set; an improper prior.
    """
    if covariance not in get_args(Covariance):
        raise ValueError(f"covariance should be full or diagonal, got {covariance}")
    method = partial(local_full if covariance == "full" else local_diagonal, num_steps=num_steps)
    name = f"local {covariance}"
    return _drawn(name, task_of(story, data, name, num_samples, seed, progress), method)


def local_flow(
    story: Story,
    data: Batch,
    *,
    num_samples: int = 1000,
    num_steps: int = 600,
    seed: int = 0,
    progress: bool = True,
) -> Posterior:
    """Draws from the flow of every datum that maximises its own ELBO. Arguments and errors as of `local_normal`."""
    method = partial(flow, num_steps=num_steps)
    return _drawn("local flow", task_of(story, data, "local flow", num_samples, seed, progress), method)


def _drawn(name: str, task: Task, method: str | Method) -> Posterior:
    """A method's answer, out of the unbounded space that it was found in."""
    found = answer(task, method)
    with torch.no_grad():
        latents, _ = task.flat.values(found.draws)
    draws = {}
    for block in task.flat.blocks:
        plates = len(block.inner)
        draws[block.name] = latents[block.name].movedim((plates, plates + 1), (0, 1))
    r_hat = None if found.r_hat is None else found.r_hat.amax(-1)
    ess = None if found.ess is None else found.ess.amin(-1)
    return Posterior(name, draws, found.seconds, found.num_chains, r_hat, ess)
