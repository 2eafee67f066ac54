"""Evidence from the Laplace approximation at every datum's code: by sampling from it, widened, or by its formula."""

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from ppvae.base import Batch, Story
from ppvae.inference.evidence.blocks import Budget, estimate
from ppvae.inference.evidence.evidence import Evidence
from ppvae.inference.posteriors.laplace import held_sites, laplace
from ppvae.inference.program.checks import check_proper, observed, of_factors
from ppvae.inference.program.codes import at_codes, at_means
from ppvae.inference.program.prepared import prepared
from ppvae.inference.program.streams import own_generators
from ppvae.inference.program.traces import evaluating, log_density
from ppvae.inference.program.weights import log_joint


def laplace_sampling(
    story: Story,
    data: Batch,
    *,
    particles: int = 1000,
    seed: int = 0,
    progress: bool = True,
    widening: float = 1.3,
    newton_steps: int = 8,
) -> Evidence:
    """log p(x) by importance sampling from the Laplace approximation, widened: log 1/K sum_k p(x, z_k) / q(z_k).

    It needs no guide with a density: that of a deterministic autoencoder says where to begin, and q is
    N(m, widening^2 H^-1) at the mode uphill of it. Wider than the posterior is the safe side: the weights of a proposal
    with too short tails have no variance. The ELBO beside it is that of q. A discrete site that is no code (a tree)
    stays what the guide says; the part of p(x) that its other values have is left out then: `Evidence.held` names it,
    and no diagnostic of the weights can see it.

    Arguments, streams and errors are those of `importance`; a mode is found to the last digits of the arithmetic, which
    may depend on the other data it is searched with.

    Args:
        widening: of the standard deviations of the approximation.
        newton_steps: of the search for the mode, at most.

    Raises:
        ValueError: as `laplace` and `importance` do; widening that is not positive.
        NoDensity: an improper prior.
    """
    if widening <= 0:
        raise ValueError(f"widening should be positive, got {widening}")
    task = prepared(story, data)
    check_proper(story, task.first)
    found = laplace(story, task, newton_steps=newton_steps, progress=progress)
    proposals = (found.loc, widening * found.scale_tril)
    method = "importance sampling from a widened point mass, the Laplace approximation"
    evidence = estimate(task, _weigh, Budget(particles), seed, progress, method, proposals)
    with torch.no_grad():
        held = held_sites(at_means(story, task.first))
    return replace(evidence, held=", ".join(site["name"] for site in held))


def laplace_evidence(story: Story, data: Batch, *, newton_steps: int = 8, progress: bool = True) -> Evidence:
    """log p(x) by Laplace's approximation: log p(x, m) + d/2 log 2 pi + log det L, with N(m, L L') of `laplace`.

    Exact where p(z | x) is Gaussian; elsewhere nothing says how far off it is, or in which direction, so it is labelled
    an approximation and never ranked as an estimate: `laplace_sampling` draws from the same Normal and has errors.
    MacKay 2003, chapter 27, https://www.inference.org.uk/mackay/itila/

    Arguments and errors are those of `laplace`.
    """
    task = prepared(story, data)
    measure, factors = observed(story, task.first)
    found = laplace(story, task, newton_steps=newton_steps, progress=progress)
    loc, scale_tril = found.loc, found.scale_tril
    with torch.no_grad(), evaluating(story), own_generators():
        trace = at_means(story, task.batch)
        joint = log_joint(story, task.batch, at_codes(trace, loc.unsqueeze(0)), particles=1)[0].double()
        held = held_sites(trace)
        joint = joint - sum(log_density(site, 1, len(loc))[0] for site in held)
    volume = scale_tril.diagonal(dim1=-2, dim2=-1).double().log().sum(-1)
    estimate = joint + loc.shape[-1] / 2 * math.log(2 * math.pi) + volume
    nothing = torch.full_like(estimate, torch.nan)
    return Evidence(
        estimate=estimate,
        standard_error=nothing,
        ess=nothing,
        pareto_k=nothing,
        elbo=nothing,
        elbo_standard_error=nothing,
        particles=torch.zeros_like(estimate, dtype=torch.long),
        bound="approximation",
        method="Laplace's approximation" + of_factors(factors),
        measure=measure,
        held=", ".join(site["name"] for site in held),
    )


def _weigh(story: Story, datum: Batch, loc: Tensor, scale_tril: Tensor, *, particles: int) -> Tensor:
    q = MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)
    z = q.sample((particles,))  # (particles, 1, latent)
    guide = at_means(story, tuple(datum))
    latents = {name: value.expand(particles, *value.shape[1:]) for name, value in at_codes(guide, z).items()}
    held = sum(log_density(site, 1, 1) for site in held_sites(guide))  # a discrete site that stays where it is
    return log_joint(story, datum, latents, particles=particles) - q.log_prob(z) - held
