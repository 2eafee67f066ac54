"""Prints the functions that a reader follows from `ppvae evaluate RUN` to the figures of its table.

    python docs/follow_calls.py RUN

They are the functions of ours that stand on the call stack, between the command and the table, when the story's own
programs are run for a figure: whoever reads from the command to the statements `pyro.sample` of a story passes through
exactly these. A function that is called on the way and comes back (one that reads, checks, or adds up) can be taken at
its word; so are those of ASIDES, which run the programs to look at them and give no figure.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import ppvae
from ppvae import cli

ROOT = str(Path(ppvae.__file__).parent)
ASIDES = (  # by the beginning of a name
    "check",
    "observed",
    "prepared",
    "unconstrain",
    "is_",
    "_unbounded",
    "give_density",
    "_allocated",
)
BAR = "ppvae.progress.track"  # stands around loops, and does nothing but show them
START, PROGRAMS, END = "ppvae.commands.evaluate.run", ("model", "guide"), "Evidence.__str__"


def called(words: list[str]) -> list[str]:
    """Names of the functions, `module.function`, in the order in which they are first met."""
    met: dict[str, None] = {}
    done = False

    def look(frame: FrameType, event: str, _: Any) -> None:
        nonlocal done
        if event != "call" or done or not frame.f_code.co_filename.startswith(ROOT):
            return
        done = frame.f_code.co_qualname == END
        if frame.f_code.co_name in PROGRAMS:
            names = list(stack(frame))[::-1]
            asides = any(name.rpartition(".")[2].startswith(ASIDES) for name in names)
            if START in names and not asides:
                met.update(dict.fromkeys(name for name in names[names.index(START) + 1 :] if name != BAR))

    sys.setprofile(look)
    try:
        status = cli.main(words)
    finally:
        sys.setprofile(None)
    if status or not met:
        raise SystemExit(f"ppvae {' '.join(words)} should print a table; it ended with status {status}")
    return list(met)


def stack(frame: FrameType | None) -> Iterator[str]:
    """Functions of ours from the innermost out; what is written within a function is that function."""
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(ROOT):
            yield f"{frame.f_globals['__name__']}.{code.co_qualname.partition('.<locals>')[0]}"
        frame = frame.f_back


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python docs/follow_calls.py RUN")
    found = called(["evaluate", sys.argv[1], "--rows", "3", "--particles", "50"])
    print("\n".join(found), f"{len(found)} functions", sep="\n")
