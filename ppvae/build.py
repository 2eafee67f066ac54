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

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from torch import nn

from ppvae import data, train
from ppvae.base import Objective
from ppvae.data import Observation
from ppvae.inference import objectives
from ppvae.models import VAE, assemble, guides, likelihoods, priors

PARTS: dict[str, ModuleType] = {"prior": priors, "likelihood": likelihoods, "encoder": guides}
OBJECTIVES = ("elbo", "iwae")


def fit_parser() -> ArgumentParser:
    """Every option of a fit. A part is the name of a class of ours or an import path, and its arguments."""
    parser = ArgumentParser(exit_on_error=False, description="Fit a story to data and write a run folder.")
    parser.add_argument("--config", action="config", help="a YAML file with any of these options")
    parser.add_argument("--data", type=str, default="digits", help="a known name, or a .npy, .npz, .csv or folder")
    parser.add_function_arguments(data.load, skip={"name", "seed"})
    parser.add_argument("--latent", type=int, default=8, help="number of latent dimensions")
    parser.add_argument("--hidden", type=list[int], default=[200], help="hidden layers of the encoder; the decoder's")
    parser.add_argument(
        "--prior",
        type=Callable[[int], nn.Module],
        default={"class_path": "ppvae.models.priors.StandardNormal"},
        help=f"p(z): {', '.join(_names(priors))}, or an import path",
    )
    parser.add_argument(
        "--likelihood",
        type=Callable[[nn.Module], nn.Module],
        default=None,
        help=f"p(x|z): {', '.join(_names(likelihoods))}, or an import path; the data's own where none is given",
    )
    parser.add_argument(
        "--encoder",
        type=Callable[[nn.Module], nn.Module],
        default={"class_path": "ppvae.models.guides.DiagonalNormal"},
        help=f"q(z|x): {', '.join(_names(guides))}, or an import path",
    )
    parser.add_argument("--objective", type=str, default="elbo", help=f"{', '.join(OBJECTIVES)}, or an import path")
    parser.add_argument("--objective_args", type=dict[str, Any], default={}, help="such as --objective.particles 20")
    parser.add_function_arguments(train.fit, skip={"story", "data", "objective", "valid", "transform", "progress"})
    return parser


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
    return argument.split("=", 1) if re.match(r"--[\w.]+=", argument) else [argument]


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
    if "." in name or name.startswith(("-", "{")):
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


def find_objective(name: str, arguments: dict[str, Any]) -> Objective:
    """An objective by name or import path, with its arguments bound."""
    if "." in name:
        module, _, attribute = name.rpartition(".")
        try:
            function = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"objective '{name}' should be importable, but: {_one_line(error)}") from error
    elif name in OBJECTIVES:
        function = getattr(objectives, name)
    else:
        raise ValueError(f"unknown objective '{name}': it should be {_nearest(name, OBJECTIVES)}, or an import path")
    taken = list(inspect.signature(function).parameters)[2:]
    for argument in arguments:
        if argument not in taken:
            raise ValueError(f"objective {name} takes {', '.join(taken) or 'no arguments'}, got {argument}")
    return partial(function, **arguments) if arguments else function


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
    if options.likelihood is not None:
        return options
    return parser.parse_object({"likelihood": natural_likelihood(observation)}, cfg_base=options)


def build_story(parser: ArgumentParser, options: Namespace, observation: Observation) -> VAE:
    """The story that complete options describe, its networks sized from the data and the latent size."""
    if options.latent < 1:
        raise ValueError(f"latent should be at least 1, got {options.latent}")
    parts = parser.instantiate(options)
    return assemble(
        parts.prior,
        parts.likelihood,
        parts.encoder,
        features=observation.features,
        latent=parts.latent,
        hidden=parts.hidden,
    )


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Options from the command line; a wrong one is a ValueError of one line."""
    try:
        return parser.parse_args(qualify(arguments))
    except ArgumentError as error:
        raise ValueError(plain(error)) from error


def plain(error: ArgumentError) -> str:
    """What is wrong, in one line, without the parser's own types."""
    text = _one_line(error)
    text = re.sub(r"Type \S*Callable\[.*?\] expects a function or a callable class: ", "", text)
    text = re.sub(r"Parser key \"([\w.]+)\":\s*", r"--\1: ", text)
    return re.sub(r"\s*Got value: Namespace\(.*$", "", text)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def use_working_folder() -> None:
    """Let import paths name files of the folder that the command runs in."""
    if "" not in sys.path:
        sys.path.insert(0, "")
