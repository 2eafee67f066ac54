"""No figure depends on how the data are laid out: chunks, order, the other data, processes."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ppvae.inference import Evidence, annealed, importance, refined_sampling
from ppvae.inference.evidence.workers import in_processes
from ppvae.inference.posteriors.chains import run_chains
from ppvae.selfcheck.analytic import LinearGaussian, TwoLayers
from ppvae.selfcheck.checks import Check, equal


def invariance_checks(seed: int = 0, processes: int = 1) -> Iterator[Check]:
    """Figures of data in chunks of several sizes, in another order and, where asked for, in several processes."""
    known, two = LinearGaussian(), TwoLayers(widen=1.2)
    x, x_two = known.data(16), two.data(16)
    x[3] = x[11]  # equal data have draws of their own
    for story_name, story, data in (
        ("linear-Gaussian", known.story(1.3, 0.1), x),
        ("two layers", two, x_two),
    ):
        for what, estimator in _estimators(seed).items():
            whole = estimator(story, data).estimate
            for size in (1, 5):
                parts = [estimator(story, part).estimate for part in data[4:11].split(size)]  # no equal data there
                yield equal("invariance", story_name, f"{what}, in chunks of {size}", torch.cat(parts), whole[4:11])
            yield equal("invariance", story_name, f"{what}, in another order", *_reordered(estimator, story, data))
            if processes > 1:
                shared = in_processes(estimator, story, data, processes).estimate
                yield equal("invariance", story_name, f"{what}, in {processes} processes", shared, whole)
    chains = [
        run_chains(known.story(), part, num_samples=20, num_warmup=20, progress=False, seed=seed).u
        for part in (x, x.flip(0))
    ]
    yield equal(
        "invariance",
        "linear-Gaussian",
        "hmc, in another order",
        chains[1][..., 5:12, :].flip(2),
        chains[0][..., 4:11, :],
    )


def _estimators(seed: int) -> dict[str, Callable[..., Evidence]]:
    quiet: Any = {"seed": seed, "progress": False}
    return {
        "importance": partial(importance, particles=200, **quiet),
        "importance to a target": partial(importance, particles=50, target_error=0.1, **quiet),
        "refined_sampling": partial(refined_sampling, particles=200, num_steps=20, **quiet),
        "annealed": partial(annealed, particles=8, num_temperatures=10, num_leapfrog_steps=4, **quiet),
    }


def _reordered(estimator: Callable[..., Evidence], story: object, data: Tensor) -> tuple[Tensor, Tensor]:
    """Figures of the data in order, and of the data backwards, put back in order: of those that have no equal."""
    order = torch.arange(len(data) - 1, -1, -1)
    backwards = estimator(story, data[order]).estimate[order]
    alone = [row for row in range(len(data)) if row not in (3, 11)]
    return backwards[alone], estimator(story, data).estimate[alone]
