"""The evidence of any fitted story: a deterministic one gets a density of its codes, and a proposal with a density."""

from dataclasses import replace
from typing import Any

import torch
from pyro.distributions import constraints
from torch import Tensor

from ppvae.base import optional
from ppvae.inference.evidence.evidence import Evidence
from ppvae.inference.evidence.importance import importance
from ppvae.inference.evidence.laplace import laplace_sampling
from ppvae.inference.evidence.refined import refined_sampling
from ppvae.inference.posteriors.laplace import held_sites
from ppvae.inference.program.codes import at_means, drawn_codes, is_deterministic
from ppvae.inference.program.streams import own_generators
from ppvae.inference.program.traces import evaluating, latent_sites, placed, run, support_of
from ppvae.models import priors

ROWS = 10_000  # draws that an ex-post prior is fitted to, at least
COMPONENTS = 10  # of the density of a deterministic story's codes: Ghosh et al. 2020


def settle(story: Any, data: tuple[Tensor, ...]) -> None:
    """Once a story is fitted, give a prior that is ex post its codes: draws from the guide, not only their means."""
    prior = optional(story, "prior")
    inside = any(isinstance(part, priors.ExPost) for part in getattr(prior, "children", list)())
    if inside:
        raise ValueError(
            f"an ex-post prior cannot stand inside a {type(prior).__name__}: there are no codes of its own"
        )
    if isinstance(prior, priors.ExPost):
        draws = 1 if is_deterministic(story, data) else max(1, ROWS // len(data[0]))
        with own_generators():
            torch.manual_seed(0)
            story.prior = priors.ex_post(
                drawn_codes(story, data, draws, optional(story, "prior_site")), len(prior.weights)
            )


def give_density(story: Any, data: tuple[Tensor, ...]) -> bool:
    """Put a mixture of Gaussians, fitted to the codes of `data`, in place of the prior of a deterministic story.

    It can then be sampled, and has evidence. There are 10 components, fewer where there are not five different codes
    for each of their dimensions. Ghosh et al. 2020, https://arxiv.org/abs/1903.12436

    Returns:
        Whether it did: not where the guide has a density, the prior is such a mixture already, or depends on labels.
    """
    prior = optional(story, "prior")
    bare = prior is not None and not isinstance(prior, priors.ExPost) and not optional(story, "given")
    if bare and is_deterministic(story, data):
        z = drawn_codes(story, data, site=optional(story, "prior_site"))
        enough = len(torch.unique(z, dim=0)) // (5 * z.shape[-1])
        story.prior = priors.ex_post(z, max(1, min(COMPONENTS, enough)))
        return True
    return False


def score(
    story: Any, data: tuple[Tensor, ...], *, particles: int = 1000, seed: int = 0, progress: bool = True
) -> Evidence:
    """log p(x) by the safest proposal for a story: half from its guide, half from a Normal refined for each datum.

    The refined Normal makes up for what a guide misses of the one posterior that it is asked for, and the guide for the
    modes that a Normal cannot have. A point mass has no half of its own, and no ELBO; latents that are discrete,
    bounded or on curved sets are left to the guide. The ELBO beside the estimate is the guide's.

    Raises:
        NoDensity: an improper prior.
    """
    if is_deterministic(story, data):
        first = tuple(part[:1] for part in placed(story, data))
        held = held_sites(at_means(story, first))  # latents that are no code, such as a tree
        found = (laplace_sampling if held else refined_sampling)(
            story, data, particles=particles, seed=seed, progress=progress
        )
        nothing = torch.full_like(found.elbo, torch.nan)
        return replace(found, elbo=nothing, elbo_standard_error=nothing)
    by_guide = importance(story, data, particles=particles, seed=seed, progress=progress)
    if not _unbounded(story, data):
        return by_guide
    try:
        found = refined_sampling(story, data, particles=particles, seed=seed, progress=progress, guide_share=0.5)
    except (ValueError, NotImplementedError):  # a guide without a density of its own latents, or no derivative
        return by_guide
    return replace(found, elbo=by_guide.elbo, elbo_standard_error=by_guide.elbo_standard_error)


def _unbounded(story: Any, data: tuple[Tensor, ...]) -> bool:
    """Whether every latent is of unbounded real numbers: a draw on the edge of a set has no place in such a space."""
    first = tuple(part[:1] for part in placed(story, data))
    with torch.no_grad(), evaluating(story), own_generators():
        sites = list(latent_sites(run(story.model, first, particles=1)))
    return all(support_of(site["fn"]) is constraints.real for site in sites)
