"""The command line: which commands there are, and how a mistake is said.

What a command needs is imported when it is named, so that help and version are there at once.
"""

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from typing import NoReturn

from ppvae.commands import COMMANDS

SHELLS = ("bash", "zsh")
"""Whose completion can be printed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; what a person can mend is one line on standard error and exit status 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not words or words[0].startswith("-"):
            if shell := command_line().parse_args(words).print_shtab:
                return print_completion(shell)
            raise ValueError(f"name a command: {', '.join(COMMANDS)} (ppvae --help tells more)")
        return run(words[0], words[1:])
    except BrokenPipeError:  # whoever reads, `head` for one, has what it wanted
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, for what is still to be flushed
        return 141  # as the shell says it of others
    except (ValueError, OSError) as error:
        message = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f"ppvae: error: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"ppvae: {str(stop) or 'stopped'}", file=sys.stderr)
        return 130


def run(name: str, words: Sequence[str]) -> int:
    """Run a command by its name and the words after it; its exit status."""
    if name not in COMMANDS:
        nearest = get_close_matches(name, COMMANDS, n=len(COMMANDS), cutoff=0.0)
        raise ValueError(f"unknown command '{name}': it should be one of {', '.join(nearest)}")
    from ppvae.experiments.options import parse, part_help

    if text := part_help(words):
        print(text)
        return 0
    command = import_module(f"ppvae.commands.{name}")
    return command.run(parse(command.options(), words)) or 0


def print_completion(shell: str) -> int:
    """Print the script by which a shell completes `ppvae`."""
    from ppvae.commands.completion import script

    print(script(shell))
    return 0


def command_line() -> ArgumentParser:
    """What stands before a command."""
    commands = "\n".join(f"  {name:<12}{text}" for name, text in COMMANDS.items())
    parser = _Parser(
        prog="ppvae",
        usage="ppvae [--version] [--help] [--print_shtab SHELL] COMMAND ...",
        allow_abbrev=False,
        description="Variational autoencoders on Pyro.",
        formatter_class=RawDescriptionHelpFormatter,
        epilog=f"commands, each with its own --help:\n{commands}",
    )
    parser.add_argument("--version", action="version", version=f"ppvae {version('ppvae')}")
    parser.add_argument("--print_shtab", choices=SHELLS, metavar="SHELL", help=f"completion for {' or '.join(SHELLS)}")
    return parser


class _Parser(ArgumentParser):
    """Whose mistakes are said where all are."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)
