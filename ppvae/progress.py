"""Progress on the terminal: bars that vanish when they are done, nested where loops are, nothing where nobody looks."""

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from queue import Empty
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress
from rich.progress import track as rich_track

T = TypeVar("T")
console = Console(stderr=True)
OFTEN = 0.1  # seconds between two words of a process to its parent
_parent: Any = None  # a queue, in a process whose parent shows the bar


def track(items: Iterable[T], description: str, total: float | None = None, show: bool = True) -> Iterator[T]:
    """Iterate with a bar on standard error, when that is a terminal."""
    if _parent is not None and show:
        yield from _told(items, description, len(items) if total is None and isinstance(items, Sized) else total or 0)
        return
    hidden = not (show and console.is_terminal)
    yield from rich_track(items, description, total=total, console=console, transient=True, disable=hidden)


def tell(parent: Any) -> None:
    """From now on this process shows no bars: what it tracks goes to a queue that its parent follows."""
    global _parent
    _parent = parent
    parent.cancel_join_thread()  # a parent that has its results reads no more


def follow(children: Any, done: Callable[[], bool]) -> None:
    """One bar of all that other processes track, by the queue that they tell it to, until they are done."""
    expected = 0.0
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("processes begin", total=None)
        while not done():
            try:
                description, more, steps = children.get(timeout=OFTEN)
            except Empty:
                continue
            expected += more
            bars.update(bar, description=description, total=expected, advance=steps)


def _told(items: Iterable[T], description: str, total: float) -> Iterator[T]:
    _parent.put((description, total, 0))
    steps, last = 0, time.monotonic()
    for item in items:
        yield item
        steps += 1
        if time.monotonic() - last > OFTEN:
            _parent.put((description, 0, steps))
            steps, last = 0, time.monotonic()
    _parent.put((description, 0, steps))
