"""`make bench`, its third part: what log p(x) costs by importance sampling, of the two-layer decoder.

Images a second at K = 5,000 beside eager Pyro's in its best chunk, and as shares of what the machine's matrix products
reach in the same run; decoder evaluations to an error of 0.05 nats for every datum; memory as particles and data grow.
Turns are taken, as in `run.py`; `importance` is timed once it has settled its way: on the second half of its data.
"""

import argparse
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pyro
import torch
from problem import HIDDEN, LATENT, LEARNING_RATE, PIXELS, digits
from pyro import poutine
from torch import Tensor

import ppvae
from ppvae import networks
from ppvae.compilation import steps
from ppvae.inference import importance, refined_sampling
from ppvae.inference.evidence import blocks
from ppvae.models import VAE, encoders, likelihoods, priors

HERE = Path(__file__).parent
PARTICLES = 5000
CHUNKS = (500, 1000, 2500, 5000)  # of Pyro's particles
TARGET = 0.05  # nats
DATA = 800
WANTED = {"share of the matrix products' peak": 0.5, "times eager Pyro": 1.3, "times fewer evaluations": 5.0}


def fitted(x: Tensor, epochs: int) -> VAE:
    torch.manual_seed(0)
    story = VAE(
        priors.StandardNormal(LATENT),
        likelihoods.Bernoulli(networks.mlp(LATENT, [HIDDEN], PIXELS)),
        encoders.DiagonalNormal(networks.mlp(PIXELS, [HIDDEN], 2 * LATENT)),
    )
    if epochs:
        ppvae.fit(story, x, epochs=epochs, batch_size=128, lr=LEARNING_RATE, progress=False)
    return story.eval()


def matrix_products(size: int = 4096) -> float:
    """Operations a second of A @ B."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    start = time.perf_counter()
    a @ b
    return 2 * size**3 / (time.perf_counter() - start)


@torch.no_grad()
def by_pyro(story: VAE, x: Tensor, chunk: int) -> float:
    """Seconds of a datum: guide and model under a vectorised plate, as Pyro's own estimators run them."""

    def vectorised(program: Callable[..., Any]) -> Callable[..., Any]:
        return pyro.plate("particles", chunk, dim=-2)(program)

    start = time.perf_counter()
    with pyro.validation_enabled(False):
        for row in range(len(x)):
            totals = []
            for _ in range(PARTICLES // chunk):
                guide = poutine.trace(vectorised(story.guide)).get_trace(x[row : row + 1])
                model = poutine.trace(poutine.replay(vectorised(story.model), trace=guide)).get_trace(x[row : row + 1])
                for trace in (model, guide):
                    trace.compute_log_prob()
                terms = [
                    sign * site["log_prob"]
                    for trace, sign in ((model, 1), (guide, -1))
                    for site in trace.nodes.values()
                    if site["type"] == "sample" and site["name"] in ("z", "x")
                ]
                totals.append(torch.stack([term.reshape(chunk) for term in terms]).sum(0).logsumexp(0))
            torch.stack(totals).logsumexp(0)
    return (time.perf_counter() - start) / len(x)


def by_importance(story: VAE, x: Tensor) -> float:
    """Seconds of a datum, of the second half of the data: `importance` has settled its way by then, and compiled."""
    times: list[float] = []

    def clocked(items: Iterable[Any], *_: Any, **__: Any) -> Iterator[Any]:
        for item in items:
            start = time.perf_counter()
            yield item
            times.append(time.perf_counter() - start)

    shown, blocks.track = blocks.track, clocked
    try:
        importance(story, x, particles=PARTICLES, progress=False)
    finally:
        blocks.track = shown
    return median(times[len(times) // 2 :])


def throughput(rounds: int) -> dict[str, Any]:
    """Images a second of each, and the machine's peak in the same turns."""
    x = torch.from_numpy(digits(DATA))
    story = fitted(x, 0)
    peaks, ours = [], []
    pyros: dict[int, list[float]] = {chunk: [] for chunk in CHUNKS}
    by_pyro(story, x[:1], CHUNKS[0])
    for _ in range(rounds):
        peaks.append(matrix_products())
        for chunk in CHUNKS:
            pyros[chunk].append(by_pyro(story, x[:4], chunk))
        ours.append(by_importance(story, x))
        peaks.append(matrix_products())
    chunk = min(CHUNKS, key=lambda chunk: median(pyros[chunk]))
    work = 2 * PARTICLES * (LATENT * HIDDEN + HIDDEN * PIXELS)
    mine, theirs, peak = median(ours), median(pyros[chunk]), median(peaks)
    return {
        "images a second": 1 / mine,
        "eager Pyro's images a second": 1 / theirs,
        "eager Pyro's best chunk": chunk,
        "peak of the matrix products, GFLOP/s": peak / 1e9,
        "share of the matrix products' peak": work / mine / peak,
        "eager Pyro's share": work / theirs / peak,
        "times eager Pyro": theirs / mine,
    }


def evaluations(rows: int = 50, epochs: int = 40) -> dict[str, Any]:
    """Decoder evaluations until every datum's error is at most `TARGET`: adaptive, and by one K for all.

    Adaptive: Normals refined for every datum, pilots, and what these ask for; a gradient counts as two more. One K for
    all is what the datum with the largest error needs, by the error of 5,000 draws from the guide, which heavy tails
    make too small; and, with the refined Normals as proposals, what the datum with the most particles was given.
    """
    x = torch.from_numpy(digits(2048))
    story, short, count = fitted(x, epochs), steps.SHORT, 0
    x = x[:rows]
    error = float(importance(story, x, particles=PARTICLES, progress=False).standard_error.max())

    def counting(_: Any, inputs: tuple[Tensor, ...]) -> None:
        nonlocal count
        count += math.prod(inputs[0].shape[:-1]) * (3 if torch.is_grad_enabled() else 1)

    hook = story.likelihood.network.register_forward_pre_hook(counting)
    steps.SHORT = math.inf  # ordinary Python alone calls the hook
    try:
        evidence = refined_sampling(story, x, particles=100, target_error=TARGET, progress=False)
    finally:
        hook.remove()
        steps.SHORT = short
    adaptive, by_guide = count / rows, PARTICLES * (error / TARGET) ** 2
    return {
        "adaptive: worst error, nats": float(evidence.standard_error.max()),
        "adaptive: decoder evaluations of a datum": adaptive,
        "one K for all, from the guide": by_guide,
        "one K for all, from refined Normals": int(evidence.particles.max()),
        "times fewer evaluations": by_guide / adaptive,
    }


def peak_memory(particles: int, rows: int) -> float:
    """MiB that a process of its own takes at most."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_memory, (particles, rows))


def _memory(particles: int, rows: int) -> float:
    x = torch.from_numpy(digits(8)).repeat(max(1, rows // 8), 1)[:rows]
    if particles:
        importance(fitted(x, 0), x, particles=particles, progress=False)
    status = Path("/proc/self/status").read_text(encoding="utf-8")  # getrusage counts the parent's memory too
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the JSON goes")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for part in (lambda: throughput(options.rounds), evaluations):
        for name, figure in part().items():
            wanted = f"  (wanted {WANTED[name]:g})" if name in WANTED else ""
            print(f"{name}: {figure:,.3g}{wanted}" if isinstance(figure, float) else f"{name}: {figure:,}", flush=True)
            found[name] = figure
    found["memory"] = []
    for particles, rows in ((0, 8), (5_000, 8), (500_000, 8), (100, 80), (100, 8_000)):
        mebibytes = peak_memory(particles, rows)
        found["memory"].append({"particles": particles, "data": rows, "MiB": mebibytes})
        print(f"peak memory of a process, {particles:,} particles of {rows:,} data: {mebibytes:.0f} MiB", flush=True)
    options.out.mkdir(exist_ok=True)
    (options.out / "evaluation.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main()
