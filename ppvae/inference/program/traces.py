"""Run a story's two programs and read what they say: any pair with a data plate at dim -1, ours or anyone's."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.distributions.util import scale_and_mask
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from ppvae.base import Batch, Story, optional

PARTICLES = "_particles"
Site = dict[str, Any]


def as_batch(data: Batch) -> tuple[Tensor, ...]:
    """Data as the tuple of tensors that the programs are called with, checked to be of one length."""
    batch = (data,) if isinstance(data, Tensor) else tuple(data) if isinstance(data, list | tuple) else ()
    if not batch or not all(isinstance(part, Tensor) for part in batch):
        kind = type(data).__name__ if not batch else type(batch[0]).__name__
        raise ValueError(f"data should be a tensor or a tuple of tensors, got {kind}: such as digits.train")
    lengths = [len(part) for part in batch]
    if len(set(lengths)) != 1:
        raise ValueError(f"a batch should be one tensor or several of equal length, got lengths {lengths}")
    if lengths[0] < 1:
        raise ValueError("a batch should hold at least 1 datum, got 0")
    return batch


def batch_for(story: Story, x: Tensor, **others: Tensor | None) -> tuple[Tensor, ...]:
    """x, and of the others what the story's model names after it: `model(self, x, labels)` gets `labels`.

    A library size goes to a story that takes one, behind a mask of ones where nothing is missing.

    Raises:
        ValueError: the model needs what is not there.
    """
    batch, names = [x], list(inspect.signature(story.model).parameters)[1:]
    if others.get("mask") is not None and "mask" not in names:
        raise ValueError(f"{type(story).__name__} takes no mask, so it cannot score data with missing values")
    if optional(story, "library"):
        others["mask"] = torch.ones_like(x, dtype=torch.bool) if others.get("mask") is None else others["mask"]
    else:
        others["library"] = None
    for parameter in list(inspect.signature(story.model).parameters.values())[1:]:
        tensor = others.get(parameter.name)
        if tensor is None:
            if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                raise ValueError(f"{type(story).__name__} needs {parameter.name}, which these data do not have")
            break
        batch.append(tensor)
    return tuple(batch)


def scored(story: Story) -> str:
    """What a story's figures are of, where that is not p(x): they compare with their like only."""
    return str(optional(story, "scores"))


def as_seen(story: Story, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The batch as the story's programs see it: one with missing values says by a method `seen` what stands there."""
    seen = optional(story, "seen")
    return batch if seen is None else tuple(seen(*batch))


def networks_of(story: Any) -> nn.Module:
    """The story itself where it is a module; else the modules that it holds, as one."""
    if isinstance(story, nn.Module):
        return story
    return nn.ModuleDict({name: part for name, part in vars(story).items() if isinstance(part, nn.Module)})


def placed(story: Story, data: Batch) -> tuple[Tensor, ...]:
    """Data as a batch on the device of the story's tensors."""
    networks = networks_of(story)
    held = [*networks.parameters(), *networks.buffers()]
    return tuple(part.to(held[0].device) for part in as_batch(data)) if held else as_batch(data)


def run(program: Any, batch: tuple[Tensor, ...], particles: int) -> poutine.Trace:
    """The trace of `particles` vectorised runs of a program; every site's batch shape ends in (particles, batch).

    Pyro's parameter store is left as it was found: what a run adds to it is taken out again.
    """
    if particles < 1:
        raise ValueError(f"particles should be at least 1, got {particles}")

    def vectorised(*args: Tensor) -> None:
        with pyro.plate(PARTICLES, particles, dim=-2):
            program(*args)

    store = pyro.get_param_store()
    with store.scope(store.get_state()):
        try:
            return poutine.trace(vectorised).get_trace(*batch)
        except ValueError as error:
            if PARTICLES in str(error) and "collide" in str(error):
                raise ValueError(
                    "a plate of the story takes dim -2, which log-weights need for the particles; "
                    'keep plate("data") at dim=-1 and give every other plate dim=-3 or lower'
                ) from error
            raise


def sample_sites(trace: poutine.Trace) -> Iterator[Site]:
    """The sites that carry a density: samples and factors, but not subsampling or `pyro.deterministic`."""
    nodes: dict[str, Any] = dict(trace.nodes)
    for site in nodes.values():
        if site["type"] == "sample" and not site_is_subsample(site) and not site["infer"].get("_deterministic"):
            yield site


def latent_sites(trace: poutine.Trace) -> Iterator[Site]:
    """The unobserved sample sites."""
    return (site for site in sample_sites(trace) if not site["is_observed"])


def check_one_plate(*traces: poutine.Trace) -> None:
    """Every site should lie in the same plate at dim -1: one of another name only happens to have its size."""
    plates: dict[str, str] = {}
    for trace in traces:
        for site in sample_sites(trace):
            for frame in site["cond_indep_stack"]:
                if frame.dim == -1:
                    plates.setdefault(frame.name, site["name"])
    if len(plates) > 1:
        where = ", ".join(f"'{site}' in '{plate}'" for plate, site in plates.items())
        raise ValueError(f"every site should lie in one plate at dim -1, the data plate; there is {where}")


def check_measures(guide: poutine.Trace, model: poutine.Trace) -> None:
    """A latent should have one kind of support in both: a mass has no ratio to a density, nor a sphere's to a space's.

    A guide's point mass goes with any.
    """
    for site in latent_sites(guide):
        if site["name"] in model.nodes and not is_point_mass(site["fn"]):
            drawn, expected = (support_of(trace.nodes[site["name"]]["fn"]) for trace in (guide, model))
            if drawn and expected and _measure(drawn) != _measure(expected):
                raise ValueError(
                    f"the guide should draw site '{site['name']}' from a support like the model's, {expected}; it "
                    f"draws from {drawn}, so their densities have no ratio: a prior on the sphere goes with the guide "
                    "VonMisesFisher, a one-hot one with OneHotCategorical, a relaxed one with GumbelSoftmax"
                )


def support_of(fn: Any) -> Any:
    """A distribution's support, of one element where they are alike; None where it does not say."""
    try:
        support = fn.support
    except (AttributeError, NotImplementedError):
        return None
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return None if constraints.is_dependent(support) else support


def _measure(support: Any) -> str:
    """What a density is with respect to: counting, the surface of a set of lower dimension, or all of the space."""
    if support.is_discrete:
        return "counting"
    return next((name for name, kind in _SURFACES.items() if isinstance(support, kind)), "volume")


_SURFACES = {
    "sphere": type(constraints.sphere),
    "simplex": type(constraints.simplex),
    "correlation": type(constraints.corr_cholesky),
}


def is_point_mass(fn: Any) -> bool:
    """Whether a distribution is a Delta, under any wrapping."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return isinstance(fn, dist.Delta)


def is_auxiliary(site: Site) -> bool:
    """Whether a guide's site is no latent of the model: others are functions of it, with its density."""
    return bool(site["infer"].get("is_auxiliary"))


def check_plate(site: Site, batch: int) -> dict[int, Any]:
    """The plates of a site by dim, after a check that the one at dim -1 has one place a datum."""
    frames = {frame.dim: frame for frame in site["cond_indep_stack"] if frame.vectorized}
    sizes = {dim: frame.size for dim, frame in frames.items()}
    if sizes.get(-1) != batch:
        kind = "observed" if site["is_observed"] else "latent"
        if -1 in sizes:
            raise ValueError(
                f"the plate at dim -1 should have one place a datum, {batch} here; {kind} site '{site['name']}' lies "
                f'in one of {sizes[-1]}: size it by the batch, `pyro.plate("data", len(x), dim=-1)`'
            )
        raise ValueError(
            f"every site should lie in the data plate, so that each datum has its own evidence; {kind} site "
            f"'{site['name']}' does not: put it inside `with pyro.plate(\"data\", len(x), dim=-1)`"
        )
    return frames


def log_density(site: Site, particles: int, batch: int, scaled: bool = False) -> Tensor:
    """A site's log-density summed down to (particles, batch): masked, and scaled only for an objective.

    Scales (`poutine.scale`, subsampling) have no place in a log-weight. The data plate's own scale, full size over
    batch, is left out of both: figures are per datum.
    """
    frames = check_plate(site, batch)
    part = next((frame for dim, frame in frames.items() if dim < -1 and frame.full_size != frame.size), None)
    if part is not None and not scaled:
        raise ValueError(
            f"log-weights need every place of a plate; plate '{part.name}' of site '{site['name']}' takes {part.size} "
            f"of {part.full_size} at random: leave out its subsample_size"
        )
    value = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    scale = site["scale"] / (frames[-1].full_size / frames[-1].size) if scaled else 1.0
    log_prob = scale_and_mask(value, scale, site["mask"])
    return log_prob.sum_to_size(log_prob.shape[-2:]).expand(particles, batch)


@contextmanager
def evaluating(story: Story) -> Iterator[None]:
    """Evaluation mode for a while: every submodule's mode comes back as it was."""
    modules = list(networks_of(story).modules())
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
