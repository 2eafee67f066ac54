"""Progress on the terminal: bars that vanish when they are done, nested where loops are, nothing where nobody looks."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

T = TypeVar("T")
console = Console(stderr=True)


def track(items: Iterable[T], description: str, total: float | None = None, show: bool = True) -> Iterator[T]:
    """Iterate with a bar on standard error, when that is a terminal."""
    hidden = not (show and console.is_terminal)
    yield from rich_track(items, description, total=total, console=console, transient=True, disable=hidden)
