"""From options to a story and an objective, its networks sized from the data."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from jsonargparse import ArgumentError, ArgumentParser, Namespace
from torch import Tensor
from torch.optim import Optimizer

from ppvae.data.observation import Observation
from ppvae.experiments.lookup import imported, listed, names, nearest, one_line, parameters, qualified
from ppvae.experiments.options import Arguments, Plain, plain
from ppvae.inference import objectives
from ppvae.models import Sizes, assemble
from ppvae.training import optimizers


def find_objective(name: str, arguments: Arguments) -> "partial[Tensor]":
    """An objective by name or import path, with all of its arguments bound."""
    return find_function("objective", {own: getattr(objectives, own) for own in names(objectives)}, name, arguments)


def find_optimizer(name: str, arguments: Arguments) -> "partial[Optimizer]":
    """An optimiser of parameters and a step size by name or import path, with other arguments bound.

    Raises:
        ValueError: no such function; an argument that it does not take.
    """
    make = imported("optimizer", qualified("optimizer", name))
    if not callable(make):
        raise ValueError(f"optimizer '{name}' should be a function of parameters and a step size, got {make!r}")
    taken = [parameter.name for parameter in parameters(make)[2:]]
    for argument in arguments:
        if argument not in taken:
            raise ValueError(f"optimizer {name} takes {', '.join(taken) or 'no arguments'}, got {argument}")
    return partial(make, **{k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()})


def find_function(
    kind: str,
    known: dict[str, Callable[..., Any]],
    name: str,
    arguments: Arguments,
    skipped: Sequence[str] = (),
) -> "partial[Any]":
    """A function of a story and data by a known name or an import path, with its other arguments bound.

    Args:
        kind: what it is, in words.
        arguments: by name; every other one is bound to its default.
        skipped: arguments that are left as they are.

    Raises:
        ValueError: no such function; what is no function of a story and data; an argument that it does not take.
    """
    function = _named(kind, known, name)
    taken = [parameter for parameter in _after_two(kind, name, function) if parameter.name not in skipped]
    for argument in arguments:
        if argument not in [parameter.name for parameter in taken]:
            raise ValueError(f"{kind} {name} takes {listed(taken)}, got {argument}")
    defaults = {p.name: p.default for p in taken if p.name not in arguments and p.default is not p.empty}
    parser = ArgumentParser(exit_on_error=False)
    for parameter in taken:
        if parameter.name not in defaults:
            of_type: Any = Plain | list[Plain] if parameter.annotation is parameter.empty else parameter.annotation
            parser.add_argument(f"--{parameter.name}", type=of_type, required=True)
    try:
        return partial(function, **defaults, **parser.parse_object(arguments).as_dict())
    except ArgumentError as error:
        raise ValueError(f"{kind} {name}: {plain(error)}") from error


def _named(kind: str, known: dict[str, Callable[..., Any]], name: str) -> Callable[..., Any]:
    if "." not in name and name not in known:
        raise ValueError(
            f"unknown {kind} '{name}': it should be one of {nearest(name, list(known))}, or an import path"
        )
    function = imported(kind, name) if "." in name else known[name]
    if not callable(function):
        raise ValueError(f"{kind} '{name}' should be a function of a story and data, got {function!r}")
    return cast(Callable[..., Any], function)


def _after_two(kind: str, name: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    """What a function takes beyond a story and data."""
    try:
        inspect.signature(function).bind_partial(None, None)
        return parameters(function)[2:]
    except (TypeError, ValueError, NameError) as error:  # too few places; none told; an annotation without its import
        raise ValueError(f"{kind} '{name}' should be a function of a story and data, but: {one_line(error)}") from error


def natural_likelihood(observation: Observation) -> dict[str, Any]:
    """The likelihood of the data's own kind, as a configuration."""
    if observation.kind == "binary":
        return {"class_path": "ppvae.models.likelihoods.Bernoulli"}
    if observation.kind == "levels":
        return {"class_path": "ppvae.models.likelihoods.Binomial"}
    if observation.kind == "real":
        return {"class_path": "ppvae.models.likelihoods.Normal", "init_args": {"learned": True}}
    raise ValueError(f"no likelihood is natural for {observation}: name one, or standardise the data")


def complete(parser: ArgumentParser, options: Namespace, observation: Observation) -> Namespace:
    """Options with nothing left open: what the data decide is written out."""
    if options.pretrain < 0:
        raise ValueError(f"pretrain should be at least 0, got {options.pretrain}")
    options = options.clone()
    objective = find_objective(options.objective, options.objective_args)
    bound = objective.keywords
    ours = [name for name in names(objectives) if getattr(objectives, name) is objective.func]
    options.objective = ours[0] if ours else options.objective  # by the name that a file may use
    written = {name: value for name, value in bound.items() if isinstance(value, bool | int | float | str | None)}
    options.objective_args = dict(sorted((written | options.objective_args).items()))  # as a file is read back
    options.optimizer = qualified("optimizer", options.optimizer).removeprefix(f"{optimizers.__name__}.")
    return with_likelihood(parser, options, observation)


def with_likelihood(parser: ArgumentParser, options: Namespace, observation: Observation) -> Namespace:
    """Options with the likelihood of the data's own kind, where they name none."""
    if options.likelihood is not None:
        return options
    return parser.parse_object({"likelihood": natural_likelihood(observation)}, options)


def build_story(parser: ArgumentParser, options: Namespace, seen: Observation | Sizes, x: Tensor | None = None) -> Any:
    """The story that options describe, its networks sized from the data and the latent size.

    Args:
        seen: what was observed; or the sizes alone, for options that name a likelihood.
        x: data to start from, for parts that can; without them a part starts at random.
    """
    if options.latent < 1:
        raise ValueError(f"latent should be at least 1, got {options.latent}")
    if isinstance(seen, Observation):
        options = with_likelihood(parser, options, seen)
    elif options.likelihood is None:
        raise ValueError("likelihood should be named: there are no data whose kind would say it")
    made = parser.instantiate(options)  # the networks' family; of a part it leaves the import path and the arguments
    prior = maker("prior", made.prior)
    likelihood = maker("likelihood", made.likelihood)
    encoder = maker("encoder", made.encoder)
    called = (
        "it is called with the makers of its parts, (prior, likelihood, encoder, sizes), as in ppvae.models.stories"
    )
    try:
        story = assemble(
            prior,
            likelihood,
            encoder,
            story=maker("story", made.story),
            shape=seen.shape,
            latent=options.latent,
            network=made.network,
            input_scale=seen.input_scale,
            x=x,
            maximum=seen.maximum,
            classes=seen.classes,
            output_bias=options.output_bias,
        )
    except ValueError:
        raise
    except Exception as error:  # a function of the user's may fail in any way
        raise ValueError(f"the story {options.story.class_path} failed: {one_line(error)}; {called}") from error
    makers = {"prior": prior, "likelihood": likelihood, "encoder": encoder}
    unmade = [option for option, make in makers.items() if vars(story).get(option) is make]
    if unmade:
        raise ValueError(
            f"the story {options.story.class_path} holds the maker of its {unmade[0]}, not one made; {called}"
        )
    return story


def maker(option: str, config: Namespace) -> "partial[Any]":
    """What an import path names, with its arguments bound."""
    made = imported(option, config.class_path)
    return partial(made, **vars(config.get("init_args") or Namespace()))
