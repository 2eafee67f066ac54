"""From options to a story and an objective, its networks sized from the data."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import torch
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from ppvae.arguments import OBJECTIVES, PARTS, imported, listed, nearest, one_line, parameters, plain
from ppvae.data import Observation
from ppvae.inference import objectives
from ppvae.inference.programs import evaluating
from ppvae.models import VAE, assemble

SIZES = {
    "prior": "it is made with the latent size",
    "likelihood": "its attribute `outputs` says how many network outputs it takes per feature (1 where there is none)",
    "encoder": "its attribute `outputs` says how many network outputs it takes per latent (1 where there is none)",
}


def find_objective(name: str, arguments: dict[str, Any]) -> "partial[torch.Tensor]":
    """An objective by name or import path, with all of its arguments bound."""
    function = _named_objective(name)
    taken = parameters(function)[2:]  # after the story and the data
    parser = ArgumentParser(exit_on_error=False)
    for parameter in taken:
        kind = Any if parameter.annotation is parameter.empty else parameter.annotation
        given = {"required": True} if parameter.default is parameter.empty else {"default": parameter.default}
        parser.add_argument(f"--{parameter.name}", type=kind, **given)
    for argument in arguments:
        if argument not in [parameter.name for parameter in taken]:
            raise ValueError(f"objective {name} takes {listed(taken)}, got {argument}")
    try:
        return partial(function, **parser.parse_object(arguments).as_dict())
    except ArgumentError as error:
        raise ValueError(f"objective {name}: {plain(error)}") from error


def _named_objective(name: str) -> Callable[..., Any]:
    if "." not in name and name not in OBJECTIVES:
        raise ValueError(f"unknown objective '{name}': it should be {nearest(name, OBJECTIVES)}, or an import path")
    function = imported("objective", name) if "." in name else getattr(objectives, name)
    if not callable(function):
        raise ValueError(f"objective '{name}' should be a function of a story and data, got {function!r}")
    return function


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
    sizes = {"features": observation.features, "latent": options.latent, "hidden": options.hidden}
    story = assemble(*parts, **sizes, input_scale=observation.input_scale)
    _check_parts(story, observation.features, options.latent)
    return story


def _maker(option: str, make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A part's maker that says which part it was when it fails."""

    def made(argument: Any) -> Any:
        try:
            return make(argument)
        except Exception as error:  # a class of the user's may fail in any way
            raise ValueError(f"the {option} could not be made: {one_line(error)}") from error

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
                raise ValueError(f"the {option} should give a distribution, but: {one_line(error)}") from error
            if shape != (size,):
                rule = f"the {option} should give a distribution of event_shape ({size},), got {shape}"
                raise ValueError(f"{rule}: {'end it with .to_event(1)' if not shape else SIZES[option]}")
