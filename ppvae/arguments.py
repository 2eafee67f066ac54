"""From command-line words to options: a part is a name or an import path, and its own signature says what it takes."""

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, Namespace
from torch import nn

from ppvae import data, train
from ppvae.models import guides, likelihoods, priors

PARTS: dict[str, ModuleType] = {"prior": priors, "likelihood": likelihoods, "encoder": guides}
OBJECTIVES = ("elbo", "iwae")
PLAINER = {  # what jsonargparse says: what we say
    r"Type \S*Callable\[.*?\] expects a function or a callable class: ": "",
    r"\.* Got value: Namespace\(.*$": "",
    r"\.* Got value: (.*?)\.*$": r", got \1",
    r"Parser key \"([\w.]+)\": ": r"--\1: ",
    r"^--(\w+): --(\w+): ": r"--\1.\2: ",
    r": Expected a typing.Literal\[(.*)\]": r" should be one of \1",
    r": Expected a <class 'list'>": " should be a list in brackets, such as [200, 100]",
    r": Expected a <class '(\w+)'>": r" should be \1",
    r"<class '(\w+)'>": r"\1",
    r"required: (?:fit|compare)\.out$": "required: --out",
    r"required: evaluate\.run$": "required: the folder of a run",
}


def fit_parser() -> ArgumentParser:
    """Every option of a fit. A part is the name of a class of ours or an import path, and its arguments."""
    text = "Fit a story to data and write a run folder."
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, description=text)
    parser.add_argument("--config", action="config", help="a YAML file with any of these options")
    parser.add_argument("--data", type=str, default="digits", help="a known name, or a .npy, .npz, .csv or folder")
    parser.add_function_arguments(data.load, skip={"name", "seed"})
    parser.add_argument("--latent", type=int, default=8, help="number of latent dimensions")
    parser.add_argument("--hidden", type=list[int], default=[200], help="encoder's layers; the decoder's in reverse")
    parser.add_argument(
        "--prior",
        type=Callable[[int], nn.Module],
        default={"class_path": "ppvae.models.priors.StandardNormal"},
        help=f"p(z), StandardNormal unless named: {', '.join(names(priors))}, or an import path",
    )
    parser.add_argument(
        "--likelihood",
        type=Callable[[nn.Module], nn.Module],
        default=None,
        help=f"p(x|z), the data's own unless named: {', '.join(names(likelihoods))}, or an import path",
    )
    parser.add_argument(
        "--encoder",
        type=Callable[[nn.Module], nn.Module],
        default={"class_path": "ppvae.models.guides.DiagonalNormal"},
        help=f"q(z|x), DiagonalNormal unless named: {', '.join(names(guides))}, or an import path",
    )
    parser.add_argument("--objective", type=str, default="elbo", help=f"{', '.join(OBJECTIVES)}, or an import path")
    parser.add_argument("--objective_args", type=dict[str, Any], default={}, help="such as --objective.particles 20")
    parser.add_function_arguments(train.fit, skip={"story", "data", "objective", "valid", "transform", "progress"})
    return parser


class PartsInBrief(DefaultHelpFormatter):
    """Help that says of a part how to learn more, instead of its type and every torch module of that type."""

    def _get_help_string(self, action: Any) -> str:
        if action.dest in PARTS:
            return f"{action.help}; --{action.dest}.help NAME lists its arguments"
        return super()._get_help_string(action)


def qualify(arguments: Sequence[str]) -> list[str]:
    """Command-line words with every part's short name spelled out, in a configuration file too."""
    words = [word for argument in arguments for word in _equals_apart(argument)]
    for index, word in enumerate(words):
        following = words[index + 1] if index + 1 < len(words) else ""
        option = word.removeprefix("--")
        if word.startswith("--objective."):
            words[index] = word.replace("--objective.", "--objective_args.", 1)
        elif word.startswith("--") and option in PARTS and following:
            words[index + 1] = _qualified(option, following)
        elif word == "--config" and following:
            words[index + 1] = yaml.safe_dump(read_config(Path(following)))
    return words


def _equals_apart(argument: str) -> list[str]:
    return argument.split("=", 1) if re.match(rf"--({'|'.join(PARTS)}|config)=", argument) else [argument]


def read_config(path: Path) -> dict[str, Any]:
    """A YAML file of options, its short names spelled out."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no configuration file {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ValueError(f"{path} should be a YAML file of options: {one_line(error)}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} should hold options as `name: value` lines")
    for option in PARTS.keys() & config.keys():
        part = config[option]
        if isinstance(part, str):
            config[option] = {"class_path": _qualified(option, part)}
        elif isinstance(part, dict) and isinstance(part.get("class_path"), str):
            part["class_path"] = _qualified(option, part["class_path"])
    return config


def _qualified(option: str, name: str) -> str:
    """The import path of a part: a short name is one of ours."""
    if name.startswith(("-", "{")):
        return name
    if "." in name:
        imported(option, name)
        return name
    module = PARTS[option]
    if name in names(module):
        return f"{module.__name__}.{name}"
    raise ValueError(f"unknown {option} '{name}': it should be {nearest(name, names(module))}, or an import path")


def names(module: ModuleType) -> list[str]:
    """The parts that a module offers."""
    return list(module.__all__)


def nearest(name: str, known: Sequence[str]) -> str:
    return " or ".join(get_close_matches(name, known, n=len(known), cutoff=0.0))


def imported(option: str, path: str) -> Any:
    """What an import path names: a file of the working folder may hold it."""
    module, _, attribute = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a file of the user's may fail in any way
        raise ValueError(f"{option} '{path}' should be importable, but: {one_line(error)}") from error


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    return [p for p in parameters if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]


def listed(parameters: Sequence[inspect.Parameter]) -> str:
    return ", ".join(parameter.name for parameter in parameters) or "no arguments"


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Options from the command line; a wrong one is a ValueError of one line."""
    try:
        return parser.parse_args(qualify(arguments))
    except ArgumentError as error:
        raise ValueError(plain(error)) from error


def plain(error: ArgumentError) -> str:
    """What is wrong, in one line, without the parser's own types."""
    text = one_line(error)
    refused = re.search(r"key \"(\w+)\".*Option '(\S+)' is not accepted.*class_path='([\w.]+)'", text)
    if refused:
        option, argument, path = refused.groups()
        if path == "torch.nn.Module":
            return f"--{option}.{argument} needs --{option} NAME beside it"
        return f"--{option} {path} takes {listed(parameters(imported(option, path))[1:])}, got {argument}"
    for theirs, ours in PLAINER.items():
        text = re.sub(theirs, ours, text)
    return text


def one_line(error: BaseException) -> str:
    name = type(error).__name__
    text = " ".join(str(error).split())
    return text if isinstance(error, ArgumentError | ValueError) and text else f"{name}: {text}".removesuffix(": ")


def use_working_folder() -> None:
    """Let import paths name files of the folder that the command runs in."""
    if "" not in sys.path:
        sys.path.insert(0, "")
