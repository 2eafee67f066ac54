"""Results to figures. Nothing is computed here that a table should hold."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ppvae.evaluation.comparison import Group
from ppvae.training.history import History

FIRST, SECOND = "#4477aa", "#cc6677"
TEXT = {"va": "center", "fontsize": 7}


def image_rows(rows: Mapping[str, Tensor], shape: tuple[int, ...], title: str) -> Figure:
    """One labelled strip of images, `(N, features)`, for each entry; data that are no images as one line each."""
    columns = max(len(images) for images in rows.values())
    figure = Figure(figsize=(2.4 + 0.4 * columns, 0.45 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axis, (name, images) in zip(axes, rows.items(), strict=True):
        _strip(axis, images.detach().cpu().float(), shape)
        weight = "bold" if name.startswith("test data") else "normal"
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8, fontweight=weight)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    figure.suptitle(title, fontsize=11)
    return figure


def _strip(axis: Axes, images: Tensor, shape: tuple[int, ...]) -> None:
    if len(shape) == 2:  # steps of features: one line a feature, the data side by side
        for datum, steps in enumerate(images.reshape(-1, *shape).numpy()):
            axis.set_prop_cycle(None)
            axis.plot(datum * 1.2 * shape[0] + np.arange(shape[0]), steps, lw=0.8, alpha=0.8)
        return
    if len(shape) != 3 or shape[0] not in {1, 3}:
        axis.plot(images.T.numpy(), lw=0.8, alpha=0.7)
        return
    low, high = images.min(), images.max()
    images = ((images - low) / (high - low).clamp_min(1e-12)).reshape(-1, *shape)
    paper = 0.0 if shape[0] == 1 else 1.0  # grey levels are ink on white paper
    framed = torch.nn.functional.pad(images, (1, 1, 1, 1), value=paper)
    picture = torch.cat(list(framed), dim=-1).permute(1, 2, 0).squeeze(-1)
    axis.imshow(picture.numpy(), cmap="gray_r", vmin=0, vmax=1)


def latent_spaces(
    spaces: Mapping[str, tuple[Tensor, Mapping[str, Tensor]]], labels: Tensor | None, shape: tuple[int, ...], title: str
) -> Figure:
    """A row for each entry: its codes `(N, 2)`, coloured by label, and strips of images `(N, features)` beside them."""
    strips = list(next(iter(spaces.values()))[1])
    figure = Figure(figsize=(3 + 4.2 * len(strips), 0.72 * len(spaces) + 1.2), layout="constrained")
    figure.set_layout_engine("constrained", wspace=0.05)
    axes = figure.subplots(len(spaces), 1 + len(strips), squeeze=False, width_ratios=[1.3, *(4.0 for _ in strips)])
    for axis, heading in zip(axes[0], ["codes", *strips], strict=True):
        axis.set_title(heading, fontsize=9)
    for row, (name, (codes, images)) in zip(axes, spaces.items(), strict=True):
        _scatter(row[0], codes, labels, size=2)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        for axis, what in zip(row[1:], strips, strict=True):
            _strip(axis, images[what].detach().cpu().float(), shape)
            axis.spines[:].set_visible(False)
        for axis in row:
            axis.set(xticks=[], yticks=[])
    handles, names = axes[0][0].get_legend_handles_labels()
    if 0 < len(names) <= 20:
        figure.legend(handles, names, loc="outside lower center", ncols=10, markerscale=5, fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    return figure


def _scatter(axis: Axes, codes: Tensor, labels: Tensor | None, size: float) -> None:
    points = codes.detach().cpu()
    if labels is None:
        axis.scatter(points[:, 0], points[:, 1], s=size, color=FIRST, linewidths=0)
        return
    classes = sorted(set(labels.tolist()))
    colours = colormaps["tab10" if len(classes) <= 10 else "turbo"].resampled(max(len(classes), 2))
    for index, label in enumerate(classes):
        chosen = points[labels == label]
        axis.scatter(chosen[:, 0], chosen[:, 1], s=size, color=colours(index), label=str(label), linewidths=0)


def latent_planes(planes: Mapping[str, Tensor], labels: Tensor | None, title: str) -> Figure:
    """One scatter of codes `(N, 2)` for each entry, coloured by label."""
    columns = min(4, len(planes))
    rows = -(-len(planes) // columns)
    figure = Figure(figsize=(max(3.2 * columns, 5), 3.0 * rows + 0.8), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    classes = [] if labels is None else set(labels.tolist())
    for axis in axes[len(planes) :]:
        axis.set_visible(False)
    for axis, (name, codes) in zip(axes, planes.items(), strict=False):
        _scatter(axis, codes, labels, size=6)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("axis 1", fontsize=7)
        axis.set_ylabel("axis 2", fontsize=7)
        axis.locator_params(nbins=6)
        axis.tick_params(labelsize=7)
    if 0 < len(classes) <= 20:
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=10, markerscale=3, fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    return figure


def decoded_grid(images: Tensor, shape: tuple[int, ...], side: int, title: str) -> Figure:
    """`side` x `side` decoded images, laid out as their codes lie in the latent plane."""
    channels, height, width = shape
    images = images.detach().cpu().float()
    images = (images - images.min()) / (images.max() - images.min()).clamp_min(1e-12)
    grid = torch.nn.functional.pad(images.reshape(side, side, channels, height, width), (1, 1, 1, 1))
    height, width = height + 2, width + 2
    picture = grid.permute(0, 3, 1, 4, 2).reshape(side * height, side * width, channels)
    figure = Figure(figsize=(6, 6.4), layout="constrained")
    axis = figure.subplots()
    axis.imshow(picture.squeeze(-1).numpy(), cmap="gray_r")
    names = [f"{(i + 0.5) / side:.2f}" for i in range(side)]
    axis.set_xticks([(i + 0.5) * width - 0.5 for i in range(side)][::2], names[::2], fontsize=8)
    axis.set_yticks([(i + 0.5) * height - 0.5 for i in range(side)][::2], names[::-1][::2], fontsize=8)
    axis.set_xlabel("z1, as a quantile of N(0, 1)")
    axis.set_ylabel("z2, as a quantile of N(0, 1)")
    axis.set_title(title, fontsize=11)
    return figure


def kl_per_dimension(divergences: Mapping[str, Tensor], title: str) -> Figure:
    """The divergence of every latent dimension, largest first: one line of points for each entry."""
    figure = Figure(figsize=(6.5, 4.2 + 0.17 * len(divergences)), layout="constrained")
    axis = figure.subplots()
    for index, (name, values) in enumerate(divergences.items()):
        color = colormaps["tab20"]((2 * index + index // 10) % 20)
        axis.plot(range(1, len(values) + 1), values.detach().cpu(), "o-", ms=3, lw=1, color=color, label=name)
    axis.set_xlabel("latent dimension, by its divergence")
    axis.set_ylabel("KL(q(z_i|x) || p(z_i)), nats per datum")
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    figure.suptitle(title, fontsize=11)
    return figure


def learning_curves(curves: Mapping[str, Mapping[str, History]], title: str) -> Figure:
    """One panel for each group of comparable losses: training dashed, validation solid, nats per datum."""
    longest = max(len(histories) for histories in curves.values())
    figure = Figure(figsize=(max(4.6 * len(curves), 6), 4.2 + 0.17 * longest), layout="constrained")
    for axis, (group, histories) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        late: list[float] = []
        for index, (name, history) in enumerate(histories.items()):
            epochs = range(1, len(history.loss) + 1)
            valid = [np.nan if value is None else value for value in history.valid]
            marker = "o" if len(history.loss) == 1 else None  # one epoch is a point, not a line
            color = colormaps["tab20"]((2 * index + index // 10) % 20)  # ten strong ones, then ten pale ones
            axis.plot(epochs, history.loss, "--", marker=marker, color=color, lw=1, alpha=0.7)
            axis.plot(epochs, valid, marker=marker, color=color, lw=1.4, label=name)
            late += [*history.loss[len(history.loss) // 15 :], *valid[len(valid) // 15 :]]
        finite = [value for value in late if np.isfinite(value)]
        if finite and max(finite) > min(finite):  # the first epochs would flatten all the rest
            margin = 0.05 * (max(finite) - min(finite))
            axis.set_ylim(min(finite) - margin, max(finite) + margin)
        axis.set_title(group, fontsize=9)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_ylabel("loss, nats per datum")
        axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.14))  # beneath: it would hide the curves
    figure.suptitle(f"{title} (dashed: training; solid: validation)", fontsize=11)
    return figure


def bound_bars(groups: Sequence[Group], title: str) -> Figure:
    """-ELBO beside -log p(x) for every ranked row, above the best -log p(x) of its group, one panel for each group."""
    ranked = [group for group in groups if group.ranked]
    heights = [len(group.rows) for group in ranked]
    figure = Figure(figsize=(8.5, 0.5 * sum(heights) + 0.7 * len(ranked) + 0.9), layout="constrained")
    axes = figure.subplots(len(ranked), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axis, group in zip(axes, ranked, strict=True):
        best = min(row.mean["neg_log_p"] for row in group.rows)
        places = np.arange(len(group.rows))
        elbo = [row.mean["neg_elbo"] - best for row in group.rows]
        log_p = [row.mean["neg_log_p"] - best for row in group.rows]
        errors = [2 * row.mean["monte_carlo_error"] for row in group.rows]
        axis.barh(places - 0.2, elbo, 0.38, color=FIRST, label="-ELBO")
        axis.barh(places + 0.2, log_p, 0.38, xerr=errors, color=SECOND, label="-log p(x) ± 2 Monte Carlo errors")
        for place, row in zip(places, group.rows, strict=True):
            values = (row.mean["neg_elbo"], row.mean["neg_log_p"])
            for shift, bar, value in zip((-0.2, 0.2), (elbo[place], log_p[place]), values, strict=True):
                if np.isfinite(bar):  # a point mass has no ELBO to speak of
                    text = f"{value:.1f}, the best" if bar == 0 and shift > 0 else f"{value:.1f}"
                    axis.annotate(text, (bar, place + shift), (4, 0), textcoords="offset points", **TEXT)
        axis.set_yticks(places, [row.name for row in group.rows], fontsize=8)
        axis.invert_yaxis()
        axis.set_xlim(0, max(1.15 * np.nanmax(elbo + log_p), 1.0))
        measure = group.rows[0].contract.measure
        heading = f"{group.title}: {measure}; the best is {best:.2f} nats per datum"
        axis.set_title(heading, fontsize=9, loc="left")
        axis.grid(axis="x", alpha=0.3)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    axes[-1].set_xlabel("nats per datum above the best -log p(x) of the group; shorter is better", fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure
