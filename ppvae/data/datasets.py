"""Named data sets and files as `(N, D)` tensors, split, with a record of what was observed."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import log
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ppvae.data.observation import Binarisation, Kind, Observation, Scaling
from ppvae.data.readers import Raw, read_csv, read_digits, read_folder, read_numpy, read_torchvision, torchvision_names

Missing = Literal["refuse", "mask"]


@dataclass(frozen=True)
class Dataset:
    """Three splits as `(N, D)` float tensors, their labels (`(N,)` or None), and what was observed."""

    train: Tensor
    valid: Tensor
    test: Tensor
    train_labels: Tensor | None
    valid_labels: Tensor | None
    test_labels: Tensor | None
    observation: Observation
    resample: Callable[[Tensor], Tensor] | None = None
    """Draws what is observed from a batch of `train`, afresh at every pass; give it to `fit(transform=...)`. Only
    dynamic binarisation and dequantisation have one: their `valid` and `test` were drawn once."""
    source: Mapping[str, Any] | None = None
    """The arguments of `load_dataset` that give these data again; none where they come from elsewhere."""

    def drawn(self, seed: int = 0) -> "Dataset":
        """The same with its training split drawn once too: for whatever looks at it outside a fit's batches."""
        if self.resample is None:
            return self
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return replace(self, train=self.resample(self.train), resample=None)

    def tensors(self, split: str, rows: int | None = None) -> dict[str, Any]:
        """What a story may ask for by name, None where there is none, of the first `rows` of a split or all of them.

        `x`; its `labels`, -1 where a story is not told; the `mask` of what is observed; for counts the `library`, each
        row's total.
        """
        x, labels = getattr(self, split)[:rows], getattr(self, f"{split}_labels")
        told = self.observation.labelled
        if told is not None:
            labels = labels.index_fill(0, torch.arange(told if split == "train" else 0, len(labels)), -1)
        observed = ~x.isnan()
        return {
            "x": x,
            "labels": None if labels is None else labels[:rows],
            "mask": observed if self.observation.missing else None,
            "library": x.nansum(dim=-1, keepdim=True) if self.observation.kind in {"levels", "counts"} else None,
        }


def load_dataset(
    name: str,
    root: str | Path = "data",
    binarisation: Binarisation = "none",
    scaling: Scaling = "none",
    label: str | None = None,
    missing: Missing = "refuse",
    labelled: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Load a data set by name, or from a file or folder.

    Args:
        name: `digits` (embedded: 1,797 images of 8 x 8, each pixel a count of black dots, 0 to 16); `mnist`,
            `fashion-mnist`, `kmnist`, `emnist`, `cifar10`, `svhn` (through torchvision); or the path of a `.npy`,
            `.npz` or `.csv` file or of a folder of images.
        root: folder that holds torchvision's files; what is missing is downloaded to it.
        binarisation: `none`; `threshold` (1 where a pixel is above half of its largest value); `static` (each pixel
            drawn once, with its intensity for probability); `dynamic` (drawn afresh at every pass in training, once
            for valid and test: `.train` holds the intensities and `.resample` draws from them).
        scaling: `none` (levels and counts as integers, which a mass can score); `unit` (divided by the largest level);
            `standardise` (zero mean and unit variance per feature of the training split); `dequantise` (uniform
            noise added to each level, then to [0, 1]: drawn afresh in training, once for valid and test).
        label: the column of labels in a `.csv` file.
        missing: what to do with nan and with empty cells: `refuse` the data, or `mask` them, so that a story scores the
            others.
        labelled: how many of the training labels a story that takes labels is told, the others and all of valid and
            test being -1; every label of every split where it is not given.
        seed: of the split, of static binarisation and of every draw made once.

    Raises:
        ValueError: an unknown name or option; values that are not numbers, or not finite; too few rows.
        FileNotFoundError: a file that is not there and cannot be downloaded.

    >>> digits = load_dataset("digits", binarisation="threshold")
    >>> digits.train.shape, digits.observation.support
    (torch.Size([1258, 64]), '{0, 1}')
    """
    view = {"binarisation": binarisation, "scaling": scaling, "label": label, "missing": missing, "labelled": labelled}
    source = {"name": str(name), "root": str(root), **view, "seed": seed}
    _one_of("binarisation", binarisation, get_args(Binarisation))
    _one_of("scaling", scaling, get_args(Scaling))
    _one_of("missing", missing, get_args(Missing))
    if binarisation != "none" and scaling != "none":
        raise ValueError(f"binarised data take no scaling, got binarisation={binarisation} and scaling={scaling}")
    raw = _read(name, Path(root).expanduser(), label)
    generator = torch.Generator().manual_seed(seed)
    parts, labels = _split(raw, generator, missing)
    observation = _describe(name, raw, parts[0])
    if labelled is not None:
        if labels[0] is None or not 0 <= labelled <= len(labels[0]):
            there = "there are none" if labels[0] is None else f"there are {len(labels[0])}"
            raise ValueError(f"labelled should be from 0 to the number of training labels, got {labelled}; {there}")
        observation = replace(observation, labelled=labelled)
    resample = None
    if binarisation != "none":
        parts, observation, resample = _binarise(parts, observation, binarisation, generator)
    elif scaling != "none":
        parts, observation, resample = _scale(parts, observation, scaling, generator)
    (train, valid, test), (train_labels, valid_labels, test_labels) = parts, labels
    return Dataset(train, valid, test, train_labels, valid_labels, test_labels, observation, resample, source)


def _read(name: str, root: Path, label: str | None) -> Raw:
    path = Path(name).expanduser()
    if label is not None and path.suffix != ".csv":
        raise ValueError(f"label names a column of a .csv file, and {name} is none: leave it out")
    readers = {".npy": read_numpy, ".npz": read_numpy, ".csv": lambda path: read_csv(path, label)}
    if name == "digits":
        return read_digits()
    if name in torchvision_names():
        return read_torchvision(name, root)
    if path.suffix in readers:
        return readers[path.suffix](path)
    if path.is_dir():
        return read_folder(path)
    known = ["digits", *torchvision_names()]
    near = get_close_matches(name, known, n=len(known), cutoff=0.0)
    raise ValueError(f"unknown data '{name}': it should be one of {', '.join(near)}, or a .npy, .npz, .csv or folder")


def _split(raw: Raw, generator: torch.Generator, missing: Missing) -> tuple[list[Tensor], list[Tensor | None]]:
    """Train, valid, test: the source's own test rows where it has them, else 70, 10 and 20 % of the shuffled rows."""
    rows = len(raw.values) if raw.test_rows is None else len(raw.values) - raw.test_rows
    order = torch.randperm(rows, generator=generator)
    held = max(1, round(0.2 * rows)) if raw.test_rows is None else 0
    valid = max(1, round(0.1 * rows))
    if rows - held - valid < 1:
        raise ValueError(f"data should have at least 3 rows to be split in three, got {rows}")
    test = order[:held] if raw.test_rows is None else torch.arange(rows, len(raw.values))
    chosen = [order[held + valid :], order[held : held + valid], test]
    values = torch.from_numpy(np.ascontiguousarray(raw.values)).flatten(1)
    if values.is_floating_point():
        values = values.float()  # first, so that what overflows is found
    strange = (torch.isinf(values) if missing == "mask" else ~torch.isfinite(values)).nonzero()
    if len(strange):
        row, column = strange[0].tolist()
        raise ValueError(
            f"every value should be a finite number, got {values[row, column]} at row {row}, column {column}: "
            "drop or fill such rows first, or mask what is missing (missing=mask)"
        )
    labels = None if raw.labels is None else torch.from_numpy(raw.labels.astype(np.int64))
    return [values[rows].float() for rows in chosen], [None if labels is None else labels[rows] for rows in chosen]


def _describe(name: str, raw: Raw, train: Tensor) -> Observation:
    kind: Kind = "real"
    missing = bool(np.isnan(raw.values).any())
    seen = raw.values[~np.isnan(raw.values)] if missing else raw.values
    if not seen.size or bool(train.isnan().all(dim=0).any()):
        raise ValueError("every column should have an observed value in the training split; one has none: leave it out")
    if raw.maximum is not None:
        kind = "binary" if raw.maximum == 1 else "levels"
    elif (np.issubdtype(seen.dtype, np.integer) or (missing and _whole(seen))) and (seen >= 0).all():
        kind = "binary" if (seen <= 1).all() else "counts"
    contrast = float(raw.maximum) if raw.maximum else _range(train)
    fingerprint = hashlib.blake2b(raw.values.tobytes(), digest_size=8).hexdigest()
    named = Path(name).absolute().name
    classes = None if raw.labels is None else int(raw.labels.max()) + 1
    record = Observation(named, kind, raw.shape, raw.maximum, contrast=contrast, missing=missing, classes=classes)
    return replace(record, fingerprint=fingerprint)


def _binarise(
    parts: list[Tensor], observation: Observation, binarisation: Binarisation, generator: torch.Generator
) -> tuple[list[Tensor], Observation, Callable[[Tensor], Tensor] | None]:
    if observation.maximum is None:
        raise ValueError(f"only pixels with a largest level can be binarised; {observation} has none")
    grey = [part / observation.maximum for part in parts]
    observation = replace(observation, kind="binary", maximum=1, binarisation=binarisation, contrast=1.0)
    if binarisation == "threshold":
        return [(part > 0.5).float() for part in grey], observation, None
    drawn = [torch.bernoulli(part, generator=generator) for part in grey]
    if binarisation == "static":
        return drawn, observation, None
    return [grey[0], *drawn[1:]], observation, torch.bernoulli


def _scale(
    parts: list[Tensor], observation: Observation, scaling: Scaling, generator: torch.Generator
) -> tuple[list[Tensor], Observation, Callable[[Tensor], Tensor] | None]:
    features, top = observation.features, observation.maximum
    if scaling == "standardise":
        train = parts[0].double()  # so that rounding of a mean depends on nothing but its column
        mean = train.nanmean(dim=0).float()
        scale = (train - train.nanmean(dim=0)).square().nanmean(dim=0).sqrt().float()
        low = parts[0].nan_to_num(nan=torch.inf).amin(dim=0)
        high = parts[0].nan_to_num(nan=-torch.inf).amax(dim=0)
        mean = torch.where(high > low, mean, low)  # a constant feature only moves to zero; rounding may
        scale = torch.where(high > low, scale, torch.ones_like(scale))  # give it a scale that is not quite
        jacobian = -scale.log().sum().item()
        record = replace(observation, kind="real", maximum=None, scaling=scaling, log_jacobian=jacobian)
        scaled = [(part - mean) / scale for part in parts]
        return scaled, replace(record, contrast=_range(scaled[0])), None
    if top is None:
        raise ValueError(f"scaling={scaling} needs data with a largest level; {observation} has none: standardise them")
    if scaling == "unit":
        record = replace(observation, kind="real", maximum=None, scaling=scaling, contrast=1.0)
        return [part / top for part in parts], replace(record, log_jacobian=-features * log(top)), None
    noisy = [_within_a_level(part / (top + 1), torch.rand(part.shape, generator=generator), top + 1) for part in parts]
    record = replace(observation, kind="real", maximum=None, scaling=scaling, contrast=1.0)
    record = replace(record, log_jacobian=-features * log(top + 1))
    return [parts[0] / (top + 1), *noisy[1:]], record, Dequantise(top + 1)


@dataclass(frozen=True)
class Dequantise:
    """Uniform noise on levels k / `levels`, up to the next one. Theis et al. 2016, https://arxiv.org/abs/1511.01844"""

    levels: int

    def __call__(self, x: Tensor) -> Tensor:
        return _within_a_level(x, torch.rand_like(x), self.levels)


def _within_a_level(x: Tensor, noise: Tensor, levels: float) -> Tensor:
    """x + noise / levels; where float32 rounds that into another level, once in millions, the middle of x's own."""
    noisy = x + noise / levels
    elsewhere = (noisy * levels).floor() != (x * levels).round()
    return torch.where(elsewhere, x + 0.5 / levels, noisy)


def _range(x: Tensor) -> float:
    seen = x[~x.isnan()]
    return max((seen.max() - seen.min()).item(), 1e-12)


def _whole(values: "np.ndarray[Any, Any]") -> bool:
    return bool((values == values.round()).all())


def _one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{option} should be one of {', '.join(known)}, got {value}")
