"""Which figures a run and a comparison have: what each one shows is computed here and drawn by `plots`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ppvae.base import Batch, optional
from ppvae.data import Dataset
from ppvae.data.files import replacing
from ppvae.evaluation.comparison import Group
from ppvae.evaluation.measure import kl_per_dimension
from ppvae.evaluation.scoring import give_density
from ppvae.experiments.lineup import Fitted
from ppvae.inference.program.codes import decode, encode, reconstruct, sample
from ppvae.inference.program.traces import batch_for
from ppvae.models import VAE, priors
from ppvae.plots import stories
from ppvae.training.history import History

GRID = 15  # side of the decoded grid
SHOWN = 12  # images in a row
PLANE = "Codes of the test data, by label\n(principal axes, where there are more than two)"
SPACES = "Latent spaces"
PATH, DRAWN = "E[x | z] along a straight path between two codes", "E[x | z] at draws of z from p(z)"
Figures = dict[str, tuple[Figure, str]]  # name: figure and caption


def of_run(story: Any, name: str, data: Dataset, history: History) -> Figures:
    """What `ppvae fit` leaves to look at."""
    shape = data.observation.shape
    x = batch_for(story, **data.tensors("test", SHOWN))
    given = give_density(story, batch_for(story, **data.drawn().tensors("train")))  # the run has kept its own
    rows = {"reconstructions": reconstruct(story, x), "a path between two": path(story, data)}
    if not isinstance(optional(story, "prior"), priors.Flat):
        rows["samples, p(z) fitted to the codes" if given else "samples from the prior"] = samples(story, x)
    rows = {"test data": x[0]} | {row: _cut(images, x[0]) for row, images in rows.items()}
    plane = principal_plane(encode(story, batch_for(story, **data.tensors("test"))))
    return {
        "learning-curve": (stories.learning_curves({str(data.observation): {name: history}}, "Learning curve"), ""),
        "images": (
            stories.image_rows(rows, shape, "E[x | z] at the guide's mean, along a path of z, and at z ~ p(z)"),
            "",
        ),
        "latent-plane": (
            stories.latent_planes(
                {name: plane},
                data.test_labels,
                PLANE,
            ),
            "",
        ),
    }


def of_comparison(fitted: Sequence[Fitted], groups: Sequence[Group]) -> Figures:
    """What `ppvae compare` shows beside its table."""
    shape, labels = fitted[0].data.observation.shape, fitted[0].data.test_labels
    weighed = [entry for entry in fitted if entry.result.evidence is not None]
    rebuilt: dict[str, Tensor] = {}
    for entry in fitted:  # the data of each view once, before the first that saw them so
        x = _shown(entry)
        rebuilt.setdefault(f"test data, {view(entry.data)}", x[0])
        rebuilt[entry.contender.name] = _cut(reconstruct(entry.story, x), x[0])
    curves: dict[str, dict[str, History]] = {}
    for entry in weighed:
        if entry.history.epochs:
            curves.setdefault(view(entry.data), {})[entry.contender.name] = entry.history
    figures: Figures = {}
    if weighed:
        figures["bounds"] = (
            stories.bound_bars(groups, "What the bound gives away: -ELBO beside -log p(x)"),
            "Where k-hat is good, the gap between two bars is KL(q(z|x) || p(z|x)), mean over the test data; elsewhere "
            "-log p(x) is likely lower than its bar by more than the error shown. A point mass has no bound.",
        )
        figures["latent-spaces"] = (
            stories.latent_spaces({entry.contender.name: _space(entry) for entry in weighed}, labels, shape, SPACES),
            "Left, the test data's codes by label, in the plane of their two largest principal axes where there are "
            "more than two. Right, E[x | z] in equal steps from the code of one test datum to that of another, the "
            "same two for all (with the labels, or the tree, of the first), and at draws of z from p(z): of a "
            "deterministic autoencoder, a mixture of Gaussians fitted to its codes.",
        )
    divergences = {entry.contender.name: kl_per_dimension(entry.story, _shown(entry, None)) for entry in weighed}
    apart = {name: found for name, found in divergences.items() if found is not None}
    if apart:
        figures["kl-per-dimension"] = (
            stories.kl_per_dimension(apart, "What each latent dimension holds"),
            "E KL(q(z_i|x) || p(z_i)) over the test data, the dimensions of each story in falling order; one near 0 "
            "has collapsed onto the prior. Shown where prior and guide have independent dimensions.",
        )
    if curves:
        figures["learning-curves"] = (
            stories.learning_curves(curves, "Learning curves"),
            "Each story's own objective, with its penalty: the ELBO and the IWAE bound are different bounds on one "
            "log p(x), and that of a point mass under a flat prior is log p(x | z) alone.",
        )
    figures["reconstructions"] = (
        stories.image_rows(rebuilt, shape, "Test data and their reconstructions"),
        "E[x | z] with z the mean of the guide, cut to the range of the data.",
    )
    flat = next((entry for entry in weighed if _has_plane(entry)), None)
    if flat is not None and len(shape) == 3:
        title = f"E[x | z] over the latent plane\n{flat.contender.name}"
        grid = stories.decoded_grid(decoded_plane(flat.story), shape, GRID, title)
        figures["decoded-grid"] = (grid, "Equal steps in probability under the prior N(0, I).")
    return figures


def _has_plane(entry: Fitted) -> bool:
    """Whether z itself is a plane with the prior N(0, I): the top of a hierarchy is not, nor a code beside a label."""
    plain = isinstance(entry.story, VAE) and isinstance(entry.story.prior, priors.StandardNormal)
    return plain and entry.contender.options.latent == 2


@torch.no_grad()
def decoded_plane(story: Any) -> Tensor:
    """E[x | z] on a grid of quantiles of N(0, I), `(GRID * GRID, features)`: z1 to the right, z2 upwards."""
    axis = torch.distributions.Normal(0, 1).icdf((torch.arange(GRID) + 0.5) / GRID)
    plane = torch.cartesian_prod(axis.flip(0), axis).flip(1)
    return story.likelihood(plane.to(next(story.parameters()))).mean


def principal_plane(codes: Tensor) -> Tensor:
    """Codes in the plane of their two largest principal axes, `(batch, 2)`; codes of one or two dimensions as they are.

    >>> principal_plane(torch.randn(10, 5)).shape
    torch.Size([10, 2])
    """
    if codes.shape[1] == 1 or len(codes) < 3:
        codes = codes[:, :1]
        return torch.cat([codes, torch.zeros_like(codes)], dim=1)
    if codes.shape[1] == 2:
        return codes
    centred = codes - codes.mean(dim=0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    return centred @ axes[:2].T


def samples(story: Any, like: Batch) -> Tensor:
    """E[x | z] with z from the prior, the same draws each time."""
    return sample(story, like, means=True)


def path(story: Any, data: Dataset, steps: int = SHOWN) -> Tensor:
    """E[x | z] in equal steps from the code of the first test datum to that of the first with another label.

    What else a story is given, labels or a tree, is that of the first datum.
    """
    other = 1 if len(data.test) > 1 else 0
    if data.test_labels is not None:
        other = next((i for i, label in enumerate(data.test_labels) if label != data.test_labels[0]), other)
    ends = encode(story, batch_for(story, **data.tensors("test", other + 1)))[[0, other]]
    z = torch.lerp(ends[:1], ends[1:], torch.linspace(0, 1, steps).to(ends).unsqueeze(-1))
    given = batch_for(story, **data.tensors("test", 1))
    return decode(story, tuple(part.expand(steps, *part.shape[1:]) for part in given), z=z)


def _space(entry: Fitted) -> tuple[Tensor, dict[str, Tensor]]:
    x = _shown(entry)
    images = {PATH: path(entry.story, entry.data), DRAWN: samples(entry.story, x)}
    plane = principal_plane(encode(entry.story, _shown(entry, None)))
    return plane, {name: _cut(rows, x[0]) for name, rows in images.items()}


def _shown(entry: Fitted, rows: int | None = SHOWN) -> tuple[Tensor, ...]:
    return batch_for(entry.story, **entry.data.tensors("test", rows))


def _cut(images: Tensor, x: Tensor) -> Tensor:
    return images.clamp(x.min(), x.max())


def view(data: Dataset) -> str:
    """How the data were observed, in a word or two."""
    observation = data.observation
    if observation.binarisation != "none":
        return "binarised"
    return {"none": "as they are", "unit": "scaled"}.get(observation.scaling, f"{observation.scaling}d")


def save(figures: Figures, folder: Path) -> dict[str, tuple[Path, str]]:
    """Every figure as a PNG file: its path and caption by name."""
    folder.mkdir()
    saved = {}
    for name, (figure, caption) in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=130, bbox_inches="tight")
        saved[name] = (folder / f"{name}.png", caption)
    return saved


def save_what_can_be(make: Callable[[], Figures], folder: Path) -> dict[str, tuple[Path, str]]:
    """Save figures; one that a story has no answer for (a mean, a sampler) never costs the run."""
    try:
        return save(make(), folder)
    except Exception as error:
        print(f"the run has no figures: {shorten(f'{type(error).__name__}: {error}', 120)}")
        return {}


def save_beside(figures: Figures, path: Path) -> list[Path]:
    """Every figure as a PNG file beside a file of results, under its name and the figure's."""
    saved = []
    for name, (figure, _) in figures.items():
        saved.append(path.with_name(f"{path.stem}-{name}.png"))
        with replacing(saved[-1]) as part:
            figure.savefig(part, dpi=130, bbox_inches="tight")
    return saved
