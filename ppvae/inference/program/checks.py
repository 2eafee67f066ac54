"""What is asked of a story's programs: data in the support, finite sites, parameters that are its own, densities."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from torch import Tensor

from ppvae.base import Story
from ppvae.inference.program.errors import NoDensity
from ppvae.inference.program.streams import own_generators
from ppvae.inference.program.traces import (
    Site,
    as_seen,
    check_plate,
    evaluating,
    is_auxiliary,
    is_point_mass,
    latent_sites,
    networks_of,
    run,
    sample_sites,
)

REMEDIES = {
    type(constraints.boolean): "binarise the data (binarisation threshold, static or dynamic), or use a likelihood "
    "for what they are (Binomial for counts up to a largest one, Normal for real values)",
    type(constraints.integer_interval(0, 1)): "raise the largest count, or leave the data unscaled",
}


@contextmanager
def hot_loop() -> Iterator[None]:
    """Pyro's validation off for a while: `check_data` has done it once, for all the data."""
    with pyro.validation_enabled(False):
        yield


@torch.no_grad()
def check_data(story: Story, batch: tuple[Tensor, ...], rows: int = 1024) -> None:
    """Run the programs over all the data once, and refuse what the story cannot score.

    Raises:
        ValueError: values that are not finite, or outside the support of the site that observes them; a shape or
            dtype that the programs do not take; a guide that cannot be run on one datum alone.
    """
    batch = as_seen(story, batch)  # what stands where a value is missing may be anything
    for part in batch:
        strange = (~torch.isfinite(part)).nonzero()
        if len(strange):
            place = strange[0].tolist()
            raise ValueError(f"data should be finite, got {part[tuple(place)].item()} at index {place}")
    with evaluating(story), pyro.validation_enabled(False):
        _check_rows(story, tuple(part[:1] for part in batch), 0)
        for start in range(0, len(batch[0]), rows):
            _check_rows(story, tuple(part[start : start + rows] for part in batch), start)


@torch.no_grad()
def check_parameters(story: Story, batch: tuple[Tensor, ...]) -> None:
    """Refuse a parameter that the story does not own: no fit would move it.

    Raises:
        ValueError: a `pyro.param` that is no parameter of the story itself.
    """
    with evaluating(story), pyro.validation_enabled(False):
        lost = foreign_parameters(story, tuple(part[:1] for part in batch))
    if lost:
        raise ValueError(
            f"every parameter should belong to the story, so that fit can move it; {', '.join(lost)} does not: "
            "make it an nn.Parameter of the story, or of a part of it (or, where it is another story's, clear Pyro's "
            "parameter store)"
        )


def _check_rows(story: Story, batch: tuple[Tensor, ...], start: int) -> None:
    shapes = ", ".join(f"{tuple(part.shape)} {part.dtype}".replace("torch.", "") for part in batch)
    try:
        guide = run(story.guide, batch, particles=1)
        model = run(poutine.replay(story.model, trace=guide), batch, particles=1)
    except RuntimeError as error:
        raise ValueError(
            f"the story should take data of shape {shapes}, with the particles in front of the batch wherever a draw "
            f"goes, but: {_first_line(error)}"
        ) from error
    for site in [*latent_sites(guide), *sample_sites(model)]:
        check_plate(site, len(batch[0]))
    for site in sample_sites(model):
        if site["is_observed"]:
            _check_support(site, start)


def _check_support(site: Site, start: int) -> None:
    support, value = site["fn"].support, site["value"]
    event = tuple(site["fn"].event_shape)
    if event and tuple(value.shape[-len(event) :]) != event:
        raise ValueError(
            f"site '{site['name']}' should observe data of shape {event} per datum, got {tuple(value.shape[1:])}"
        )
    while isinstance(support, constraints.independent):
        support = support.base_constraint  # element by element, to say which one is outside
    inside = support.check(value)
    if inside.all():
        return
    while hasattr(support, "base_constraint"):
        support = support.base_constraint  # of a mixture, or of what is observed of the data
    name = _family(site["fn"])
    remedy = _remedy(support)
    if inside.numel() % value.numel():  # a constraint on rows, not on elements
        raise ValueError(f"site '{site['name']}' observes rows in the support of {name}, {support}: {remedy}")
    inside = inside.reshape(-1, *value.shape).all(dim=0)  # bounds may have the particles' dimension
    place = (~inside).nonzero()[0].tolist()
    row = place[value.dim() - site["fn"].event_dim - 1]
    if hasattr(support, "columns"):  # one for every column
        support, name = support.columns[place[-1]], f"column {place[-1]}"
        remedy = _remedy(support)
    raise ValueError(
        f"site '{site['name']}' observes values in the support of {name}, {_describe(support)}; got "
        f"{value[tuple(place)].item():g} in row {start + row}: {remedy}"
    )


def _remedy(support: Any) -> str:
    return REMEDIES.get(type(support), "rescale the data, or use a likelihood with a wider support")


def _family(fn: object) -> str:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return type(fn).__name__


def _describe(support: object) -> str:
    if isinstance(support, type(constraints.boolean)):
        return "{0, 1}"
    if isinstance(support, type(constraints.integer_interval(0, 1))):
        top = torch.as_tensor(support.upper_bound).max().item()
        return f"{{0, ..., {top:g}}}"
    if support is constraints.nonnegative_integer:
        return "{0, 1, ...}"
    return str(support)


def foreign_parameters(story: Story, batch: tuple[Tensor, ...]) -> list[str]:
    """Names of the `pyro.param` sites that are no parameter of the story itself."""
    own = {id(parameter) for parameter in networks_of(story).parameters()}
    store = pyro.get_param_store()
    with store.scope(store.get_state()):
        guide = poutine.trace(story.guide).get_trace(*batch)
        model = poutine.trace(poutine.replay(story.model, trace=guide)).get_trace(*batch)
        return sorted(
            name
            for name, unconstrained in store.named_parameters()
            if id(unconstrained) not in own and (name in guide.nodes or name in model.nodes)
        )


@torch.no_grad()
def not_finite(story: Story, batch: tuple[Tensor, ...]) -> str:
    """The first site, guide before model, whose value or log-density is not a finite number."""
    with pyro.validation_enabled(False):
        guide = run(story.guide, batch, particles=1)
        model = run(poutine.replay(story.model, trace=guide), batch, particles=1)
    for where, sites in {"guide": latent_sites(guide), "model": sample_sites(model)}.items():
        for site in sites:
            log_prob = site["fn"].log_prob(site["value"])
            if not (torch.isfinite(log_prob).all() and torch.isfinite(site["value"]).all()):
                return f"site '{site['name']}' of the {where} ({_family(site['fn'])})"
    return "no single site"


def observed(story: Story, datum: tuple[Tensor, ...]) -> tuple[str, list[str]]:
    """Whether the observed sites have a mass or a density, and the names of the model's factors."""
    sites = check_proper(story, datum)
    factors = [site["name"] for site in sites if isinstance(site["fn"], dist.Unit)]
    seen = [site for site in sites if site["is_observed"] and site["name"] not in factors]
    measures = {_kind(site["fn"].support) for site in seen}
    return ("mass" if measures <= {"mass"} else max(measures - {"mass"}, key=len)), factors


def of_factors(factors: list[str]) -> str:
    """What a method's name ends in, where the model has factors."""
    return f", of a density that the factor '{factors[0]}' leaves unnormalised" if factors else ""


def check_proper(story: Story, datum: tuple[Tensor, ...]) -> list[Site]:
    """The model's sites, none of which has a prior that integrates to no number."""
    with torch.no_grad(), evaluating(story), own_generators():
        guide = run(story.guide, datum, particles=1)
        sites = list(sample_sites(run(poutine.replay(story.model, trace=guide), datum, particles=1)))
    for site in sites:
        if isinstance(site["fn"], dist.ImproperUniform) and not site["is_observed"]:
            raise NoDensity(
                f"evidence needs a proper prior; that of site '{site['name']}' integrates to no number: "
                "take another, or put priors.ex_post(codes) in its place"
            )
    return sites


def _kind(support: Any) -> str:
    """Whether a support's elements have masses or densities: of a table's columns, some may have either."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    discrete = [bool(column.is_discrete) for column in getattr(support, "columns", [support])]
    if any(discrete) and not all(discrete):
        at = [str(column) for column, mass in enumerate(discrete) if mass]
        return f"density, in columns {', '.join(at)} mass"
    return "mass" if all(discrete) else "density"


def check_point_mass(story: Story, datum: tuple[Tensor, ...]) -> None:
    """Refuse a guide with no density as a proposal."""
    with torch.no_grad(), evaluating(story), own_generators():
        sites = list(latent_sites(run(story.guide, datum, particles=1)))
    if any(is_auxiliary(site) for site in sites):
        return  # point masses beside it carry its density
    for site in sites:
        if is_point_mass(site["fn"]):
            raise NoDensity(
                f"importance sampling needs a guide with a density; latent site '{site['name']}' has a point mass "
                "(Delta): use laplace_sampling, which widens it, prior_sampling, or a guide such as DiagonalNormal"
            )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
