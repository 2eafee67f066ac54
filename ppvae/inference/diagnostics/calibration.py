"""Simulation-based calibration: is a latent that made the data a draw like any other from its inferred posterior?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.posteriors.methods import Method, approximate
from ppvae.inference.program.answers import Answer
from ppvae.inference.program.checks import check_data
from ppvae.inference.program.codes import simulate_jointly
from ppvae.inference.program.streams import own_generators
from ppvae.inference.program.traces import as_batch, evaluating
from ppvae.inference.program.unconstrained import unconstrain

RANKED = 99  # draws that a latent is ranked among: 100 ranks, few enough that those of Markov chains are far apart
LEAST = 5.0  # expected in a bin


@dataclass(frozen=True)
class Calibration(Answer):
    """Ranks of the latents that made the data among draws from their inferred posteriors."""

    ranks: Tensor  # (data, size), from 0 to `draws`
    draws: int
    p_value: Tensor  # (size,), of ranks as uneven as these where the posterior is right

    def summary(self) -> dict[str, Any]:
        """How likely ranks as uneven as these are, where the posterior is right."""
        rows, size = self.ranks.shape
        return {"simulations": rows, "coordinates": size, "draws": self.draws, "worst_p_value": self.worst}

    def columns(self) -> dict[str, Sequence[Any]]:
        """A row for each simulated datum and coordinate."""
        rows, size = self.ranks.shape
        return {
            "datum": [datum for datum in range(rows) for _ in range(size)],
            "coordinate": list(range(size)) * rows,
            "rank": self.ranks.flatten().tolist(),
        }

    @property
    def worst(self) -> float:
        """The smallest p-value, for as many looks as there are dimensions (Bonferroni)."""
        return min(1.0, self.p_value.min().item() * len(self.p_value))


def calibration(
    story: Story,
    like: Batch,
    method: str | Method,
    *,
    num_simulations: int = 200,
    num_samples: int = 400,
    seed: int = 0,
    progress: bool = True,
) -> Calibration:
    """Simulation-based calibration of a method on a story's own data.

    z, x ~ p(z) p(x | z), so that z is a draw from p(z | x): among L draws from a posterior that is right, its rank is
    uniform on 0 ... L, in every dimension. Ranks heaped in the middle tell of a posterior that is too wide, at both
    ends of one that is too narrow or misses a mode, to one side of one that is shifted. Talts et al. 2018,
    https://arxiv.org/abs/1804.06788; of variational posteriors: Yao et al. 2018, https://arxiv.org/abs/1802.02538

    Args:
        like: rows like those to draw; their x does not matter, what else they hold (labels, a mask) is given.
        method: a name of `posteriors.METHODS`, or a function like those.
        num_simulations: data to draw.
        num_samples: of the method for each, of which 99 evenly spaced ones are ranked among.

    Raises:
        ValueError: simulations below 20; what the method raises; a story that does not draw the data that it observes.
    """
    simulated, u = simulate(story, like, num_simulations, seed)
    found = approximate(story, simulated, method, num_samples=num_samples, seed=seed, progress=progress)
    return rank(found.draws, u)


def simulate(story: Story, like: Batch, simulations: int, seed: int = 0) -> tuple[tuple[Tensor, ...], Tensor]:
    """Data that the story draws, and the latents that made them in unbounded space, `(simulations, size)`."""
    if simulations < 20:
        raise ValueError(f"calibration needs at least 20 simulations, got {simulations}")
    batch = as_batch(like)
    rows = torch.arange(simulations) % len(batch[0])
    with own_generators(), torch.no_grad(), evaluating(story):
        check_data(story, batch)
        torch.manual_seed(seed)
        simulated, latents = simulate_jointly(story, tuple(part[rows.to(part.device)] for part in batch))
        return simulated, unconstrain(story, simulated, "calibration").vector(latents)[0]


def rank(draws: Tensor, truth: Tensor) -> Calibration:
    """How many draws, `(draws, data, size)`, lie below the truth, `(data, size)`, and whether that is uniform."""
    if len(draws) > RANKED:
        draws = draws[torch.linspace(0, len(draws) - 1, RANKED).round().long().to(draws.device)]
    ranks = (draws < truth).sum(0)
    return Calibration(ranks, len(draws), uniform_p_value(ranks, len(draws)))


def uniform_p_value(ranks: Tensor, most: int) -> Tensor:
    """Pearson's test of uniform ranks on 0 ... most: `(data, size)` to `(size,)`.

    sum (count - expected)^2 / expected over bins of equal many ranks, at least 5 data in each, against chi-square.
    """
    places = most + 1
    bins = max(b for b in range(1, min(20, places) + 1) if places % b == 0 and (len(ranks) / b >= LEAST or b == 1))
    expected = len(ranks) / bins
    counts = torch.stack([torch.bincount(column * bins // places, minlength=bins) for column in ranks.T], dim=-1)
    statistic = ((counts - expected).square() / expected).sum(0).double()
    if bins == 1:
        return torch.full_like(statistic, math.nan)
    return torch.special.gammaincc(torch.full_like(statistic, (bins - 1) / 2), statistic / 2)
