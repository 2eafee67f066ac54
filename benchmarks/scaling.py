"""`make bench`, its second half: what a fit costs as data, particles and epochs grow from 10^2 to 10^5.

A small VAE (64-32-4) of binary digits' size; whole fits by `compile="auto"`, the choice and its compilation included.
The slope is that of the straight line through the logarithms of the last points, 1 where cost is linear.
"""

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

import ppvae
from ppvae import networks
from ppvae.inference import iwae
from ppvae.models import VAE, encoders, likelihoods, priors

HERE = Path(__file__).parent
PIXELS, HIDDEN, LATENT = 64, 32, 4
SIZES = [100, 300, 1_000, 3_000, 10_000, 30_000, 100_000]


def seconds(rows: int, particles: int, epochs: int, batch_size: int) -> float:
    """Of a whole fit."""
    torch.manual_seed(0)
    story = VAE(
        priors.StandardNormal(LATENT),
        likelihoods.Bernoulli(networks.mlp(LATENT, [HIDDEN], PIXELS)),
        encoders.DiagonalNormal(networks.mlp(PIXELS, [HIDDEN], 2 * LATENT)),
    )
    x = torch.bernoulli(torch.full((rows, PIXELS), 0.3))
    start = time.perf_counter()
    ppvae.fit(
        story, x, objective=partial(iwae, particles=particles), epochs=epochs, batch_size=batch_size, progress=False
    )
    return time.perf_counter() - start


CURVES: dict[str, tuple[str, Callable[[int], float]]] = {
    "data": ("3 epochs, 1 particle, batch 100", lambda size: seconds(size, 1, 3, 100)),
    "particles": ("2 steps on 8 rows", lambda size: seconds(8, size, 2, 8)),
    "epochs": ("100 rows, batch 100, 1 particle", lambda size: seconds(100, 1, size, 100)),
}


def measure(name: str, sizes: Sequence[int]) -> Iterator[tuple[int, float]]:
    _, cost = CURVES[name]
    cost(sizes[0])  # what torch does once
    for size in sizes:
        yield size, cost(size)


def slope(points: Sequence[tuple[int, float]], last: int = 4) -> float:
    """Least squares of log seconds on log size."""
    logs = [(math.log(size), math.log(cost)) for size, cost in points[-last:]]
    x, y = (sum(values) / len(logs) for values in zip(*logs, strict=True))
    return sum((a - x) * (b - y) for a, b in logs) / sum((a - x) ** 2 for a, _ in logs)


def plot(curves: dict[str, list[tuple[int, float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 4.5), layout="constrained")
    for name, points in curves.items():
        axis.loglog(*zip(*points, strict=True), "o-", label=f"{name}: slope {slope(points):.2f} ({CURVES[name][0]})")
    axis.set_xlabel("data, particles or epochs")
    axis.set_ylabel("seconds")
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the JSON and the plot go")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    sizes = [size for size in SIZES if size <= options.largest]
    curves: dict[str, list[tuple[int, float]]] = {}
    for name, (setting, _) in CURVES.items():
        print(f"\nseconds by {name} ({setting})", flush=True)
        curves[name] = []
        for size, cost in measure(name, sizes):
            curves[name].append((size, cost))
            print(f"{size:>9,} {cost:8.2f}", flush=True)
        print(f"slope of the last four: {slope(curves[name]):.2f}")
    options.out.mkdir(exist_ok=True)
    (options.out / "scaling.json").write_text(json.dumps(curves, indent=1))
    plot(curves, options.out / "scaling.png")


if __name__ == "__main__":
    main()
