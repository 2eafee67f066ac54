"""What a word can name, a part or a story, an objective or an optimiser, by the package's lists or an import path."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

from jsonargparse import ArgumentError

from ppvae import networks
from ppvae.base import Scalar
from ppvae.inference import objectives
from ppvae.models import encoders, likelihoods, priors, stories
from ppvae.training import optimizers

PARTS: dict[str, ModuleType] = {"prior": priors, "likelihood": likelihoods, "encoder": encoders}
SWAPPED = PARTS | {"story": stories, "network": networks}
LISTS = SWAPPED | {"objective": objectives, "optimizer": optimizers}
"""What an option names a member of, by option."""


def known(option: str, name: str) -> str | None:
    """The import path of a member of the package's own list of that kind, by its name or that path; else None.

    >>> known("prior", "Laplace"), known("prior", "ppvae.models.priors.Laplace")
    ('ppvae.models.priors.Laplace', 'ppvae.models.priors.Laplace')
    >>> known("prior", "ppvae.models.priors.os")
    """
    module = LISTS[option]
    short = name.removeprefix(f"{module.__name__}.")
    return f"{module.__name__}.{short}" if short in names(module) else None


def qualified(option: str, name: str) -> str:
    """The import path that a name or an import path means; what it names is imported.

    Raises:
        ValueError: no such name; what cannot be imported.
    """
    module = LISTS[option]
    if path := known(option, name):
        return path
    if "." not in name:
        raise ValueError(unknown(option, name))
    found = imported(option, name)
    return next((f"{module.__name__}.{own}" for own in names(module) if getattr(module, own) is found), name)


def unknown(option: str, name: str) -> str:
    """What is said of a name that no list has."""
    return f"unknown {option} '{name}': it should be one of {nearest(name, names(LISTS[option]))}, or an import path"


def names(module: ModuleType) -> list[str]:
    """The members of one of the package's lists."""
    if module is stories:
        functions = inspect.getmembers(stories, inspect.isfunction)
        return [name for name, make in functions if name[0] != "_" and "sizes" in inspect.signature(make).parameters]
    if module is networks:
        return [name for name, family in inspect.getmembers(networks, inspect.isclass) if hasattr(family, "decoder")]
    return list(module.__all__)


def nearest(name: str, known: Sequence[str]) -> str:
    """The known names, the most similar one first."""
    folded = {word.lower(): word for word in known}
    return ", ".join(folded[word] for word in get_close_matches(name.lower(), folded, n=len(folded), cutoff=0.0))


def imported(kind: str, path: str) -> Any:
    """What an import path names: a file of the working folder may hold it.

    Raises:
        ValueError: it cannot be imported.
    """
    module, _, attribute = path.rpartition(".")
    try:
        with _working_folder():
            return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a file of the user's may fail in any way
        raise ValueError(f"{kind} '{path}' should be importable, but: {one_line(error)}") from error


@contextmanager
def _working_folder() -> Iterator[None]:
    """Modules of the working folder are found first, and last from then on: they never stand for a library's."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)  # for what they import later, and for other processes


def parameters(function: Callable[..., Any], without: Sequence[str] = ()) -> list[inspect.Parameter]:
    """What a function or a class takes by name, beyond what it is given anyway."""
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    named = [p for p in parameters if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD} and p.name not in without]
    return [p.replace(annotation=float) if p.annotation == Scalar else p for p in named]  # no tensor can be typed


def listed(parameters: Sequence[inspect.Parameter]) -> str:
    words = [p.name if p.annotation is p.empty else f"{p.name} ({type_name(p)})" for p in parameters]
    return ", ".join(words) or "no arguments"


def type_name(parameter: inspect.Parameter) -> str:
    """A parameter's type as one would type it: `int`, `list[int]`, `'a' or 'b'`."""
    if get_origin(parameter.annotation) is Literal:
        return " or ".join(map(repr, get_args(parameter.annotation)))
    written = inspect.formatannotation(parameter.annotation).replace("collections.abc.Sequence", "list")
    return "a list in brackets, such as [200, 100]" if written == "list[int]" else written


def one_line(error: BaseException) -> str:
    name = type(error).__name__
    text = " ".join(str(error).split())
    return text if isinstance(error, ArgumentError | ValueError) and text else f"{name}: {text}".removesuffix(": ")
