"""`ppvae.save` and `ppvae.load`: a story as a folder of plain files, and back."""

import os
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
import yaml
from safetensors.torch import save_model
from torch import Tensor, nn

from ppvae.base import Story, StoryModule, optional
from ppvae.data import Dataset
from ppvae.data.files import write_json
from ppvae.experiments import run_folder
from ppvae.experiments.lookup import SWAPPED, qualified
from ppvae.experiments.options import fit_parser, merged
from ppvae.experiments.story_file import Stored, fill, rebuilt
from ppvae.models import priors
from ppvae.models.record import Record, described

S = TypeVar("S", bound=nn.Module)

BUILT = ("latent", "output_bias", *SWAPPED)  # the options of a fit that say how a story is built
TORCHS = {*vars(nn.Module()), "assembled"}
INSTEAD = "torch.save(story.state_dict(), file) keeps the weights of any story"


def save(story: nn.Module, path: str | Path, data: Dataset | None = None) -> None:
    """Write a story as a folder, new or empty, that `load` reads back: without pickle, whole or not at all.

    A story that `assemble`, `load` or a function such as `fit_ppca` made is written as `ppvae fit` writes it: its parts
    by name and argument as `config.yaml`, its weights as `weights.safetensors`; and as `story.json` what data would say
    of its sizes. It is made from these files once more before they are let stand, so that `load` never gives another
    story. Of any other one, as of a class of your own, there are the weights alone, for `load(path, story=...)`.

    Args:
        story: a module with `model` and `guide`, on any device.
        path: the folder.
        data: what the story is of, by `ppvae.data.load_dataset`, so that `ppvae evaluate PATH` and its like find them.

    Raises:
        FileExistsError: the folder is there and not empty.
        ValueError: no such story; one that was changed after it was assembled, or has a part that a configuration
            cannot name, such as a lambda; data that `load_dataset` did not give, or of other features.
    """
    if not isinstance(story, nn.Module) or not isinstance(story, Story):
        raise ValueError(f"a story to save should be an nn.Module with model and guide, got {type(story).__name__}")
    record: Record | None = vars(story).get("assembled")
    if record is None and data is not None:
        raise ValueError(f"data are kept with a story that assemble made, and this {type(story).__name__} is none")
    with run_folder.new_folder(path) as folder:
        save_model(story, str(folder / run_folder.WEIGHTS))
        if record is not None:
            _write(folder, story, record, {} if data is None else _view(data, record))
        if data is not None:
            write_json(folder / run_folder.OBSERVATION, data.observation.as_dict())


@overload
def load(path: str | Path, trust: bool = False) -> StoryModule: ...


@overload
def load(path: str | Path, trust: bool = False, *, story: S) -> S: ...


def load(path: str | Path, trust: bool = False, *, story: nn.Module | None = None) -> Any:
    """The story that a folder of `ppvae fit` or `ppvae.save` holds, in evaluation mode.

    Args:
        path: the folder.
        trust: whether it may name parts that are not of the package. They are imported then, which runs their code:
            leave it out for a folder whose maker you do not know.
        story: one that you have built as that one was, to put the weights into; nothing but them is read then.

    Returns:
        The story: the one that is given, or a new one on the CPU.

    Raises:
        FileNotFoundError: no such folder at `path`.
        ValueError: a configuration or weights that cannot be read; without trust, one that names what is not of ppvae;
            weights of other names, shapes or dtypes than those of the story given, which stays as it is.
    """
    if story is None:
        return run_folder.read(path, trust).story
    run_folder.check_whole(Path(path), (run_folder.WEIGHTS,))
    fill(story, Path(path) / run_folder.WEIGHTS)
    return story.eval()


def _write(folder: Path, story: nn.Module, record: Record, view: dict[str, Any]) -> None:
    """The configuration and the sizes, once they have made the same story."""
    if record.unsaid:
        raise ValueError(f"{record.unsaid}: a story to save should be told by names and numbers; {INSTEAD}")
    write_json(folder / run_folder.STORY, Stored.of(story, record.sizes).as_dict())
    parser = fit_parser()
    try:
        options = merged(parser, _parts(story, record) | view)
    except ValueError as error:
        raise ValueError(f"{error}; {INSTEAD}") from error
    written = {name: value for name, value in options.as_dict().items() if name in BUILT or name in view}
    (folder / run_folder.CONFIG).write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
    try:
        back = rebuilt(parser, options, Stored.read(folder / run_folder.STORY), folder / run_folder.WEIGHTS)
        differing = next(_differences(story, back), "")
    except ValueError as error:
        differing = str(error).replace(f"{folder}{os.sep}", "")
    if differing:
        raise ValueError(f"a story to save should be as assemble made it, but: {differing}; {INSTEAD}")


def _parts(story: nn.Module, record: Record) -> dict[str, Any]:
    """The options that build the story; an ex-post prior is put in its place after a fit, and told by its size."""
    parts = dict(record.parts)
    prior = optional(story, "prior")
    if isinstance(prior, priors.ExPost):
        parts["prior"] = described(priors.ExPost) | {"init_args": {"components": len(prior.weights)}}
    named = {option: part | {"class_path": qualified(option, part["class_path"])} for option, part in parts.items()}
    return named | {name: record.sizes[name] for name in ("latent", "output_bias")}


def _view(data: Dataset, record: Record) -> dict[str, Any]:
    """How the data are asked for again."""
    if data.source is None or data.source["seed"] != 0:
        raise ValueError("data to keep should be of ppvae.data.load_dataset with seed 0: a command loads them so")
    features = torch.Size(record.sizes["shape"]).numel()
    if features != data.observation.features:
        raise ValueError(f"data should have the story's {features} features, got {data.observation}")
    asked = {name: value for name, value in data.source.items() if name not in {"name", "seed"}}
    return {"data": data.source["name"], **asked}


def _differences(story: nn.Module, other: nn.Module) -> Iterator[str]:
    """Where a story is not the same as another: in its modules, in what they hold, or in its tensors."""
    modules, others = (dict(one.named_modules(remove_duplicate=False)) for one in (story, other))
    for name in dict.fromkeys([*modules, *others]):
        one, two = modules.get(name), others.get(name)
        if type(one) is not type(two):
            yield f"module {name} is of {type(one).__name__}, where it was of {type(two).__name__}"
        held, before = _held(one), _held(two)
        for key in held.keys() | before.keys():
            if not _same(held.get(key), before.get(key)):
                place = f"{name}.{key}".removeprefix(".")
                yield f"{place} is {held.get(key)!r:.40}, where it was {before.get(key)!r:.40}"


def _held(module: nn.Module | None) -> dict[str, Any]:
    """What a module holds beside modules and what torch puts there: numbers, text, functions, and its tensors."""
    if module is None:
        return {}
    own = {name: value for name, value in vars(module).items() if name not in TORCHS}
    return own | module._parameters | module._buffers


def _same(one: Any, other: Any) -> bool:
    """Of numbers, text and what is made of them; of other objects, whether they are of one kind."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        one, other = one.detach().cpu(), other.detach().cpu()
        alike = (one.shape, one.dtype) == (other.shape, other.dtype)
        return alike and torch.equal(one.nan_to_num(nan=0.0), other.nan_to_num(nan=0.0))
    if isinstance(one, bool | int | float | str | None):
        return bool(one == other or (one != one and other != other))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if is_dataclass(one):
        return bool(type(one) is type(other) and one == other)
    return type(one) is type(other)
