"""Where data come from: the embedded digits, torchvision's data sets, array and table files, folders of images."""

import math
import shutil
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from ppvae.data.files import Refused, check_unpacked, regular

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")  # whatever a file is called: others run programs to be read
PIXELS = 2**26  # of one image, at most


@dataclass(frozen=True)
class Raw:
    """Rows as they were stored, `(N, ...)`, and what is known of them."""

    values: np.ndarray[Any, Any]
    shape: tuple[int, ...]  # how to look at a row
    labels: np.ndarray[Any, Any] | None = None
    maximum: int | None = None  # the largest level, of data that have one
    test_rows: int | None = None  # the last rows are the source's own test set


def read_digits() -> Raw:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return Raw(digits.images.astype(np.uint8), (1, 8, 8), digits.target, maximum=16)


def torchvision_names() -> list[str]:
    return ["mnist", "fashion-mnist", "kmnist", "emnist", "cifar10", "svhn"]


def read_torchvision(name: str, root: Path) -> Raw:
    """Train and test rows of a torchvision data set; files that are missing from `root` are downloaded to it."""
    datasets = import_torchvision().datasets
    builders: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]] = {
        "mnist": (datasets.MNIST, {"train": True}, {"train": False}),
        "fashion-mnist": (datasets.FashionMNIST, {"train": True}, {"train": False}),
        "kmnist": (datasets.KMNIST, {"train": True}, {"train": False}),
        "emnist": (datasets.EMNIST, {"split": "balanced", "train": True}, {"split": "balanced", "train": False}),
        "cifar10": (datasets.CIFAR10, {"train": True}, {"train": False}),
        "svhn": (datasets.SVHN, {"split": "train"}, {"split": "test"}),
    }
    build, *splits = builders[name]
    parts = [_open(build, name, root, split) for split in splits]
    images = np.concatenate([_channels_first(name, part) for part in parts])
    per_part = [np.asarray(part.labels if name == "svhn" else part.targets) for part in parts]
    sizes = [(len(part), len(labels)) for part, labels in zip(parts, per_part, strict=True)]
    if any(images != labels for images, labels in sizes):
        raise ValueError(f"{name} should have one label an image, got (images, labels) of {sizes} in train and test")
    labels = np.concatenate(per_part)
    return Raw(images, images.shape[1:], labels, maximum=255, test_rows=len(parts[1]))


def _open(build: Callable[..., Any], name: str, root: Path, split: dict[str, Any]) -> Any:
    try:
        return build(str(root), download=False, **split)
    except (RuntimeError, FileNotFoundError):
        pass  # not there, or not whole
    except Exception as error:
        raise ValueError(f"the files of {name} under {root} should be whole, but: {_one_line(error)}") from error
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        return build(str(root), download=True, **split)
    except Exception as error:
        if missing:
            shutil.rmtree(root, ignore_errors=True)
        for folder in missing[1:]:
            with suppress(OSError):  # somebody else uses it by now
                folder.rmdir()
        raise FileNotFoundError(
            f"{name} is not whole under {root} and could not be downloaded ({_one_line(error)}): "
            "put its original files there, or name the folder that holds them as root"
        ) from error


def _channels_first(name: str, part: Any) -> np.ndarray[Any, Any]:
    images = np.asarray(part.data)
    if name == "cifar10":
        return images.transpose(0, 3, 1, 2)
    if name == "emnist":
        images = images.transpose(0, 2, 1)  # its files hold every image on its side
    return images if name == "svhn" else images[:, None]


def read_numpy(path: Path) -> Raw:
    """A `.npy` array `(N, ...)`, or a `.npz` with an array `x` and, if there are any, labels `y`."""
    regular(path)
    try:
        arrays, names = _arrays(path)
    except Refused:
        raise
    except Exception as error:  # a damaged archive fails in a dozen ways
        raise ValueError(f"{path} should be a whole numpy file without pickled objects: {_one_line(error)}") from error
    if "x" not in arrays:
        raise ValueError(f"{path} should hold an array named x, got {', '.join(names) or 'none'}")
    values, labels = arrays["x"], arrays.get("y")
    if values.ndim < 2 or 0 in values.shape:
        raise ValueError(f"{path} should hold data of shape (rows, features...), got {values.shape}")
    if labels is not None and labels.shape != values.shape[:1]:
        raise ValueError(f"{path} should hold one label a row, got x {values.shape} and y {labels.shape}")
    if labels is not None and not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{path} should hold integer labels in y, got {labels.dtype}")
    return Raw(_numbers(path, values), values.shape[1:], labels, maximum=_levels(values))


def _arrays(path: Path) -> tuple[dict[str, np.ndarray[Any, Any]], list[str]]:
    """The arrays `x` and `y` of a file, no others, and the names of all that it holds."""
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                asked = [member for member in archive.infolist() if member.filename in {"x.npy", "y.npy"}]
                packed, unpacked = (sum(getattr(m, size) for m in asked) for size in ("compress_size", "file_size"))
                check_unpacked(path, packed, unpacked)
                for member in asked:
                    with archive.open(member) as content:
                        _check_header(content, member.file_size)
        else:
            file.seek(0)
            _check_header(file, path.stat().st_size)
        file.seek(0)
        stored = np.load(file, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            return {"x": stored}, ["x"]
        return {key: stored[key] for key in ("x", "y") if key in stored.files}, list(stored.files)


def _check_header(file: IO[bytes], size: int) -> None:
    """Refuse an array whose header promises more bytes than there are, before they are asked for."""
    version = np.lib.format.read_magic(file)
    if version > (2, 0):  # for names of columns alone, which no array of numbers has
        raise ValueError(f"it should have no named columns, got version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"its header promises an array of shape {shape}, and there are {size:,} bytes in all")


def read_csv(path: Path, label: str | None = None) -> Raw:
    """A table of numbers with commas, with or without a first line of names; one column may hold labels."""
    try:
        text = regular(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} should be text in UTF-8: {_one_line(error)}") from error
    lines = [(number, line.split(",")) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise ValueError(f"{path} should hold rows of numbers; it is empty")
    names = [cell.strip() for cell in lines[0][1]]
    named = any(not _is_number(name) for name in names)
    rows = lines[named:]
    if not rows:
        raise ValueError(f"{path} should hold rows of numbers; it has only a line of names")
    for number, row in rows:
        if len(row) != len(names):
            raise ValueError(f"{path} should have {len(names)} columns in every line, got {len(row)} in line {number}")
    table = np.array([row for _, row in rows])
    labels = None
    if label is not None:
        if not named or label not in names:
            raise ValueError(f"{path} has no column '{label}': its columns are {', '.join(names)}")
        column = names.index(label)
        labels = _numbered(table[:, column])
        table = np.delete(table, column, axis=1)
        if not table.shape[1]:
            raise ValueError(f"{path} should have a column of numbers beside the labels; it has only '{label}'")
    values = _numbers(path, table)
    whole = not np.isnan(values).any() and (np.abs(values) < 2**53).all() and (values == values.round()).all()
    return Raw(values.astype(np.int64) if whole else values, (values.shape[1],), labels)


def read_folder(path: Path) -> Raw:
    """Images of one size; where they lie in subfolders, the subfolder's name is the label."""
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGES and file.is_file())
    if not files:
        raise ValueError(f"{path} should hold images ({', '.join(sorted(IMAGES))}); it has none")
    images = []
    for file in files:
        images.append(_read_image(file))
        if images[-1].shape != images[0].shape:
            raise ValueError(
                f"images should be of one size: {files[0]} is {images[0].shape}, {file} {images[-1].shape}"
            )
    folders = [file.parent.name for file in files]
    labels = np.unique(folders, return_inverse=True)[1] if len(set(folders)) > 1 else None
    return Raw(np.stack(images), images[0].shape, labels, maximum=255)


def _read_image(file: Path) -> np.ndarray[Any, Any]:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # what is too large is refused below
            image = Image.open(file, formats=FORMATS)
        with image:
            width, height = image.size
            if width * height > PIXELS:
                raise ValueError(f"it should have at most {PIXELS:,} pixels, got {width} x {height}")
            mode = image.mode
            pixels = np.asarray(image.convert("L" if mode in {"1", "L"} else "RGB"))
    except Exception as error:  # each format has its own way to fail
        raise ValueError(f"{file} should be a whole image: {_one_line(error)}") from error
    if mode.startswith(("I", "F")):  # conversion would cut every value at 255
        raise ValueError(f"{file} should have 8 bits a channel, got mode {mode}: store such pixels as a .npy file")
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def import_torchvision() -> Any:
    """torchvision, also beside a torch built for another device.

    A wheel built for CUDA declares its operators in a library that a CPU-only torch cannot load, and then fails to
    import for want of two schemas. Data sets, transforms and grids use no such operator: declaring both is enough.
    """
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept_alive.append(library)
        import torchvision
    return torchvision


_kept_alive: list[torch.library.Library] = []


def _numbers(path: Path, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    if values.dtype.kind in "iu":
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.kind not in "fUS":  # floats, or text that may spell numbers
        raise ValueError(f"{path} should hold numbers only, got {values.dtype}")
    if values.dtype.kind in "US":
        values = np.where(np.char.strip(values) == "", "nan", values)  # an empty cell is a missing value
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} should hold numbers only: {_one_line(error)}") from error


def _numbered(column: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Labels that are integers as they are; any others numbered in sorted order."""
    cells = np.char.strip(column)
    try:
        return cells.astype(np.int64)
    except (ValueError, OverflowError):
        return np.unique(cells, return_inverse=True)[1]


def _levels(values: np.ndarray[Any, Any]) -> int | None:
    """Unsigned bytes are levels up to 255, unless they are all 0 or 1."""
    if values.dtype == np.bool_ or (values.dtype == np.uint8 and values.max() <= 1):
        return 1
    return 255 if values.dtype == np.uint8 else None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
