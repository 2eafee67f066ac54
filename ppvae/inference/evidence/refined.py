"""Importance sampling from a Normal that is refined for every datum."""

import math
from functools import partial

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from ppvae.base import Batch, Story
from ppvae.inference.evidence.blocks import Budget, check_budget, estimate
from ppvae.inference.evidence.evidence import Evidence
from ppvae.inference.posteriors.local import Covariance, fit_normals
from ppvae.inference.program.checks import check_proper
from ppvae.inference.program.prepared import prepared
from ppvae.inference.program.streams import own_generators
from ppvae.inference.program.traces import evaluating
from ppvae.inference.program.unconstrained import (
    Unconstrained,
    check_guide_density,
    guide_densities,
    model_densities,
    unconstrain,
)
from ppvae.inference.program.weights import draw


def refined_sampling(
    story: Story,
    data: Batch,
    *,
    particles: int = 1000,
    seed: int = 0,
    progress: bool = True,
    widening: float = 1.2,
    guide_share: float = 0.0,
    num_steps: int = 200,
    covariance: Covariance = "full",
    target_error: float | None = None,
    max_particles: int = 1_000_000,
) -> Evidence:
    """log p(x) by importance sampling from a Normal that is refined for every datum, then widened.

    The proposal is `fit_normals`, N(m, widening^2 L L'): wider is the safe side. With `guide_share` that share of the
    draws, a, is from the guide, q = (1 - a) N + a q(z | x): no weight is then more than 1 / a times as heavy as the
    guide's own, so that a mode which the guide knows of and the Normal does not is still counted. Owen & Zhou 2000,
    https://doi.org/10.1080/01621459.2000.10473909

    A stochastic lower bound; the ELBO beside it is that of the proposal. Arguments, streams and errors are those of
    `importance` and `fit_normals`.

    Raises:
        ValueError: as they do; widening that is not positive; a share of draws from a guide that has no density.
    """
    if not widening > 0:
        raise ValueError(f"widening should be positive, got {widening}")
    if not 0 <= guide_share < 1:
        raise ValueError(f"guide_share should be a share from 0 to below 1, got {guide_share}")
    budget = check_budget(Budget(particles, target_error, max_particles))
    task = prepared(story, data)
    check_proper(story, task.first)
    with own_generators(), evaluating(story), torch.no_grad():
        flat = unconstrain(story, task.first, "local inference")
        if guide_share:
            check_guide_density(story, task.first)
    found = fit_normals(story, task, num_steps=num_steps, covariance=covariance, seed=seed, progress=progress)
    proposals = (found.loc, widening * found.scale_tril)
    beside = f" and, for a share of {guide_share:g}, from the guide" if guide_share else ""
    method = f"importance sampling from a Normal refined for every datum{beside}"
    weigh = partial(_weigh, flat=flat, share=guide_share)
    return estimate(task, weigh, budget, seed, progress, method, proposals)


def _weigh(
    story: Story, datum: Batch, loc: Tensor, scale_tril: Tensor, *, particles: int, flat: Unconstrained, share: float
) -> Tensor:
    batch = tuple(datum)
    q = MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)
    u = q.sample((particles,))  # (particles, 1, size)
    if not share:
        return model_densities(story, batch, flat)(u)[0] - q.log_prob(u)
    by_guide = flat.vector(draw(story, batch, particles).latents)
    u = torch.where(torch.rand(particles, 1, 1, device=u.device) < share, by_guide, u)
    log_p, log_guide = guide_densities(story, batch, flat)(u)
    return log_p - torch.logaddexp(q.log_prob(u) + math.log1p(-share), log_guide + math.log(share))
