"""`ppvae posteriors RUN`: methods of inference side by side on a run's decoder."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ppvae.commands import COMMANDS
from ppvae.evaluation.scoring import give_density
from ppvae.experiments import run_folder
from ppvae.experiments.options import add_trust, new_parser
from ppvae.inference.diagnostics.leaderboard import SLOW, Measured, Reference, check_methods, leaderboard, reference
from ppvae.inference.evidence.flow import flow_sampling, has_density
from ppvae.inference.posteriors.methods import METHODS, log_density_on
from ppvae.inference.program.checks import check_point_mass
from ppvae.inference.program.prepared import prepared
from ppvae.inference.program.traces import batch_for, placed
from ppvae.plots import figures
from ppvae.plots.inference import Plane, latent_plane, method_dots, rank_histograms
from ppvae.progress import track

GUIDED = ("amortised", "semi-amortised", "resampled")
"""Methods that need a guide with a density."""

GRID = 120  # places of a plane in each direction
SHOWN = 3  # data whose planes are drawn
Batch = tuple[Tensor, ...]


def options() -> ArgumentParser:
    parser = new_parser("posteriors", COMMANDS["posteriors"])
    parser.add_argument("run", type=str, help="a folder that `ppvae fit` or `ppvae.save` wrote")
    known = ", ".join(METHODS)
    parser.add_argument(
        "--methods", type=list[str] | None, default=None, help=f"some of {known}; all that there can be"
    )
    parser.add_argument("--split", type=str, default="test", help="train, valid or test")
    parser.add_argument("--rows", type=int, default=30, help="of the first of the data")
    parser.add_argument("--num_samples", type=int, default=1000, help="of every method for each datum")
    parser.add_argument(
        "--num_simulations", type=int, default=200, help="data of the story's own to calibrate by; 0: none"
    )
    parser.add_argument(
        "--reference", type=int, default=2000, help="draws of each of 4 chains that are held to be right"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    add_trust(parser)
    return parser


def run(options: Namespace) -> None:
    """Print the table, and keep it in the run folder with its pictures."""
    if options.split not in {"train", "valid", "test"}:
        raise ValueError(f"split should be train, valid or test, got {options.split}")
    if options.rows < 2:
        raise ValueError(f"rows should be at least 2, so that a mean has an error, got {options.rows}")
    found = run_folder.read(options.run, "trust" in options)
    dataset, story = found.data(), found.story
    given = give_density(story, batch_for(story, **dataset.drawn().tensors("train")))
    batch = placed(story, batch_for(story, **dataset.drawn(options.seed).tensors(options.split, options.rows)))
    methods, left_out = chosen_methods(story, batch, options.methods)
    log_p = flow_sampling(story, batch, particles=max(1000, options.num_samples), seed=options.seed)
    against = reference(story, batch, num_samples=options.reference, seed=options.seed)
    sizes = {name: options[name] for name in ("num_samples", "num_simulations", "seed")}
    entries = leaderboard(story, batch, log_p.estimate, against, methods=methods, **sizes)
    measured = list(track(entries, "methods", total=len(methods)))
    print(f"{found.observation}; the first {len(batch[0])} data of the {options.split} split, nats per datum")
    if given:
        print("the guide is a point mass: p(z) is a mixture of Gaussians fitted to the training codes")
    rows = [entry.summary() for entry in measured]
    print_rows(rows)
    for line in [*notes(against, log_p.estimate), *left_out]:
        print(line)
    some = "" if options.methods is None else "-".join(["", *methods]).replace(" ", "_")
    name = f"posteriors{some}-{options.split}-first{options.rows}-seed{options.seed}"
    summary = {"split": options.split, "seed": options.seed, "log_p": log_p.summary(), "noise": against.noise}
    path = run_folder.write_measures(found, name, {**summary, "methods": rows}, rows)
    print(f"saved in {path}")
    print(f"figures: {', '.join(map(str, figures.save_beside(pictures(story, batch, measured, against), path)))}")


def chosen_methods(story: Any, batch: Batch, asked: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """What is asked for; else all, but those that a guide without a density rules out, and a line that says so."""
    if asked is not None:
        check_methods(asked)
        if any(method in GUIDED for method in asked):
            check_point_mass(story, prepared(story, batch).first)
        return list(asked), []
    if has_density(prepared(story, batch)):
        return list(METHODS), []
    kept = [method for method in METHODS if method not in GUIDED]
    return kept, [f"left out, for want of a guide with a density: {', '.join(GUIDED)}"]


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """A line for each method, on standard output; as wide as it needs to be."""
    table = Table(padding=(0, 1), box=None)
    heads = ("", "data", "ELBO", "log p(x) - ELBO", "log p(x)", "k>0.7", "mean", "log-var", "calibrated", "R-hat", "ms")
    for head in heads:
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    for row in rows:
        gap = f"{row['gap']:.3f} ± {row['gap_error']:.3f}"
        table.add_row(
            row["method"],
            str(row["data"]),
            _number(row["elbo"], ".2f"),
            "-" if math.isnan(row["gap"]) else gap if row["resolved"] else f"unresolved ({gap})",
            _number(row["log_p"], ".2f"),
            _number(row["pareto_k_above_0.7"], ".0%"),
            _number(row["mean_error"], ".3f"),
            _number(row["log_variance_bias"], "+.2f"),
            "-" if math.isnan(row["calibration_p"]) else _judged(row["calibration_p"]),
            _number(row["r_hat"], ".2f"),
            _number(row["milliseconds"], ".1f"),
        )
    console = Console(width=Console(width=1000).measure(table).maximum, highlight=False)
    console.print(table)


def notes(against: Reference, log_p: Tensor) -> list[str]:
    """What the columns are."""
    mixed = int(against.mixed.sum())
    slow = ", ".join(f"{method} is given the first {rows} data" for method, rows in SLOW.items())
    return [
        f"log p(x) {log_p.mean():.3f}, by importance sampling from a flow and a Normal for each datum, and the guide; "
        "beside a method, with its answers as proposals",
        f"mean: root mean square error in posterior deviations (below {against.noise:.3f} is noise of the reference); "
        "log-var: mean of log variance / reference's, below 0 for too narrow",
        f"reference: {len(against.draws)} draws by HMC, R-hat at most {against.r_hat.max():.3f}, "
        f"mixed for {mixed} of {len(log_p)} data",
        f"calibrated: p-value of uniform ranks on simulated data, 'no' below 0.01; ms: per datum; {slow}",
    ]


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else f"{value:{form}}"


def _judged(p: float) -> str:
    return f"p {p:.2f}" if p >= 0.01 else "no"


def pictures(story: Any, batch: Batch, measured: Sequence[Measured], against: Reference) -> figures.Figures:
    """The table as dots, the ranks, and the planes of the first data, where there are two latent dimensions."""
    rows = [entry.summary() for entry in measured]
    found: figures.Figures = {"methods": (method_dots(rows, "Ways to infer z from x, one decoder"), "")}
    ranks = {entry.method: entry.calibration for entry in measured if entry.calibration is not None}
    if ranks:
        heading = "Ranks of the true latents of simulated data: level where the posterior is right"
        found["ranks"] = (rank_histograms(ranks, heading), "")
    if against.mean.shape[-1] == 2:
        planes = [plane(story, batch, measured, against, row) for row in range(min(SHOWN, len(batch[0])))]
        heading = "p(z | x) on a grid (shaded: 99, 90, 50, 10 % of its mass), and each method's draws"
        found["planes"] = (latent_plane(planes, heading), "")
    return found


def plane(story: Any, batch: Batch, measured: Sequence[Measured], against: Reference, row: int) -> Plane:
    """One datum's density where nearly all of it lies, and where most of what each method says does."""
    shown = {entry.method: entry.posterior.draws[:, row] for entry in measured if row < entry.data}
    datum = tuple(part[row : row + 1] for part in batch)
    boxes = [_box(draws) for draws in [against.draws[:, row], *shown.values()]]
    wide = _grid(*_union(boxes))
    density = _density(story, datum, *wide)
    falling = density.flatten().sort(descending=True).values
    least = falling[(falling.cumsum(0) < 0.999 * falling.sum()).sum().clamp_max(len(falling) - 1)]
    second, first = (density >= least).nonzero().T
    low = torch.stack([wide[0][first.min()], wide[1][second.min()]])
    high = torch.stack([wide[0][first.max()], wide[1][second.max()]])
    room = 0.1 * (high - low) + (wide[0][1] - wide[0][0])
    axes = _grid(*_union([(low - room, high + room), *(_middle(draws) for draws in shown.values())]))
    return Plane(f"datum {row}", *axes, _density(story, datum, *axes), {k: draws.cpu() for k, draws in shown.items()})


def _density(story: Any, datum: Batch, first: Tensor, second: Tensor) -> Tensor:
    """p(u | x) on a grid but for its scale: `(rows, columns)`."""
    grid = torch.cartesian_prod(second, first).flip(-1).unsqueeze(1).to(datum[0])  # u_1 varies fastest
    log_p = log_density_on(story, datum, grid)[:, 0].cpu()
    return (log_p - log_p.max()).exp().reshape(len(second), len(first))


def _grid(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    first, second = (torch.linspace(float(a), float(b), GRID) for a, b in zip(low, high, strict=True))
    return first, second


def _union(boxes: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    lows, highs = (torch.stack([side.cpu() for side in sides]) for sides in zip(*boxes, strict=True))
    return lows.amin(0), highs.amax(0)


def _box(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Nearly all of the draws, and some room."""
    low, high = draws.quantile(0.005, dim=0), draws.quantile(0.995, dim=0)
    return low - 0.2 * (high - low), high + 0.2 * (high - low)


def _middle(draws: Tensor) -> tuple[Tensor, Tensor]:
    """About where a method's draws lie, whatever a few stray chains do."""
    centre = draws.median(dim=0).values
    spread = 3 * (draws - centre).abs().median(dim=0).values
    return centre - spread, centre + spread
