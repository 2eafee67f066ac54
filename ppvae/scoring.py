"""The evidence of any fitted story: a deterministic one gets a density of its codes, and a proposal with a density."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ppvae.inference.codes import drawn_codes, is_deterministic
from ppvae.inference.importance import Evidence, importance, own_generators
from ppvae.inference.laplace import laplace_sampling
from ppvae.models import priors

ROWS = 10_000  # draws that an ex-post prior is fitted to, at least
COMPONENTS = 10  # of the density of a deterministic story's codes: Ghosh et al. 2020


def settle(story: Any, data: tuple[Tensor, ...]) -> None:
    """Once a story is fitted, give a prior that is ex post its codes: draws from the guide, not only their means."""
    prior = getattr(story, "prior", None)
    inside = any(isinstance(part, priors.ExPost) for part in getattr(prior, "children", list)())
    if inside:
        raise ValueError(
            f"an ex-post prior cannot stand inside a {type(prior).__name__}: there are no codes of its own"
        )
    if isinstance(prior, priors.ExPost):
        draws = 1 if is_deterministic(story, data) else max(1, ROWS // len(data[0]))
        with own_generators():
            torch.manual_seed(0)
            story.prior = priors.ex_post(drawn_codes(story, data, draws, _site(story)), len(prior.weights))


def give_density(story: Any, data: tuple[Tensor, ...]) -> bool:
    """Put a mixture of Gaussians, fitted to the codes of `data`, in place of the prior of a deterministic story.

    It can then be sampled, and has evidence. There are 10 components, fewer where there are not five different codes
    for each of their dimensions. Ghosh et al. 2020, https://arxiv.org/abs/1903.12436

    Returns:
        Whether it did: not where the guide has a density, the prior is such a mixture already, or depends on labels.
    """
    bare = hasattr(story, "prior") and not isinstance(story.prior, priors.ExPost) and not getattr(story, "given", False)
    if bare and is_deterministic(story, data):
        z = drawn_codes(story, data, site=_site(story))
        enough = len(torch.unique(z, dim=0)) // (5 * z.shape[-1])
        story.prior = priors.ex_post(z, max(1, min(COMPONENTS, enough)))
        return True
    return False


def score(story: Any, data: tuple[Tensor, ...], particles: int, seed: int = 0, progress: bool = True) -> Evidence:
    """log p(x) from the guide, or from a widened point mass at its mean for a datum of which it is a bad proposal.

    It is a bad one where k-hat is above 0.5: its weights have no variance there. Of the two estimates of such a datum
    the one with the smaller k-hat is taken: never the figure decides, nor do other data. The ELBO beside it is the
    guide's; a point mass has none.

    Raises:
        NoDensity: an improper prior.
    """
    if is_deterministic(story, data):
        found = laplace_sampling(story, data, particles, seed, progress)
        nothing = torch.full_like(found.elbo, torch.nan)
        return replace(found, elbo=nothing, elbo_standard_error=nothing)
    by_guide = importance(story, data, particles, seed, progress)
    bad = ~(by_guide.pareto_k <= 0.5)
    if particles < 25 or not bad.any():
        return by_guide
    try:
        widened = laplace_sampling(story, tuple(part[bad.to(part.device)] for part in data), particles, seed, progress)
    except (ValueError, NotImplementedError, RuntimeError):  # no vector of real numbers, no mean, no second derivative
        return by_guide
    better = bad.clone()
    better[bad] = widened.pareto_k < by_guide.pareto_k[bad]
    taken = better[bad]
    parts = {}
    for name in ("estimate", "standard_error", "ess", "pareto_k"):
        parts[name] = getattr(by_guide, name).clone()
        parts[name][better] = getattr(widened, name)[taken]
    count = int(better.sum())
    method = f"{by_guide.method}, for {count} of {len(bad)} data from a widened point mass at its mean"
    return replace(by_guide, method=method if count else by_guide.method, **parts)


def _site(story: Any) -> str:
    return getattr(story, "prior_site", "z")
