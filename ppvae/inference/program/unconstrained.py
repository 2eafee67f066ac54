"""All continuous latents of a datum as one vector u of unbounded reals: where gradients may move them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import biject_to

from ppvae.base import Story
from ppvae.inference.program.errors import NoDensity
from ppvae.inference.program.proposals import guide_log_density
from ppvae.inference.program.streams import own_generators
from ppvae.inference.program.traces import (
    Site,
    evaluating,
    is_auxiliary,
    is_point_mass,
    latent_sites,
    run,
    sample_sites,
    support_of,
)
from ppvae.inference.program.weights import joint_trace, sum_sites


@dataclass(frozen=True)
class Block:
    """One latent site's part of u."""

    name: str
    transform: Any  # from unbounded reals to the site's support
    inner: tuple[int, ...]  # sizes of the plates beyond data and particles
    event: tuple[int, ...]  # of the unbounded value

    @property
    def size(self) -> int:
        return torch.Size((*self.inner, *self.event)).numel()


@dataclass(frozen=True)
class Unconstrained:
    """The map between u, `(particles, batch, size)`, and the values of the latent sites.

    A density of z becomes one of u by the Jacobian of the map: log p(u) = log p(z(u)) + log |dz / du|.
    """

    blocks: tuple[Block, ...]

    @property
    def size(self) -> int:
        return sum(block.size for block in self.blocks)

    def values(self, u: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The latents at u, each `(*inner, particles, batch, *event)`, and log |dz / du|, `(particles, batch)`."""
        latents, log_jacobian = {}, u.new_zeros(u.shape[:2])
        for block, part in zip(self.blocks, u.split([b.size for b in self.blocks], dim=-1), strict=True):
            free = part.reshape(*u.shape[:2], *block.inner, *block.event)
            free = free.movedim((0, 1), (len(block.inner), len(block.inner) + 1))
            value = block.transform(free)
            jacobian = block.transform.log_abs_det_jacobian(free, value)
            every = jacobian.reshape(torch.Size(block.inner).numel(), *u.shape[:2], -1)
            log_jacobian = log_jacobian + every.sum((0, -1))
            latents[block.name] = value
        return latents, log_jacobian

    def vector(self, latents: dict[str, Tensor]) -> Tensor:
        """u at given values of the latent sites: `(particles, batch, size)`."""
        parts = []
        for block in self.blocks:
            free = block.transform.inv(latents[block.name])
            count = len(block.inner)
            free = free.movedim((count, count + 1), (0, 1))
            parts.append(free.reshape(*free.shape[:2], -1))
        return torch.cat(parts, dim=-1)


def unconstrain(story: Story, batch: tuple[Tensor, ...], wanted: str) -> Unconstrained:
    """The map for a story's latents.

    Args:
        wanted: what needs it, in words, for the error.

    Raises:
        ValueError: a latent that no gradient moves, since it is discrete or lies on a curved set; one whose support
            is another for every datum, or that some data lack.
    """
    sites = _latents(story, tuple(part[:1] for part in batch), 1, wanted)
    blocks = []
    for site in sites:
        base, family = support_of(site["fn"]), type(site["fn"]).__name__
        if base is None:
            raise ValueError(
                f"{wanted} moves latents in unbounded space; latent site '{site['name']}' ({family}) does not say what "
                "its support is: give its distribution one, or use importance"
            )
        if base.is_discrete:
            raise ValueError(
                f"{wanted} moves latents by gradients; latent site '{site['name']}' ({family}) is discrete: use exact, "
                "which sums over it, or importance"
            )
        support = _whole_support(site)
        try:
            transform = biject_to(support)
            shape = tuple(transform.inv(site["value"]).shape)
        except (NotImplementedError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{wanted} moves latents in unbounded space; latent site '{site['name']}' lies in {support}, "
                "from which there is no map: use importance, with a guide for it"
            ) from error
        inner = site["value"].dim() - site["fn"].event_dim - 2
        blocks.append(Block(site["name"], transform, shape[:inner], shape[inner + 2 :]))
    if not blocks:
        raise ValueError(f"{wanted} needs a latent site, and this story has none: its evidence is p(x) itself")
    if any(site["mask"] is not None or _bounds(site) for site in sites):
        check_alike(story, batch, wanted)
    return Unconstrained(tuple(blocks))


def _whole_support(site: Site) -> Any:
    """The support of the whole event: a mixture's is that of its components."""
    support = site["fn"].support
    while hasattr(support, "base_constraint") and not isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def _bounds(site: Site) -> list[Tensor]:
    """The numbers that a support is made of, `(..., particles, batch, *event)`."""
    support = support_of(site["fn"])
    return [value for value in vars(support).values() if isinstance(value, Tensor)] if support is not None else []


@torch.no_grad()
def _latents(story: Story, batch: tuple[Tensor, ...], particles: int, wanted: str) -> list[Site]:
    """The latent sites of draws from the model."""
    with evaluating(story), own_generators():
        try:
            return list(latent_sites(run(story.model, batch, particles)))
        except NotImplementedError as error:
            raise NoDensity(f"{wanted} needs a proper prior; this one has no sampler") from error


def check_alike(story: Story, batch: tuple[Tensor, ...], wanted: str) -> None:
    """Refuse a latent that some of the data lack, or whose support depends on the datum or on other latents.

    A map, or a list of values, is made once and holds for all.
    """
    for site in _latents(story, batch, 2, wanted):
        name, mask = site["name"], site["mask"]
        if mask is not None and not torch.as_tensor(mask).all():
            raise ValueError(
                f"{wanted} needs latents that every datum has; '{name}' is masked for some: use importance"
            )
        event = site["fn"].event_dim
        for bound in _bounds(site):
            for dim in (-event - 1, -event - 2):  # data, particles
                if bound.dim() >= -dim and (bound != bound.narrow(dim, 0, 1)).any():
                    raise ValueError(
                        f"{wanted} needs latents whose support is the same for all; that of '{name}' depends on the "
                        "datum or on other latents: use importance, or draw a share of it and scale that"
                    )


def model_densities(
    story: Story, batch: tuple[Tensor, ...], flat: Unconstrained
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """u to log p(x, u) and log p(u), both `(particles, batch)` nats, differentiable."""

    def densities(u: Tensor) -> tuple[Tensor, Tensor]:
        latents, log_jacobian = flat.values(u)
        particles, rows = u.shape[:2]
        sites = list(sample_sites(joint_trace(story, batch, latents, particles)))
        log_p = sum_sites(sites, particles, rows) + log_jacobian
        log_prior = sum_sites((site for site in sites if site["name"] in latents), particles, rows) + log_jacobian
        return log_p, log_prior

    return densities


def guide_densities(
    story: Story, batch: tuple[Tensor, ...], flat: Unconstrained
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """u to log p(x, u) and log q(u | x), both `(particles, batch)` nats, differentiable."""
    joint = model_densities(story, batch, flat)

    def densities(u: Tensor) -> tuple[Tensor, Tensor]:
        latents, log_jacobian = flat.values(u)
        return joint(u)[0], guide_log_density(story, batch, latents, len(u)) + log_jacobian

    return densities


@torch.no_grad()
def check_guide(story: Story, batch: tuple[Tensor, ...]) -> list[Site]:
    """The latent sites that the guide draws, which should be the model's."""
    datum = tuple(part[:1] for part in batch)
    with evaluating(story), own_generators():
        drawn = list(latent_sites(run(story.guide, datum, particles=1)))
        joint_trace(
            story, datum, {site["name"]: site["value"] for site in drawn if not is_auxiliary(site)}, particles=1
        )
    return drawn


def check_guide_density(story: Story, batch: tuple[Tensor, ...]) -> None:
    """Refuse a guide that has no density of the model's latents."""
    for site in check_guide(story, batch):
        if is_auxiliary(site) or is_point_mass(site["fn"]):
            raise ValueError(
                f"a start at the guide needs a guide with a density; latent site '{site['name']}' has none: start at "
                "the prior, start='prior'"
            )
