"""From words or a configuration to options. A part is a name or an import path; its signature says what it takes."""

import inspect
import re
import shlex
from argparse import SUPPRESS
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, Namespace
from torch import nn

from ppvae import data, networks
from ppvae.base import Architecture
from ppvae.experiments.lookup import (
    LISTS,
    PARTS,
    SWAPPED,
    imported,
    listed,
    names,
    one_line,
    parameters,
    qualified,
    type_name,
)
from ppvae.experiments.trust import read_options
from ppvae.models.sizes import LINKED
from ppvae.training.fit import fit

Plain = bool | int | float | str | None
Arguments = dict[str, Plain | list[Plain]]
"""Of an objective or a method, before its own signature has said what they are: never a class to make."""

MEANING = {  # of each part, its default, and where it is found
    "prior": ("p(z)", "StandardNormal"),
    "likelihood": ("p(x|z)", "the data's own"),
    "encoder": ("q(z|x)", "DiagonalNormal"),
    "story": ("how the parts make a story", "vae"),
}
CONFIGURATIONS = Path(__file__).parent / "configurations"
FITTED_BY = ("objective", "objective_args", "optimizer", "optimizer_args")  # not asked for once a story is fitted
SKIPPED = (*PARTS, "sizes")  # what a story is given, beside the sizes that follow from the data and the code
# An error of jsonargparse is a text: the option, the type and the value are no attributes of it, and what it checked is
# merged from words, files and defaults. So the text is read; what a part takes is asked of the part's own signature.
PLAINER = {  # what jsonargparse says: what we say
    r"Import path (\S+) does not correspond to a subclass of Module": r"\1 should be a Module's class, or a function "
    "that says in its signature what it returns: `-> Module`",
    r"- Expected a path but \S+ either not accessible or invalid - ": "",
    r"\.* Got value: (.*?)\.*$": r", got \1",
    r"Parser key \"([\w.]+)\": ": r"--\1: ",
    r": Does not validate .* Subtypes: \[(.*)\] Errors: .* Given value: (.*)$": r" should be one of \1, got \2",
    r": Expected a typing.Literal\[(.*)\]": r" should be one of \1",
    r": Expected a <class '(\w+)'>": r" should be \1",
    r"<class '(\w+)'>": r"\1",
    r"required: out$": "required: --out",
    r"required: run$": "required: the folder of a run",
}


class PartsInBrief(DefaultHelpFormatter):
    """Help that says of a part how to learn more, instead of its type and every torch module of that type."""

    def _get_help_string(self, action: Any) -> str:
        if action.dest in SWAPPED:
            return f"{action.help}; --{action.dest}.help NAME lists its arguments"
        return super()._get_help_string(action)


def new_parser(command: str, description: str) -> ArgumentParser:
    """A parser of a command without options yet, whose mistakes `parse` says in one line."""
    return ArgumentParser(
        prog=f"ppvae {command}",
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=PartsInBrief,
        description=description,
    )


def fit_parser(description: str = "") -> ArgumentParser:
    """Every option of a fit. A part is the name of a class of ours or an import path, and its arguments."""
    parser = new_parser("fit", description)
    named = ", ".join(configurations())
    parser.add_argument("--config", action="config", help=f"a YAML file with any of these options, or {named}")
    parser.add_argument("--data", type=str, default="digits", help="a known name, or a .npy, .npz, .csv or folder")
    parser.add_function_arguments(data.load_dataset, skip={"name", "seed"})
    parser.add_argument("--latent", type=int, default=8, help="number of latent dimensions")
    parser.add_argument("--output_bias", type=bool, default=False, help="start the decoder at the mean of the data")
    for option, (meaning, default) in MEANING.items():
        module = SWAPPED[option]
        parser.add_subclass_arguments(
            nn.Module,
            option,
            as_group=False,
            skip={*LINKED, *SKIPPED},
            instantiate=False,
            required=False,
            help=f"{meaning}, {default} unless named: {', '.join(names(module))}, or an import path",
            default={"class_path": f"{module.__name__}.{default}"} if default in names(module) else None,
        )
    families = ", ".join(names(networks))
    parser.add_argument(
        "--network",
        type=Architecture,
        default={"class_path": "ppvae.networks.MLP"},
        help=f"the family of every network, MLP unless named: {families}, or an import path",
    )
    parser.add_argument(
        "--objective", type=str, default="elbo", help=f"{', '.join(names(LISTS['objective']))}, or an import path"
    )
    parser.add_argument("--objective_args", type=Arguments, default={}, help="such as --objective.particles 20")
    parser.add_argument(
        "--optimizer", type=str, default="Adam", help=f"{', '.join(names(LISTS['optimizer']))}, or an import path"
    )
    parser.add_argument("--optimizer_args", type=Arguments, default={}, help="such as --optimizer.weight_decay 0.01")
    parser.add_argument(
        "--pretrain",
        type=int,
        default=0,
        help="epochs of greedy pre-training of every layer, before the fit; 0 for none",
    )
    parser.add_function_arguments(
        fit, skip={"story", "data", "objective", "optimizer", "valid", "transform", "progress"}
    )
    return parser


def add_trust(parser: ArgumentParser) -> None:
    """The option by which a file may name what is not of the package."""
    text = "import what a run folder, a configuration or a line-up names beside ppvae's own: it may run anything"
    parser.add_argument("--trust", action="store_true", default=SUPPRESS, help=text)  # no option of a file


def qualify(arguments: Sequence[str], trust: bool = False) -> list[str]:
    """Command-line words with every part's short name spelled out, in a configuration file too."""
    words = [word for argument in arguments for word in _equals_apart(argument)]
    for index, word in enumerate(words):
        following = words[index + 1] if index + 1 < len(words) else ""
        option = word.removeprefix("--")
        if word.startswith(("--objective.", "--optimizer.", "--method.")):
            words[index] = word.replace(".", "_args.", 1)
        elif word.startswith("--") and option in SWAPPED and following and not following.startswith(("-", "{")):
            words[index + 1] = qualified(option, following)
        elif word in {"--contender", "--common"} and following:  # whose value begins with dashes itself
            words[index : index + 2] = [f"{word}={following}"]
        elif word == "--config" and following:
            words[index + 1] = yaml.safe_dump(read_options(configuration(following), trust))
    return words


def _equals_apart(argument: str) -> list[str]:
    return argument.split("=", 1) if re.match(rf"--({'|'.join(SWAPPED)}|config)=", argument) else [argument]


def configuration(name: str) -> Path:
    """The path of a YAML file of options: one's own, or one of the package's by its name."""
    if Path(name).exists():
        return Path(name)
    if name in configurations():
        return CONFIGURATIONS / f"{name}.yaml"
    known = ", ".join(configurations())
    raise FileNotFoundError(f"there is no configuration file {name}, nor one of that name here: {known}")


def configurations() -> list[str]:
    """The configurations that come with the package."""
    return sorted(path.stem for path in CONFIGURATIONS.glob("*.yaml"))


def parse(
    parser: ArgumentParser, arguments: Sequence[str], trust: bool | None = None, over: Namespace | None = None
) -> Namespace:
    """Options from the command line; a wrong one is a ValueError of one line.

    Args:
        trust: whether a file among them may name what is not of the package; as `--trust` among them says, where it is
            not given.
        over: options that hold where the words say nothing.
    """
    words = qualify(arguments, "--trust" in arguments if trust is None else trust)
    try:
        return parser.parse_args(words, over)
    except ArgumentError as error:
        raise ValueError(plain(error)) from error


def merged(
    parser: ArgumentParser, own: Mapping[str, Any] | str, over: Namespace | None = None, trust: bool = False
) -> Namespace:
    """Options of a configuration, or of the words that somebody typed, over others or the defaults.

    Args:
        trust: whether a file that the words name may name what is not of the package.

    Raises:
        ValueError: a wrong one, in one line.
    """
    if isinstance(own, str):
        return parse(parser, shlex.split(own), trust, over)
    try:
        return parser.parse_object(dict(own), over)
    except ArgumentError as error:
        raise ValueError(plain(error)) from error


def parse_run(parser: ArgumentParser, path: Path, trust: bool = False) -> Namespace:
    """Options from the configuration of a run, whose story is asked for, not how it was fitted."""
    return merged(parser, read_options(path, trust, unused=FITTED_BY))


def plain(error: ArgumentError) -> str:
    """What is wrong, in one line, without the parser's own types."""
    text = one_line(error)
    part = re.search(r"key \"(?:\w+\.)?(\w+)\":.*?class_path '([\w.]+)': (.*)", text)
    if part:
        return _plain_part(*part.groups())
    for theirs, ours in PLAINER.items():
        text = re.sub(theirs, ours, text)
    return text


def _plain_part(option: str, path: str, said: str) -> str:
    """What is wrong with a part's argument: the part, the argument and its type."""
    if path == "torch.nn.Module":
        return f"an argument of --{option} needs --{option} NAME beside it"
    name = path.rpartition(".")[2]
    taken = {parameter.name: parameter for parameter in asked_of(imported(option, path))}
    refused = re.match(r"Option '(\S+)' is not accepted", said)
    if refused:
        return f"--{option} {name} takes {listed(list(taken.values()))}, got {refused.group(1)}"
    wrong = re.match(r"Parser key \"(\w+)[\w.]*\": .*?(?:Got|Given) value: (.*?)\.*(?: - Expected .*)?$", said)
    if wrong and wrong.group(1) in taken:
        argument, value = wrong.groups()
        return f"--{option}.{argument} of {name} should be {type_name(taken[argument])}, got {value}"
    missing = re.search(r"following arguments are required: ([\w, ]+)", said)
    if missing:
        needed = [taken[name] for name in re.findall(r"\w+", missing.group(1)) if name in taken]
        return f"--{option} {name} needs {listed(needed) if needed else missing.group(1)}"
    return f"--{option} {name}: {said}"


def asked_of(part: Any) -> list[inspect.Parameter]:
    """What a part takes beyond what it is given anyway: the arguments that stand beside its name."""
    return parameters(part, LINKED + SKIPPED)


def part_help(words: Sequence[str]) -> str | None:
    """What `--prior.help NAME` asks for: a part's docstring and options; every name where none is given."""
    for word, name in zip(words, [*words, ""][1:], strict=True):
        option = word.removeprefix("--").removesuffix(".help")
        if word == f"--{option}.help" and option in SWAPPED:
            if not name or name.startswith("-"):
                return f"--{option} is one of {', '.join(names(SWAPPED[option]))}, or an import path"
            part = imported(option, qualified(option, name))
            options = [f"  --{option}.{p.name} ({type_name(p)}{_default(p)})" for p in asked_of(part)]
            return "\n".join(
                [
                    f"{name}: {inspect.cleandoc(part.__doc__ or 'no docstring')}",
                    "",
                    "Options:",
                    *(options or ["  none"]),
                ]
            )
    return None


def _default(parameter: inspect.Parameter) -> str:
    return ", required" if parameter.default is parameter.empty else f", default {parameter.default}"
