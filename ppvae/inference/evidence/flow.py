"""Importance sampling from a flow fitted to every datum, beside a wider Normal and the guide."""

import math
from functools import partial

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from ppvae.base import Batch, Story
from ppvae.inference.evidence.blocks import Budget, check_budget, estimate
from ppvae.inference.evidence.evidence import Evidence
from ppvae.inference.posteriors.local import LocalNormal, fit_normals
from ppvae.inference.posteriors.local_flow import LocalFlow, fit_flows
from ppvae.inference.program.checks import check_proper
from ppvae.inference.program.prepared import Prepared, prepared
from ppvae.inference.program.unconstrained import (
    Unconstrained,
    check_guide_density,
    guide_densities,
    model_densities,
    unconstrain,
)
from ppvae.inference.program.weights import draw

WIDENING = 1.2  # of the Normal beside the flow in `flow_sampling`


def flow_sampling(
    story: Story,
    data: Batch,
    *,
    particles: int = 1000,
    seed: int = 0,
    progress: bool = True,
    num_steps: int = 600,
    target_error: float | None = None,
    max_particles: int = 1_000_000,
) -> Evidence:
    """log p(x) by importance sampling from a flow fitted to every datum, a wider Normal, and the guide, in equal parts.

    q = 1/3 (flow + Normal + guide): no weight is more than three times as heavy as under any of the three, so that a
    tail which the flow cuts off, or a mode which the guide alone knows of, is still counted. A guide without a density
    leaves the other two. Owen & Zhou 2000, https://doi.org/10.1080/01621459.2000.10473909

    A stochastic lower bound; the ELBO beside it is that of the mixture. Arguments, streams and errors are those of
    `importance` and `fit_flows`.
    """
    budget = check_budget(Budget(particles, target_error, max_particles))
    task = prepared(story, data)
    check_proper(story, task.first)
    start = fit_normals(story, task, seed=seed, progress=progress)
    flow = fit_flows(story, task, num_steps=num_steps, seed=seed, progress=progress, start=start)
    return mixture_sampling(task, flow, start, budget, seed, progress)


def mixture_sampling(
    task: Prepared,
    flow: LocalFlow,
    normal: LocalNormal,
    budget: Budget,
    seed: int,
    progress: bool,
) -> Evidence:
    """What `flow_sampling` does, with flows and Normals that are there already."""
    flat = unconstrain(task.story, task.first, "local inference")
    guided = has_density(task)
    method = "importance sampling from a flow and a Normal fitted to every datum" + (" and the guide" * guided)
    weigh = partial(_weigh_mixture, flat=flat, guided=guided)
    return estimate(task, weigh, budget, seed, progress, method, (*normal, *flow))


def has_density(task: Prepared) -> bool:
    """Whether the guide has a density of the model's latents."""
    try:
        check_guide_density(task.story, task.first)
    except ValueError:
        return False
    return True


def _weigh_mixture(
    story: Story, datum: Batch, *proposal: Tensor, particles: int, flat: Unconstrained, guided: bool
) -> Tensor:
    batch, (loc, scale_tril) = tuple(datum), proposal[:2]
    flow = LocalFlow(*proposal[2:])
    normal = MultivariateNormal(loc, scale_tril=WIDENING * scale_tril, validate_args=False)
    drawn = [flow.rsample(torch.randn(particles, *loc.shape).to(loc))[0], normal.sample((particles,))]
    if guided:
        drawn.append(flat.vector(draw(story, batch, particles).latents))
    chosen = torch.randint(len(drawn), (particles,))
    u = torch.stack(drawn)[chosen, torch.arange(particles)]  # (particles, 1, size)
    log_q = [flow.log_prob(u), normal.log_prob(u)]
    if guided:
        log_p, log_guide = guide_densities(story, batch, flat)(u)
        log_q.append(log_guide)
    else:
        log_p = model_densities(story, batch, flat)(u)[0]
    return log_p - torch.stack(log_q).logsumexp(0) + math.log(len(log_q))
