"""`make bench`, its last part: what a fit spends on holding its graphs against ordinary Python.

A whole fit of the textbook VAE at batch 128, in 10 epochs. Both figures are of one process: the seconds of the check,
and those of the fit, with what it compiles and without.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from problem import HIDDEN, LATENT, LEARNING_RATE, PIXELS, digits

import ppvae
from ppvae import networks
from ppvae.compilation import compiled
from ppvae.models import VAE, encoders, likelihoods, priors

HERE = Path(__file__).parent
EPOCHS, BATCH = 10, 128
WANTED = 0.01  # at most, of a fit


def timed(call: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The same function, its seconds written down."""

    def timing(*given: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*given, **options)
        finally:
            seconds.append(time.perf_counter() - start)

    return timing


def fit(x: torch.Tensor) -> None:
    torch.manual_seed(0)
    story = VAE(
        priors.StandardNormal(LATENT),
        likelihoods.Bernoulli(networks.mlp(LATENT, [HIDDEN], PIXELS)),
        encoders.DiagonalNormal(networks.mlp(PIXELS, [HIDDEN], 2 * LATENT)),
    )
    ppvae.fit(story, x, epochs=EPOCHS, batch_size=BATCH, lr=LEARNING_RATE, compile="always", progress=False)


def measure(steps: int, root: str | None) -> dict[str, float]:
    """Seconds of a compiled fit, of its checks and of its compilation."""
    x = torch.from_numpy(digits(steps // EPOCHS * BATCH, root))
    checks, compilations = list[float](), list[float]()
    compiled.check = timed(compiled.check, checks)
    compiled.Gradients._compile = timed(compiled.Gradients._compile, compilations)  # type: ignore[method-assign]
    start = time.perf_counter()
    fit(x)
    total = time.perf_counter() - start
    return {"total": total, "checks": sum(checks), "compilation": sum(compilations), "steps": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--root", default=None, help="a folder that holds MNIST; made-up digits without it")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the JSON goes")
    options = parser.parse_args()
    found = measure(options.steps, options.root)
    alone = found["total"] - found["compilation"]
    print(f"\n| the check, of a compiled fit of {options.steps:,} steps | | wanted |\n|---|---|---|")
    print(f"| seconds of the fit, and of these to compile | {found['total']:.1f}, {found['compilation']:.1f} | |")
    print(f"| seconds of the check | {found['checks']:.3f} | |")
    print(f"| share of the fit | {found['checks'] / found['total']:.2%} | below {WANTED:.0%} |")
    print(f"| share of the fit without its compilation | {found['checks'] / alone:.2%} | |")
    options.out.mkdir(exist_ok=True)
    (options.out / "checks.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
