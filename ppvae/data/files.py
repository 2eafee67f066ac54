"""Files of anyone's making: read in bounded time and memory, and written whole."""

import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

TEXT = 2**18  # bytes of a file of options, at most
DEPTH = 20  # lists and mappings in one another
WORD = 4096  # characters of one value
RATIO, SMALL = 100, 2**28  # an archive may unpack to so many times its size, or to so many bytes


def regular(path: Path) -> Path:
    """The path of a file that has an end.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a folder, a device or a pipe.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if not path.is_file():
        raise Refused(f"{path} should be a file, and is a folder, a device or a pipe")
    return path


def read_text(path: Path) -> str:
    """A short text file in UTF-8.

    Raises:
        FileNotFoundError: there is none.
        ValueError: not a file, longer than a file of options can be, or not UTF-8.
    """
    with regular(path).open("rb") as file:
        content = file.read(TEXT + 1)
    if len(content) > TEXT:
        raise Refused(f"{path} should have at most {TEXT:,} bytes, and has more")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(f"{path} should be text in UTF-8: {error}") from error


def read_yaml(path: Path) -> Any:
    """What a YAML file holds: mappings, lists, text, numbers, true, false and null, without aliases.

    Raises:
        FileNotFoundError: there is none.
        ValueError: not YAML; nested too deeply; aliases, of which a few lines unfold to more than
            any memory holds.
    """
    loader = _Bounded(read_text(path))
    try:
        return loader.get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} should be a YAML file: {' '.join(str(error).split())}") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        FileNotFoundError: there is none.
        ValueError: not JSON, or nested too deeply.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} should be a JSON file: {error}") from error


def check_unpacked(path: Path, packed: int, unpacked: int) -> None:
    """Raise ValueError for an archive whose content is out of proportion, before memory is spent on it."""
    if unpacked > max(SMALL, RATIO * packed):
        raise Refused(
            f"{path} should not unpack to more than {RATIO} times its size, and would take {unpacked / 2**30:.1f} GiB "
            f"from {packed / 2**20:.1f} MiB: store such an array as a .npy file"
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file to write to; it stands at `path` when it is whole. A link that lies there is replaced, not followed.

    Raises:
        OSError: the folder cannot be written to.
    """
    part = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        part.open("xb").close()  # new: nothing that lies in the folder is written to
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """A record as JSON, replaced whole; nan and infinities, for which JSON has no word, as null."""
    with replacing(path) as part:
        part.write_text(json.dumps(nan_as_null(record), indent=1) + "\n", encoding="utf-8")


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Columns of one length as CSV, replaced whole; numbers to nine digits."""
    lines = [",".join(columns)]
    for row in zip(*columns.values(), strict=True):
        lines.append(",".join(f"{cell:.9g}" if isinstance(cell, float) else str(cell) for cell in row))
    with replacing(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")


def nan_as_null(value: Any) -> Any:
    """The same without nan and infinities, at any depth: None in their place."""
    if isinstance(value, Mapping):
        return {name: nan_as_null(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [nan_as_null(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Refused(ValueError):
    """A file that is not read, for what it would take or is."""


class _Bounded(yaml.SafeLoader):
    """YAML that cannot take more memory or time than its length."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it should have no aliases (*name): write the value out at each place")
        if self.depth == DEPTH:
            raise yaml.YAMLError(f"it should have at most {DEPTH} lists and mappings in one another")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(node, yaml.ScalarNode) and len(node.value) > WORD:
            raise yaml.YAMLError(f"a value should have at most {WORD:,} characters, got {len(node.value):,}")
        return node
