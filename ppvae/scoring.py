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
PILOT = 200  # draws per datum by which its proposal is chosen
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

    It is a bad one where k-hat is above 0.5: its weights have no variance there. For such a datum the proposal with the
    smaller k-hat is taken. Both are told by draws of a pilot's own: a k-hat goes with the figure of the same draws, and
    to choose by it would bias the figures that are left. No datum's choice depends on others. The ELBO beside it is the
    guide's; a point mass has none.

    Raises:
        NoDensity: an improper prior.
    """
    if is_deterministic(story, data):
        found = laplace_sampling(story, data, particles, seed, progress)
        nothing = torch.full_like(found.elbo, torch.nan)
        return replace(found, elbo=nothing, elbo_standard_error=nothing)
    by_guide = importance(story, data, particles, seed, progress)
    if particles < 25:
        return by_guide
    taken = _better_widened(story, data, seed + 1, progress)
    count = int(taken.sum())
    if count == 0:
        return by_guide
    widened = laplace_sampling(story, _rows(data, taken), particles, seed, progress)
    parts = {name: getattr(by_guide, name).clone() for name in ("estimate", "standard_error", "ess", "pareto_k")}
    for name, part in parts.items():
        part[taken] = getattr(widened, name)
    method = f"{by_guide.method}, for {count} of {len(taken)} data from a widened point mass at its mean"
    return replace(by_guide, method=method, **parts)


def _better_widened(story: Any, data: tuple[Tensor, ...], seed: int, progress: bool) -> Tensor:
    """For which data a pilot finds the guide a bad proposal, and a widened point mass a better one: `(data,)`."""
    by_guide = importance(story, data, PILOT, seed, progress)
    bad = ~(by_guide.pareto_k <= 0.5)
    if not bad.any():
        return bad
    try:
        widened = laplace_sampling(story, _rows(data, bad), PILOT, seed, progress)
    except (ValueError, NotImplementedError):  # no vector of real numbers, no second derivative, or no mean
        return torch.zeros_like(bad)
    better = bad.clone()
    better[bad] = widened.pareto_k < by_guide.pareto_k[bad]
    return better


def _rows(data: tuple[Tensor, ...], chosen: Tensor) -> tuple[Tensor, ...]:
    return tuple(part[chosen.to(part.device)] for part in data)


def _site(story: Any) -> str:
    return getattr(story, "prior_site", "z")
