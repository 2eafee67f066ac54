"""How a story was put together, in the words and numbers of a configuration: what `ppvae.save` writes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any, TypeVar

from torch import nn

from ppvae.models.sizes import Sizes

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """What `assemble` was given, but for the data: a story's attribute `assembled`."""

    parts: Mapping[
        str, dict[str, Any]
    ]  # prior, likelihood, encoder, story, network: each its import path and arguments
    sizes: dict[str, Any]  # the fields of `Sizes` that are numbers
    unsaid: str = ""  # what no file can say of it, in words


class Unsaid(ValueError):
    """A maker or an argument that has no words."""


def recorded(story: T, makers: Mapping[str, Any], sizes: Sizes) -> T:
    """The story itself, with the record of how it was made where it is a module.

    Args:
        makers: by option: classes or functions, with arguments bound by `functools.partial`; import paths; a family of
            networks.
        sizes: what they were called with.
    """
    if isinstance(story, nn.Module):
        attributes: Any = story
        attributes.assembled = _record(makers, sizes)
    return story


def _record(makers: Mapping[str, Any], sizes: Sizes) -> Record:
    known = ("latent", "input_scale", "maximum", "classes", "output_bias")
    numbers = _arguments({"shape": list(sizes.shape)} | {name: getattr(sizes, name) for name in known})
    parts: dict[str, dict[str, Any]] = {}
    unsaid = []
    for option, make in makers.items():
        try:
            parts[option] = described(make)
        except Unsaid as reason:
            unsaid.append(f"the {option} {reason}")
    return Record(parts, numbers, "; ".join(unsaid))


def described(make: Any) -> dict[str, Any]:
    """A maker's import path and the arguments that are bound to it, as a configuration has them.

    Raises:
        Unsaid: it has no import path, or arguments beyond numbers, text and lists of them.

    >>> from ppvae import networks
    >>> described(networks.MLP([20]))["init_args"]
    {'hidden': [20], 'activation': 'relu', 'initialisation': 'default'}
    """
    if isinstance(make, str):
        return {"class_path": make}
    if isinstance(make, partial):
        if make.args:
            raise Unsaid("has arguments without a name")
        return {"class_path": _path(make.func), "init_args": _arguments(make.keywords)}
    if is_dataclass(make) and not isinstance(make, type):
        given = {field.name: getattr(make, field.name) for field in fields(make) if field.init}
        return {"class_path": _path(type(make)), "init_args": _arguments(given)}
    return {"class_path": _path(make)}


def _path(make: Any) -> str:
    module, name = getattr(make, "__module__", None), getattr(make, "__qualname__", None)
    if module is None or name is None:
        raise Unsaid(f"is an object of {type(make).__name__}, not a class, a function or a dataclass")
    if module == "__main__" or not name.isidentifier():
        raise Unsaid(f"{name} is nothing that another program can import: define it at the top of a module")
    return f"{module}.{name}"


def _arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(name, value) for name, value in given.items()}


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    for kind in (bool, int, float, str):  # numpy's float64 is a float too, and becomes one
        if isinstance(value, kind):
            return kind(value)
    if value is not None:
        raise Unsaid(f"has an argument {name} that is neither a number nor text, but {type(value).__name__}")
    return None
