"""From command-line words to options: a part is a name or an import path, and its own signature says what it takes."""

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

import yaml
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, Namespace
from torch import nn

from ppvae import data, networks, train
from ppvae.base import Architecture, Scalar
from ppvae.inference import objectives
from ppvae.models import guides, likelihoods, priors, stories
from ppvae.models.sizes import LINKED

PARTS: dict[str, ModuleType] = {"prior": priors, "likelihood": likelihoods, "encoder": guides}
SWAPPED = PARTS | {"story": stories, "network": networks}
OBJECTIVES = tuple(objectives.__all__)
MEANING = {  # of each part, its default, and where it is found
    "prior": ("p(z)", "StandardNormal"),
    "likelihood": ("p(x|z)", "the data's own"),
    "encoder": ("q(z|x)", "DiagonalNormal"),
    "story": ("how the parts make a story", "vae"),
}
CONFIGURATIONS = Path(__file__).parent / "configurations"
SKIPPED = (*PARTS, "sizes")  # what a story is given, beside the sizes that follow from the data and the code
PLAINER = {  # what jsonargparse says: what we say
    r"Import path (\S+) does not correspond to a subclass of Module": r"\1 should be a Module's class, or a function "
    "that says in its signature what it returns: `-> Module`",
    r"- Expected a path but \S+ either not accessible or invalid - ": "",
    r"\.* Got value: (.*?)\.*$": r", got \1",
    r"Parser key \"([\w.]+)\": ": r"--\1: ",
    r"^--(\w+): --(\w+): ": r"--\1.\2: ",
    r": Expected a typing.Literal\[(.*)\]": r" should be one of \1",
    r": Expected a <class '(\w+)'>": r" should be \1",
    r"<class '(\w+)'>": r"\1",
    r"required: (?:fit|compare)\.out$": "required: --out",
    r"required: evaluate\.run$": "required: the folder of a run",
}


def fit_parser() -> ArgumentParser:
    """Every option of a fit. A part is the name of a class of ours or an import path, and its arguments."""
    text = "Fit a story to data and write a run folder."
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, description=text)
    named = ", ".join(configurations())
    parser.add_argument("--config", action="config", help=f"a YAML file with any of these options, or {named}")
    parser.add_argument("--data", type=str, default="digits", help="a known name, or a .npy, .npz, .csv or folder")
    parser.add_function_arguments(data.load, skip={"name", "seed"})
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
    parser.add_argument("--objective", type=str, default="elbo", help=f"{', '.join(OBJECTIVES)}, or an import path")
    parser.add_argument("--objective_args", type=dict[str, Any], default={}, help="such as --objective.particles 20")
    parser.add_argument(
        "--pretrain",
        type=int,
        default=0,
        help="epochs of greedy pre-training of every layer, before the fit; 0 for none",
    )
    parser.add_function_arguments(train.fit, skip={"story", "data", "objective", "valid", "transform", "progress"})
    return parser


class PartsInBrief(DefaultHelpFormatter):
    """Help that says of a part how to learn more, instead of its type and every torch module of that type."""

    def _get_help_string(self, action: Any) -> str:
        if action.dest in SWAPPED:
            return f"{action.help}; --{action.dest}.help NAME lists its arguments"
        return super()._get_help_string(action)


def qualify(arguments: Sequence[str]) -> list[str]:
    """Command-line words with every part's short name spelled out, in a configuration file too."""
    words = [word for argument in arguments for word in _equals_apart(argument)]
    for index, word in enumerate(words):
        following = words[index + 1] if index + 1 < len(words) else ""
        option = word.removeprefix("--")
        if word.startswith(("--objective.", "--method.")):
            words[index] = word.replace(".", "_args.", 1)
        elif word.startswith("--") and option in SWAPPED and following:
            words[index + 1] = _qualified(option, following)
        elif word == "--config" and following:
            words[index + 1] = yaml.safe_dump(read_config(Path(following)))
    return words


def _equals_apart(argument: str) -> list[str]:
    return argument.split("=", 1) if re.match(rf"--({'|'.join(SWAPPED)}|config)=", argument) else [argument]


def read_config(path: Path) -> dict[str, Any]:
    """A YAML file of options, or one of the package's by its name, its short names spelled out."""
    if not path.exists() and (CONFIGURATIONS / f"{path}.yaml").is_file():
        path = CONFIGURATIONS / f"{path}.yaml"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(configurations())
        raise FileNotFoundError(f"there is no configuration file {path}, nor one of that name here: {known}") from None
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ValueError(f"{path} should be a YAML file of options: {one_line(error)}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} should hold options as `name: value` lines")
    for option in SWAPPED.keys() & config.keys():
        part = config[option]
        if isinstance(part, str):
            config[option] = {"class_path": _qualified(option, part)}
        elif isinstance(part, dict) and isinstance(part.get("class_path"), str):
            part["class_path"] = _qualified(option, part["class_path"])
    return config


def configurations() -> list[str]:
    """The configurations that come with the package."""
    return sorted(path.stem for path in CONFIGURATIONS.glob("*.yaml"))


def _qualified(option: str, name: str) -> str:
    """The import path of a part: a short name is one of ours."""
    if name.startswith(("-", "{")):
        return name
    if "." in name:
        imported(option, name)
        return name
    module = SWAPPED[option]
    if name in names(module):
        return f"{module.__name__}.{name}"
    raise ValueError(
        f"unknown {option} '{name}': it should be one of {nearest(name, names(module))}, or an import path"
    )


def names(module: ModuleType) -> list[str]:
    """The parts, stories or families of networks that a module offers."""
    if module is stories:
        functions = inspect.getmembers(stories, inspect.isfunction)
        return [name for name, make in functions if name[0] != "_" and "sizes" in inspect.signature(make).parameters]
    if module is networks:
        return [name for name, family in inspect.getmembers(networks, inspect.isclass) if hasattr(family, "decoder")]
    return list(module.__all__)


def nearest(name: str, known: Sequence[str]) -> str:
    """The known names, the most similar one first."""
    folded = {word.lower(): word for word in known}
    return ", ".join(folded[word] for word in get_close_matches(name.lower(), folded, n=len(folded), cutoff=0.0))


def imported(option: str, path: str) -> Any:
    """What an import path names: a file of the working folder may hold it."""
    module, _, attribute = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a file of the user's may fail in any way
        raise ValueError(f"{option} '{path}' should be importable, but: {one_line(error)}") from error


def parameters(function: Callable[..., Any], without: Sequence[str] = ()) -> list[inspect.Parameter]:
    """What a function or a class takes by name, beyond what it is given anyway."""
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    named = [p for p in parameters if p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD} and p.name not in without]
    return [p.replace(annotation=float) if p.annotation == Scalar else p for p in named]  # no tensor can be typed


def listed(parameters: Sequence[inspect.Parameter]) -> str:
    words = [p.name if p.annotation is p.empty else f"{p.name} ({type_name(p)})" for p in parameters]
    return ", ".join(words) or "no arguments"


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Options from the command line; a wrong one is a ValueError of one line."""
    try:
        return parser.parse_args(qualify(arguments))
    except ArgumentError as error:
        raise ValueError(plain(error)) from error


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
    taken = {parameter.name: parameter for parameter in parameters(imported(option, path), LINKED + SKIPPED)}
    refused = re.match(r"Option '(\S+)' is not accepted", said)
    if refused:
        return f"--{option} {name} takes {listed(list(taken.values()))}, got {refused.group(1)}"
    wrong = re.match(r"Parser key \"(\w+)[\w.]*\": .*?Got value: (.*?)\.*(?: - Expected .*)?$", said)
    if wrong and wrong.group(1) in taken:
        argument, value = wrong.groups()
        return f"--{option}.{argument} of {name} should be {type_name(taken[argument])}, got {value}"
    missing = re.search(r"following arguments are required: ([\w, ]+)", said)
    if missing:
        needed = [taken[name] for name in re.findall(r"\w+", missing.group(1)) if name in taken]
        return f"--{option} {name} needs {listed(needed) if needed else missing.group(1)}"
    return f"--{option} {name}: {said}"


def type_name(parameter: inspect.Parameter) -> str:
    """A parameter's type as one would type it: `int`, `list[int]`, `'a' or 'b'`."""
    if get_origin(parameter.annotation) is Literal:
        return " or ".join(map(repr, get_args(parameter.annotation)))
    written = inspect.formatannotation(parameter.annotation).replace("collections.abc.Sequence", "list")
    return "a list in brackets, such as [200, 100]" if written == "list[int]" else written


def part_help(words: Sequence[str]) -> str | None:
    """What `--prior.help NAME` asks for: a part's docstring and options; every name where none is given."""
    for word, name in zip(words, [*words, ""][1:], strict=True):
        option = word.removeprefix("--").removesuffix(".help")
        if word == f"--{option}.help" and option in SWAPPED:
            if not name or name.startswith("-"):
                return f"--{option} is one of {', '.join(names(SWAPPED[option]))}, or an import path"
            part = imported(option, _qualified(option, name))
            own = parameters(part, LINKED + SKIPPED)
            options = [f"  --{option}.{p.name} ({type_name(p)}{_default(p)})" for p in own]
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


def one_line(error: BaseException) -> str:
    name = type(error).__name__
    text = " ".join(str(error).split())
    return text if isinstance(error, ArgumentError | ValueError) and text else f"{name}: {text}".removesuffix(": ")


def use_working_folder() -> None:
    """Let import paths name files of the folder that the command runs in."""
    if "" not in sys.path:
        sys.path.insert(0, "")
