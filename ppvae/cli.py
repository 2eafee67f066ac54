"""The command line: which commands there are, and how a mistake is said. The commands know everyone."""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType

from jsonargparse import ArgumentParser

from ppvae.arguments import PartsInBrief, parse, part_help
from ppvae.commands import compare, evaluate, fit, gaps, posteriors, selfcheck

COMMANDS: dict[str, ModuleType] = {
    "fit": fit,
    "evaluate": evaluate,
    "compare": compare,
    "gaps": gaps,
    "posteriors": posteriors,
    "selfcheck": selfcheck,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; what a person can mend is one line on standard error and exit status 2."""
    try:
        words = sys.argv[1:] if arguments is None else arguments
        if text := part_help(words):
            print(text)
            return 0
        options = parse(command_line(), words)
        if options.command is None:
            raise ValueError(f"name a command: {', '.join(COMMANDS)} (ppvae --help tells more)")
        return COMMANDS[options.command].run(options[options.command]) or 0
    except (ValueError, OSError) as error:
        message = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f"ppvae: error: {message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"ppvae: {str(stop) or 'stopped'}", file=sys.stderr)
        return 130


def command_line() -> ArgumentParser:
    text = "Variational autoencoders on Pyro."
    parser = ArgumentParser(
        prog="ppvae",
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=PartsInBrief,  # of every command too
        description=text,
    )
    parser.add_argument("--version", action="version", version=f"ppvae {version('ppvae')}")
    commands = parser.add_subcommands(required=False, dest="command")
    for name, command in COMMANDS.items():
        commands.add_subcommand(name, command.options(), help=command.options().description)
    return parser


if __name__ == "__main__":
    sys.exit(main())
