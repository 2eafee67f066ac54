"""From a configuration to a story: parts are named, and their own signatures say which arguments they take."""

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pyro
import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, Namespace
from torch import nn

from ppvae import data, train
from ppvae.data import Observation
from ppvae.inference import objectives
from ppvae.inference.programs import evaluating
from ppvae.models import VAE, assemble, guides, likelihoods, priors

PARTS: dict[str, ModuleType] = {"prior": priors, "likelihood": likelihoods, "encoder": guides}
OBJECTIVES = ("elbo", "iwae")
SIZES = {
    "prior": "it is made with the latent size",
    "likelihood": "its attribute `outputs` says how many network outputs it takes per feature (1 where there is none)",
    "encoder": "its attribute `outputs` says how many network outputs it takes per latent (1 where there is none)",
}
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
        help=f"p(z), StandardNormal unless named: {', '.join(_names(priors))}, or an import path",
    )
    parser.add_argument(
        "--likelihood",
        type=Callable[[nn.Module], nn.Module],
        default=None,
        help=f"p(x|z), the data's own unless named: {', '.join(_names(likelihoods))}, or an import path",
    )
    parser.add_argument(
        "--encoder",
        type=Callable[[nn.Module], nn.Module],
        default={"class_path": "ppvae.models.guides.DiagonalNormal"},
        help=f"q(z|x), DiagonalNormal unless named: {', '.join(_names(guides))}, or an import path",
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
        raise ValueError(f"{path} should be a YAML file of options: {_one_line(error)}") from error
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
        _imported(option, name)
        return name
    module = PARTS[option]
    if name in _names(module):
        return f"{module.__name__}.{name}"
    raise ValueError(f"unknown {option} '{name}': it should be {_nearest(name, _names(module))}, or an import path")


def _names(module: ModuleType) -> list[str]:
    """The parts that a module defines."""
    classes = inspect.getmembers(module, inspect.isclass)
    return [name for name, part in classes if part.__module__ == module.__name__ and issubclass(part, nn.Module)]


def _nearest(name: str, known: Sequence[str]) -> str:
    return " or ".join(get_close_matches(name, known, n=len(known), cutoff=0.0))


def find_objective(name: str, arguments: dict[str, Any]) -> "partial[torch.Tensor]":
    """An objective by name or import path, with all of its arguments bound."""
    function = _named_objective(name)
    taken = _parameters(function)[2:]  # after the story and the data
    parser = ArgumentParser(exit_on_error=False)
    for parameter in taken:
        kind = Any if parameter.annotation is parameter.empty else parameter.annotation
        given = {"required": True} if parameter.default is parameter.empty else {"default": parameter.default}
        parser.add_argument(f"--{parameter.name}", type=kind, **given)
    for argument in arguments:
        if argument not in [parameter.name for parameter in taken]:
            raise ValueError(f"objective {name} takes {_listed(taken)}, got {argument}")
    try:
        return partial(function, **parser.parse_object(arguments).as_dict())
    except ArgumentError as error:
        raise ValueError(f"objective {name}: {plain(error)}") from error


def _named_objective(name: str) -> Callable[..., Any]:
    if "." not in name and name not in OBJECTIVES:
        raise ValueError(f"unknown objective '{name}': it should be {_nearest(name, OBJECTIVES)}, or an import path")
    function = _imported("objective", name) if "." in name else getattr(objectives, name)
    if not callable(function):
        raise ValueError(f"objective '{name}' should be a function of a story and data, got {function!r}")
    return function


def _imported(option: str, path: str) -> Any:
    """What an import path names: a file of the working folder may hold it."""
    module, _, attribute = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a file of the user's may fail in any way
        raise ValueError(f"{option} '{path}' should be importable, but: {_one_line(error)}") from error


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    return [p for p in parameters if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]


def _listed(parameters: Sequence[inspect.Parameter]) -> str:
    return ", ".join(parameter.name for parameter in parameters) or "no arguments"


def natural_likelihood(observation: Observation) -> dict[str, Any]:
    """The likelihood of the data's own kind, as a configuration."""
    if observation.kind == "binary":
        return {"class_path": "ppvae.models.likelihoods.Bernoulli"}
    if observation.kind == "levels":
        return {
            "class_path": "ppvae.models.likelihoods.Binomial",
            "init_args": {"total_count": observation.maximum},
        }
    if observation.kind == "real":
        return {"class_path": "ppvae.models.likelihoods.Normal", "init_args": {"learned": True}}
    raise ValueError(f"no likelihood is natural for {observation}: name one, or standardise the data")


def complete(parser: ArgumentParser, options: Namespace, observation: Observation) -> Namespace:
    """Options with nothing left open: what the data decide is written out."""
    options = options.clone()
    bound = find_objective(options.objective, options.objective_args).keywords
    written = {name: value for name, value in bound.items() if isinstance(value, bool | int | float | str | None)}
    options.objective_args = written | options.objective_args
    return with_likelihood(parser, options, observation)


def with_likelihood(parser: ArgumentParser, options: Namespace, observation: Observation) -> Namespace:
    """Options with the likelihood of the data's own kind, where they name none."""
    if options.likelihood is not None:
        return options
    return parser.parse_object({"likelihood": natural_likelihood(observation)}, options)


def build_story(parser: ArgumentParser, options: Namespace, observation: Observation) -> VAE:
    """The story that options describe, its networks sized from the data and the latent size."""
    if options.latent < 1:
        raise ValueError(f"latent should be at least 1, got {options.latent}")
    makers = parser.instantiate(with_likelihood(parser, options, observation))
    parts = [_maker(option, makers[option]) for option in PARTS]
    story = assemble(*parts, features=observation.features, latent=options.latent, hidden=options.hidden)
    _check_parts(story, observation.features, options.latent)
    return story


def _maker(option: str, make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A part's maker that says which part it was when it fails."""

    def made(argument: Any) -> Any:
        try:
            return make(argument)
        except Exception as error:  # a class of the user's may fail in any way
            raise ValueError(f"the {option} could not be made: {_one_line(error)}") from error

    return made


@torch.no_grad()
def _check_parts(story: VAE, features: int, latent: int) -> None:
    """Refuse a part whose call does not give a distribution of the right shape."""
    calls = {
        "prior": (lambda: story.prior(), latent),
        "likelihood": (lambda: story.likelihood(torch.zeros(1, latent)), features),
        "encoder": (lambda: story.encoder(torch.zeros(1, features)), latent),
    }
    with evaluating(story), pyro.validation_enabled(False):
        for option, (call, size) in calls.items():
            try:
                shape = tuple(call().event_shape)
            except Exception as error:  # and so may its call
                raise ValueError(f"the {option} should give a distribution, but: {_one_line(error)}") from error
            if shape != (size,):
                rule = f"the {option} should give a distribution of event_shape ({size},), got {shape}"
                raise ValueError(f"{rule}: {'end it with .to_event(1)' if not shape else SIZES[option]}")


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Options from the command line; a wrong one is a ValueError of one line."""
    try:
        return parser.parse_args(qualify(arguments))
    except ArgumentError as error:
        raise ValueError(plain(error)) from error


def plain(error: ArgumentError) -> str:
    """What is wrong, in one line, without the parser's own types."""
    text = _one_line(error)
    refused = re.search(r"key \"(\w+)\".*Option '(\S+)' is not accepted.*class_path='([\w.]+)'", text)
    if refused:
        option, argument, path = refused.groups()
        if path == "torch.nn.Module":
            return f"--{option}.{argument} needs --{option} NAME beside it"
        return f"--{option} {path} takes {_listed(_parameters(_imported(option, path))[1:])}, got {argument}"
    for theirs, ours in PLAINER.items():
        text = re.sub(theirs, ours, text)
    return text


def _one_line(error: BaseException) -> str:
    name = type(error).__name__
    text = " ".join(str(error).split())
    return text if isinstance(error, ArgumentError | ValueError) and text else f"{name}: {text}".removesuffix(": ")


def use_working_folder() -> None:
    """Let import paths name files of the folder that the command runs in."""
    if "" not in sys.path:
        sys.path.insert(0, "")
