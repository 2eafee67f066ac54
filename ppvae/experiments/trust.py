"""What a file may name: members of the package's own lists. Other code, which runs when it is named, needs `--trust`.

A run folder, a configuration or a line-up may come from anyone. Its names are looked up, all of them before any is
imported; without trust nothing is imported at all.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from ppvae.data.files import DEPTH, WORD, read_yaml
from ppvae.experiments.lookup import SWAPPED, imported, known, unknown

OPTION = re.compile(r"[A-Za-z_]\w*")
IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
TYPED = ("config", "help", "print_config", "trust")  # options that a file does not have
PARTS_OF_A_PART = {"class_path", "init_args"}
Options = dict[str, Any]
"""A configuration, or a part of one: values by the names of options."""


class Named(NamedTuple):
    """What a file names that is not of the package."""

    option: str
    path: str


def read_options(path: Path, trust: bool = False, unused: Sequence[str] = ()) -> dict[str, Any]:
    """A YAML file of options, every name of the package's spelled out as its import path.

    Args:
        path: the file.
        trust: whether it may name what is not of the package.
        unused: options that are not looked at, since what they name is not used.

    Raises:
        FileNotFoundError: there is none.
        ValueError: not a YAML file of options; without trust, a name that is not of the package.
    """
    config = read_yaml(path)
    if not isinstance(config, dict):
        raise ValueError(f"{path} should hold options as `name: value` lines")
    return checked(path, config, trust, unused)


def checked(source: str | Path, config: Options, trust: bool = False, unused: Sequence[str] = ()) -> Options:
    """Options with every name of the package's spelled out; what else they name is imported, if trusted.

    Raises:
        ValueError: as `read_options`; it names the source.
    """
    config = deepcopy(config)
    try:
        named = list(_named_by(config, unused))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    check_named(source, named, trust)
    for options in (config, config.get("common") or {}, *(config.get("contender") or {}).values()):
        for option in SWAPPED.keys() & options.keys() - set(unused):
            if options[option] and (name := options[option].get("class_path")):
                imported(option, name)  # what lies in the working folder is found from now on
    return config


def check_named(source: str | Path, named: Sequence[Named], trust: bool) -> None:
    """Refuse what is not of the package, or say that it will be imported."""
    if not named:
        return
    what = ", ".join(dict.fromkeys(f"{name.path} ({name.option})" for name in named))
    if not trust:
        raise ValueError(
            f"{source} should name members of ppvae only, and would import {what}, which may run anything: "
            "--trust (in Python trust=True) allows it, if you know what that is"
        )
    print(f"trusted: {source} imports {what}", file=sys.stderr)


def _named_by(config: Options, unused: Sequence[str] = ()) -> Iterator[Named]:
    """What options name that is not of the package; what is of it is spelled out in place."""
    for option, value in config.items():
        if not isinstance(option, str) or not OPTION.fullmatch(option) or option in TYPED:
            raise ValueError(f"a file of options should have names of options, got {option!r}")
        if option in unused:
            continue
        if option in SWAPPED and value is not None:
            config[option] = part = _part(option, value)
            yield from _named_by_part(option, part)
        elif option in {"objective", "optimizer"}:
            yield from _foreign(option, value)
            config[option] = _short(option, value)
        elif option == "common":  # of a comparison, as the next
            config[option] = _options(option, value)
            yield from _named_by(config[option])
        elif option == "contender":
            config[option] = contenders = {str(name): own for name, own in _options(option, value).items()}
            for name in contenders:
                yield from _named_by_contender(contenders, name)
        else:
            yield from _inside(option, value)


def _named_by_contender(contenders: Options, name: str) -> Iterator[Named]:
    try:
        contenders[name] = _options("it", contenders[name])
        yield from _named_by(contenders[name])
    except ValueError as error:
        raise ValueError(f"contender '{name}': {error}") from error


def _options(option: str, value: Any) -> Options:
    if not isinstance(value, dict | None):
        raise ValueError(f"{option} should hold options, such as {{prior: Laplace, latent: 2}}, got {value!r:.80}")
    return value or {}


def _part(option: str, value: Any) -> dict[str, Any]:
    """A part as a mapping of class and arguments."""
    part = {"class_path": value} if isinstance(value, str) else value
    if not isinstance(part, dict) or not all(isinstance(key, str) and OPTION.fullmatch(key) for key in part):
        raise ValueError(f"{option} should be a name, or a mapping of class_path and init_args, got {value!r:.80}")
    if "class_path" not in part:
        return part
    if not isinstance(part["class_path"], str) or part.keys() - PARTS_OF_A_PART:
        raise ValueError(f"{option} should have a class_path, which is a name, and init_args, got {value!r:.80}")
    path = known(option, part["class_path"])
    return part if path is None else {**part, "class_path": path}


def _named_by_part(option: str, part: dict[str, Any]) -> Iterator[Named]:
    foreign = "class_path" not in part or known(option, part["class_path"]) is None  # or whose is not said here
    if "class_path" in part:
        yield from _foreign(option, part["class_path"])
    yield from _inside(option, part.get("init_args", {}) if "class_path" in part else part, foreign)


def _foreign(option: str, name: Any) -> Iterator[Named]:
    """A name, unless it is of the package."""
    if not isinstance(name, str) or not (OPTION.fullmatch(name) or IMPORT_PATH.fullmatch(name)):
        raise ValueError(f"{option} should be a name or an import path, got {name!r:.80}")
    if known(option, name) is None:
        if "." not in name:
            raise ValueError(unknown(option, name))
        yield Named(option, name)


def _short(option: str, name: str) -> str:
    path = known(option, name)
    return name if path is None else path.rpartition(".")[2]


def _inside(option: str, value: Any, foreign: bool = False) -> Iterator[Named]:
    """Import paths among arguments: a class wherever it stands; any dotted word, where who takes it is not ours."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or not OPTION.fullmatch(key):
                raise ValueError(f"{option} should have arguments by name, got {key!r:.80}")
            if key == "class_path":
                yield Named(option, str(item))
            yield from _inside(option, item, foreign)
    elif isinstance(value, list):
        for item in value:
            yield from _inside(option, item, foreign)
    elif isinstance(value, str):
        check_word(value)
        if foreign and IMPORT_PATH.fullmatch(value):
            yield Named(option, value)
    elif not isinstance(value, bool | int | float | None):
        raise ValueError(f"{option} should have text, numbers, true, false or null, got {value!r:.80}")


def check_word(word: str) -> None:
    """Raise ValueError for a word that takes long to read as YAML, which is how a value is read."""
    depth = most = 0
    for letter in word:
        depth += (letter in "[{") - (letter in "]}")
        most = max(most, depth)
    if len(word) > WORD or most > DEPTH or "\n" in word:
        raise ValueError(f"a value should be one line of at most {WORD:,} characters, got {word[:40]!r}...")
