"""Figures of inference: gaps, rank histograms, methods side by side, posteriors in the latent plane."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ppvae.inference.diagnostics.calibration import Calibration
from ppvae.inference.diagnostics.gaps import Difference
from ppvae.plots.stories import FIRST, SECOND

SHOWN = 300  # draws in a plane
GREY = "#bbbbbb"
SHADES = ("#e3e8f0", "#c3cfe0", "#94a9c9", "#5f7fae")  # of the 99, 90, 50 and 10 % regions


class Plane(NamedTuple):
    """One datum's posterior on a grid of a two-dimensional latent, and each method's draws."""

    title: str
    first: Tensor  # (columns,), values of u_1
    second: Tensor  # (rows,), of u_2
    density: Tensor  # (rows, columns), of p(u | x)
    draws: Mapping[str, Tensor]  # method: (draws, 2)


def gap_bars(parts: Mapping[str, Sequence[Difference]], title: str) -> Figure:
    """Gaps with two standard errors, a group of bars for each gap and a colour for each part of the data.

    A difference within two errors of 0 is drawn pale: it is unresolved.

    Args:
        parts: for each, such as `train` and `test`, the same gaps in the same order.
    """
    names = [gap.name for gap in next(iter(parts.values()))]
    figure = Figure(figsize=(1.9 * len(names) + 1.4, 4.2), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / len(parts)
    top = max(gap.mean + 2 * _finite(gap.error) for gaps in parts.values() for gap in gaps)
    for number, (colour, (part, gaps)) in enumerate(zip((FIRST, SECOND, "#228833"), parts.items(), strict=False)):
        places = np.arange(len(names)) + (number - (len(parts) - 1) / 2) * width
        for place, gap in zip(places, gaps, strict=True):
            alpha, error = 0.9 if gap.resolved else 0.3, 2 * _finite(gap.error)
            axis.bar(place, gap.mean, 0.92 * width, color=colour, alpha=alpha, lw=0)
            axis.errorbar(place, gap.mean, error, color="black", lw=1.2, capsize=3)
            text = f"{gap.mean:.2f}" if gap.resolved else "unresolved"
            above = max(gap.mean + error, 0) + 0.015 * max(top, 1e-9)
            axis.text(place, above, text, ha="center", va="bottom", fontsize=8)
        axis.plot([], [], color=colour, lw=7, alpha=0.9, label=part)
    axis.axhline(0, color="black", lw=0.8)
    axis.set_xticks(range(len(names)), [_broken(name) for name in names])
    axis.set_ylabel("nats per datum")
    axis.set_title("bars: mean over data ± 2 standard errors; pale: within them of 0", fontsize=9)
    axis.legend(fontsize=9, frameon=False)
    axis.margins(y=0.12)
    if all(gap.mean - 2 * _finite(gap.error) >= 0 for gaps in parts.values() for gap in gaps):
        axis.set_ylim(bottom=0)
    _tidy(axis)
    figure.suptitle(title, fontsize=11)
    return figure


def rank_histograms(found: Mapping[str, Calibration], title: str) -> Figure:
    """How the latents that made the data rank among each method's draws: level where a posterior is right.

    Dimensions are counted together; the band holds 95 % of the counts of a bin if they were independent.
    """
    columns = min(4, len(found))
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(2.7 * columns, 2.3 * rows + 0.9), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for axis, (name, calibration) in zip(axes, found.items(), strict=False):
        ranks = calibration.ranks.flatten().cpu().numpy()
        bins = max(b for b in (5, 10, 20) if (calibration.draws + 1) % b == 0 or b == 5)
        counts, edges = np.histogram(ranks, bins, (-0.5, calibration.draws + 0.5))
        level = len(ranks) / bins
        spread = 1.96 * math.sqrt(level * (1 - 1 / bins))
        edges = (edges + 0.5) / (calibration.draws + 1)
        axis.axhspan(level - spread, level + spread, color=GREY, alpha=0.5, lw=0)
        axis.axhline(level, color="black", lw=0.8)
        right = calibration.worst >= 0.01
        axis.stairs(counts, edges, fill=True, color=FIRST if right else SECOND, alpha=0.75)
        axis.set_title(f"{name}: p {_p(calibration.worst)}", fontsize=9, color="black" if right else SECOND)
        axis.set_xlim(0, 1)
        _tidy(axis)
    for axis in axes[len(found) :]:
        axis.set_visible(False)
    figure.supxlabel("rank of the true latent among the draws, as a share", fontsize=9)
    figure.supylabel("dimensions of simulated data", fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure


def method_dots(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """The table of methods as dots, a column for each measure and a line for each method.

    Args:
        rows: `Measured.summary()` of each.
    """
    names = [str(row["method"]) for row in rows]
    panels = [
        ("gap", "log p(x) - ELBO\nnats, ± 2 errors", "symlog"),
        ("pareto_k_above_0.7", "data with\nk-hat > 0.7", "linear"),
        ("mean_error", "error of mean\nposterior sd", "log"),
        ("log_variance_bias", "log-variance\n< 0: too narrow", "linear"),
        ("calibration_p", "calibration\np-value", "log"),
        ("milliseconds", "time\nms per datum", "log"),
    ]
    figure = Figure(figsize=(12.5, 0.38 * len(rows) + 1.7), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True)
    places = np.arange(len(rows))[::-1]
    for axis, (key, label, scale) in zip(axes, panels, strict=True):
        values = np.array([float(row[key]) for row in rows])
        if key == "calibration_p":
            values = np.maximum(values, 1e-8)
            axis.axvspan(1e-9, 0.01, color=SECOND, alpha=0.12, lw=0)
        errors = np.array([2 * float(row["gap_error"]) for row in rows]) if key == "gap" else None
        axis.errorbar(values, places, xerr=errors, fmt="o", color=FIRST, ms=6, capsize=2, lw=1.2)
        said = "no density" if key in {"gap", "pareto_k_above_0.7"} else "not done"
        across = axis.get_yaxis_transform()
        for place in places[np.isnan(values)]:
            axis.text(0.5, place, said, color="#888888", ha="center", va="center", fontsize=7, transform=across)
        if scale == "symlog":
            ends = values + np.where(np.isnan(errors), 0.0, errors) if errors is not None else values
            top = max(0.02, float(np.nanmax(ends, initial=0.02)))
            axis.set_xscale("symlog", linthresh=0.01)
            axis.set_xlim(-0.02, 1.6 * top)  # a gap is not below 0, whatever its error
            axis.set_xticks([0, *(t for t in (0.01, 0.1, 1, 10, 100, 1000) if t < 1.6 * top)])
            axis.xaxis.set_major_formatter(lambda gap, _: f"{gap:g}")
            axis.axvline(0, color="black", lw=0.8, zorder=0)
        elif scale == "log":
            axis.set_xscale("log")
        if key == "log_variance_bias":
            axis.axvline(0, color="black", lw=0.8)
        if key == "pareto_k_above_0.7":
            axis.set_xlim(-0.05, 1.05)
            axis.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        if key == "calibration_p":
            axis.set_xlim(3e-9, 2)
        axis.set_xlabel(label, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        _tidy(axis)
    axes[0].set_yticks(places, names, fontsize=9)
    axes[0].set_ylim(-0.6, len(rows) - 0.4)
    figure.suptitle(title, fontsize=11)
    return figure


def latent_plane(planes: Sequence[Plane], title: str) -> Figure:
    """Each datum's true posterior density, a line for each datum, and a column with each method's draws over it."""
    methods = list(planes[0].draws)
    figure = Figure(figsize=(1.75 * len(methods) + 0.6, 1.9 * len(planes) + 0.8), layout="constrained")
    axes = figure.subplots(len(planes), len(methods), squeeze=False)
    for line, plane in zip(axes, planes, strict=True):
        first, second, density = (part.double().numpy() for part in (plane.first, plane.second, plane.density))
        levels = _levels(density)
        for axis, name in zip(line, methods, strict=True):
            if name not in plane.draws:  # a slow method, which was given the first data only
                axis.set_visible(False)
                continue
            draws = plane.draws[name]
            axis.contourf(first, second, density, [*levels, density.max() * 1.001], colors=SHADES)
            some = draws[:: max(1, len(draws) // SHOWN)][:SHOWN].double().numpy()
            axis.plot(some[:, 0], some[:, 1], ".", color="#c0392b", ms=3.2, alpha=0.75, mew=0)
            axis.set(xlim=(first[0], first[-1]), ylim=(second[0], second[-1]))
            outside = _outside(draws.double().numpy(), first, second)
            if outside >= 0.005:
                where = {"ha": "right", "va": "top", "transform": axis.transAxes}
                axis.text(0.97, 0.97, f"{outside:.0%} outside", fontsize=7, color="#c0392b", **where)
            axis.tick_params(labelsize=6)
            axis.locator_params(nbins=3)
            if plane is planes[0]:
                axis.set_title(name, fontsize=9)
        line[0].set_ylabel(f"{plane.title}\nu₂", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("u₁", fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure


def _outside(draws: Any, first: Any, second: Any) -> float:
    """The share of draws that a plane does not show."""
    inside = (draws >= [first[0], second[0]]) & (draws <= [first[-1], second[-1]])
    return float(1 - inside.all(-1).mean())


def _levels(density: Any) -> list[float]:
    """Densities whose highest regions hold 99, 90, 50 and 10 % of the mass."""
    falling = np.sort(density.flatten())[::-1]
    mass = falling.cumsum() / falling.sum()
    found = [float(falling[min(int((mass < share).sum()), len(falling) - 1)]) for share in (0.99, 0.9, 0.5, 0.1)]
    return sorted({*found})


def _p(value: float) -> str:
    return f"= {value:.2f}" if value >= 0.01 else f"= {value:.0e}" if value > 1e-8 else "< 1e-8"


def _broken(name: str) -> str:
    words = name.split()
    return " ".join(words[:-1]) + "\n" + words[-1] if len(words) > 1 else name


def _finite(error: float) -> float:
    return error if math.isfinite(error) else 0.0


def _tidy(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
