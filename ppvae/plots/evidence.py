"""Figures that show whether an evidence estimate can be trusted. What they draw is computed elsewhere."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from torch import Tensor

from ppvae.inference.evidence.bound_curve import BoundCurve
from ppvae.inference.evidence.tail import Tail
from ppvae.inference.program.weights import log_mean_exp
from ppvae.plots.stories import FIRST, SECOND

COLOURS = (FIRST, SECOND, "#228833", "#aa3377", "#ccbb44", "#66ccee")
TAIL_BINS, BODY_BINS = 15, 70  # bars right of the cut-off, and at most left of it
Array = npt.NDArray[np.float64]


class Bounds(NamedTuple):
    """Bounds on log p(x) from below and above, means over the data, nats per datum. Tensors are `(rungs,)`."""

    distributions: Tensor  # how many lie between the prior and the posterior, rising
    lower: Tensor
    lower_error: Tensor  # Monte Carlo error of the mean
    upper: Tensor
    upper_error: Tensor


def weight_histogram(log_w: Tensor, tail: Tail, title: str) -> Figure:
    """How one datum's weights lie about their mean, and the tail that k-hat judges.

    Bars count draws; the curve is the number that the fitted generalised Pareto distribution expects in a bar, right
    of the largest weight as well: what it expects there, no draw has shown.

    Args:
        log_w: `(particles,)`, nats, of one datum.
        tail: its fit by `fit_tail`, one number each.

    Raises:
        ValueError: no draw has any weight.
    """
    k, log_scale, log_cutoff, share = (float(part) for part in tail)
    mean = log_mean_exp(log_w.double()).item()
    if not math.isfinite(mean):
        raise ValueError("a histogram needs a draw with some weight; every log-weight is -inf")
    relative = log_w.detach().cpu().double().numpy() - mean  # log(w / mean w)
    edges = _edges(relative, log_cutoff - mean)
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    counts = np.histogram(relative, edges)[0]
    axis.stairs(counts, edges, fill=True, color=FIRST, alpha=0.8)
    axis.axvline(0, color="black", lw=1, ls="--", label="mean weight: the estimate of p(x)")
    left = log_cutoff - mean
    if (relative > left).any():
        axis.axvspan(left, edges[-1], color=SECOND, alpha=0.13, lw=0, label=f"tail: the largest {share:.1%} of draws")
    if math.isfinite(k):
        x = np.linspace(left, edges[-1], 400)[1:]
        expected = share * len(relative) * (edges[1] - edges[0]) * _pareto_density(x, k, log_scale - mean, left)
        axis.plot(x, expected, color=SECOND, lw=2, label="generalised Pareto fitted to the tail")
    lost = (relative < edges[0]).mean()
    axis.set(yscale="log", ylim=(0.5, 8 * max(counts.max(), 1)), xlim=(edges[0], edges[-1]), ylabel="draws")
    axis.set_xlabel("log w - log mean w, nats" + (f"   ({lost:.1%} of draws lie further left)" if lost else ""))
    axis.yaxis.set_major_formatter(lambda number, _: _count(number))
    axis.set_title(in_words(k), fontsize=10, color=SECOND if k > 0.7 else "black")
    axis.legend(fontsize=8, loc="upper left", frameon=False)
    _tidy(axis)
    figure.suptitle(title, fontsize=11)
    return figure


def in_words(k: float) -> str:
    """What k-hat says of the estimate."""
    if math.isnan(k):
        return "k-hat unknown: too few draws for a tail"
    if k > 0.7:
        return f"k-hat {k:.2f}: too heavy, the estimate is unreliable"
    if k > 0.5:
        return f"k-hat {k:.2f}: heavy, the estimate is usable and its error rough"
    weight = "bounded" if k == -math.inf else "light"
    return f"k-hat {k:.2f}: {weight}, the estimate and its error can be trusted"


def _edges(relative: Array, cutoff: float) -> Array:
    """Of equal bars, one of which begins at the cut-off; the far left, which adds nothing, would flatten the tail."""
    finite = relative[np.isfinite(relative)]
    low, high = finite.min(), finite.max()
    if not high > cutoff:  # there is no tail
        spare = 0.0 if high > low else 0.5
        return np.linspace(low - spare, high + spare, 41)
    width = 1.15 * (high - cutoff) / TAIL_BINS
    body = min(math.ceil((cutoff - low) / width), BODY_BINS)
    return cutoff + width * np.arange(-body, TAIL_BINS + 1)


def _pareto_density(log_w: Array, k: float, log_scale: float, log_cutoff: float) -> Array:
    """Of log w, a nat, where w - cut-off is generalised Pareto: w / scale (1 + k (w - cut-off) / scale)^(-1/k - 1)."""
    k = k if abs(k) > 1e-9 else 1e-9
    exceedance = np.exp(log_w - log_scale) - np.exp(log_cutoff - log_scale)
    within = 1 + k * exceedance > 0  # a bounded tail ends
    log_survival = -np.log1p(np.where(within, k * exceedance, 0.0)) * (1 / k + 1)
    return np.where(within, np.exp(log_w - log_scale + log_survival), np.nan)


def k_curve(curves: Mapping[str, BoundCurve], title: str, final: float | None = None) -> Figure:
    """How the bound of each method rises with its particles, mean over the data, in a band of two standard errors.

    Args:
        curves: for each method what `bound_curve` gives of its log-weights.
        final: the best estimate there is of mean log p(x), nats per datum: a line to rise to.
    """
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axis = figure.subplots()
    if final is not None:
        axis.axhline(final, color="black", lw=1, ls="--", label=f"final estimate: {final:.2f}")
    for colour, (name, curve) in zip(_colours(curves), curves.items(), strict=True):
        x, mean = _array(curve.particles), _array(curve.estimate.mean(dim=1))
        band = 2 * _array(curve.standard_error.square().sum(dim=1).sqrt() / curve.estimate.shape[1])
        label = f"{name}: {mean[-1]:.2f} ± {band[-1]:.2f} at K = {_count(x[-1])}"
        axis.fill_between(x, mean - band, mean + band, color=colour, alpha=0.25, lw=0)
        axis.plot(x, mean, "o-", color=colour, ms=4, lw=1.6, label=label)
    axis.set_ylabel("E[log 1/K Σ w], nats per datum")
    _log_counts(axis, "K, particles to a bound; bands: ± 2 Monte Carlo errors")
    axis.legend(fontsize=8, loc="lower right", frameon=False)
    figure.suptitle(title, fontsize=11)
    return figure


def sandwich(curves: Mapping[str, Bounds], title: str) -> Figure:
    """log p(x) between its bounds, which close in on it as the intermediate distributions grow in number.

    Args:
        curves: for each method its bounds, nats per datum.
    """
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axis = figure.subplots()
    for index, (colour, (name, curve)) in enumerate(zip(_colours(curves), curves.items(), strict=True)):
        x, lower, lower_error, upper, upper_error = (_array(part) for part in curve)
        axis.fill_between(x, lower, upper, color=colour, alpha=0.15, lw=0)
        for bound, error, marker in ((lower, lower_error, "^"), (upper, upper_error, "v")):
            axis.errorbar(x, bound, 2 * error, marker=marker, color=colour, ms=5, lw=1.6, capsize=2)
        axis.plot([], [], color=colour, lw=6, alpha=0.6, label=name)
        above = 12 * (0.5 * (len(curves) - 1) - index)  # the gaps of several methods lie one over the other
        place, gap = (x[-1], 0.5 * (lower[-1] + upper[-1])), upper[-1] - lower[-1]
        within = 2 * math.hypot(lower_error[-1], upper_error[-1])
        text = f"gap {gap:.2g} ± {within:.1g} nats"
        axis.annotate(text, place, (12, above), textcoords="offset points", color=colour, fontsize=9, va="center")
    axis.set_ylabel("log p(x), nats per datum")
    axis.set_title("▼ upper bound   ▲ lower bound   bars: ± 2 Monte Carlo errors", fontsize=9)
    _log_counts(axis, "intermediate distributions")
    axis.set_xticks(sorted({count for curve in curves.values() for count in curve.distributions.tolist()}))
    axis.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    return figure


def _colours(methods: Mapping[str, object]) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(len(methods))]


def _array(values: Tensor) -> Array:
    return values.detach().cpu().double().numpy()


def _count(number: float) -> str:
    return f"{number:,.0f}".replace(",", " ")


def _log_counts(axis: Axes, label: str) -> None:
    """A logarithmic axis of counts, written in full."""
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda number, _: _count(number))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel(label)
    axis.grid(axis="y", alpha=0.3)
    _tidy(axis)


def _tidy(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
