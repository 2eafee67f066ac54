"""What `ppvae --print_shtab` prints: a script by which a shell completes commands, options and the names of parts."""

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec

from jsonargparse import ArgumentParser

from ppvae.commands import COMMANDS
from ppvae.commands.evaluate import METHODS
from ppvae.experiments import lineup
from ppvae.experiments.lookup import LISTS, SWAPPED, names
from ppvae.experiments.options import PartsInBrief, asked_of

KNOWN = {option: names(known) for option, known in LISTS.items()} | {"method": list(METHODS), "lineup": lineup.names()}
"""What a shell may complete after an option, beside what its type says."""


def script(shell: str) -> str:
    """The script for a shell, bash or zsh.

    Raises:
        ValueError: shtab, which writes it, is not installed.
    """
    if find_spec("shtab") is None:
        raise ValueError("completion needs shtab: pip install 'ppvae[completion]'")
    parser = ArgumentParser(prog="ppvae", version=version("ppvae"), formatter_class=PartsInBrief)
    commands = parser.add_subcommands()
    for name, text in COMMANDS.items():
        options = import_module(f"ppvae.commands.{name}").options()
        name_parts(options)
        commands.add_subcommand(name, options, help=text)
    return parser.get_completion_script(f"shtab-{shell}")


def name_parts(parser: ArgumentParser) -> None:
    """Tell a parser our names, and the arguments of our parts: of itself it would list every module of torch."""
    for action in list(parser._actions):  # argparse has no public list of them
        action.choices = KNOWN.get(action.dest.removesuffix(".help"), action.choices)
        if action.dest in SWAPPED:
            for argument, parts in arguments(action.dest).items():
                parser.add_argument(f"--{action.dest}.{argument}", help=f"of {', '.join(parts)}")


def arguments(option: str) -> dict[str, list[str]]:
    """What stands beside the names of one kind: by argument, the parts that take it."""
    taken: dict[str, list[str]] = {}
    for name in KNOWN[option]:
        for parameter in asked_of(getattr(SWAPPED[option], name)):
            taken.setdefault(parameter.name, []).append(name)
    return taken
