"""The Laplace approximation at every datum's code, and importance sampling from it: a point mass, widened."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from pyro.distributions import constraints
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import MultivariateNormal

from ppvae.base import Batch, Story
from ppvae.inference.blocks import Budget, estimate
from ppvae.inference.checks import check_data, check_proper, hot_loop, observed, of_factors
from ppvae.inference.codes import at_codes, at_means, code_sites
from ppvae.inference.evidence import Evidence
from ppvae.inference.programs import (
    Site,
    as_seen,
    evaluating,
    is_auxiliary,
    is_point_mass,
    latent_sites,
    log_density,
    placed,
    support_of,
)
from ppvae.inference.streams import own_generators
from ppvae.inference.weights import joint_trace, log_joint
from ppvae.progress import track

ROWS = 512
"""Data whose modes are searched for at once. It bounds the memory."""


class Laplace(NamedTuple):
    """N(loc, L L') for every datum: a mode of p(z | x), and the inverse curvature of log p(x, z) there."""

    loc: Tensor  # (batch, latent), laid out as `codes` are
    scale_tril: Tensor  # L: (batch, latent, latent)


def laplace(story: Story, data: Batch, steps: int = 8, progress: bool = True) -> Laplace:
    """The mode of p(z | x) that lies uphill of the guide's mean, and the Normal of the same curvature there.

    log p(x, z) = log p(x, m) - 1/2 (z - m)' H (z - m) + ..., so that p(z | x) is about N(m, H^-1). From the code m is
    searched for by Newton's method, on the absolute curvature, which no saddle attracts (Dauphin et al. 2014,
    https://arxiv.org/abs/1406.2572); a step is shortened until it goes uphill. MacKay 2003, chapter 27,
    https://www.inference.org.uk/mackay/itila/

    Args:
        story: any object with `model` and `guide` whose code is real numbers, unbounded.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        steps: of Newton's method, at most.
        progress: whether to show a bar.

    Raises:
        ValueError: a code that is not of unbounded real numbers; no finite density, or curvature, at a code; a program
            that cannot be differentiated twice in z.
    """
    if steps < 0:
        raise ValueError(f"steps should not be negative, got {steps}")
    batch = as_seen(story, placed(story, data))
    check_code(story, tuple(part[:1] for part in batch))
    plain = torch.backends.cudnn.flags(enabled=False)  # which has no second derivative of a recurrent network
    chunks = list(zip(*(part.split(ROWS) for part in batch), strict=True))
    with evaluating(story), own_generators(), hot_loop(), plain:
        try:
            found = [_of_rows(story, parts, steps) for parts in track(chunks, "modes of p(z | x)", show=progress)]
        except RuntimeError as error:
            said = " ".join(str(error).split())
            raise ValueError(f"log p(x, z) should have two derivatives in z, but: {said}") from error
    return Laplace(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def laplace_sampling(
    story: Story,
    data: Batch,
    particles: int = 1000,
    seed: int = 0,
    progress: bool = True,
    widening: float = 1.3,
    steps: int = 8,
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
        steps: of the search for the mode, at most.

    Raises:
        ValueError: as `laplace` and `importance` do; widening that is not positive.
        NoDensity: an improper prior.
    """
    if widening <= 0:
        raise ValueError(f"widening should be positive, got {widening}")
    batch = placed(story, data)
    with own_generators():
        check_data(story, batch)
        check_proper(story, as_seen(story, tuple(part[:1] for part in batch)))
    found = laplace(story, batch, steps, progress)
    proposals = (found.loc, widening * found.scale_tril)
    method = "importance sampling from a widened point mass, the Laplace approximation"
    evidence = estimate(story, batch, _weigh, Budget(particles), seed, progress, method, proposals)
    with torch.no_grad():
        held = held_sites(at_means(story, as_seen(story, tuple(part[:1] for part in batch))))
    return replace(evidence, held=", ".join(site["name"] for site in held))


def laplace_evidence(story: Story, data: Batch, steps: int = 8, progress: bool = True) -> Evidence:
    """log p(x) by Laplace's approximation: log p(x, m) + d/2 log 2 pi + log det L, with N(m, L L') of `laplace`.

    Exact where p(z | x) is Gaussian; elsewhere nothing says how far off it is, or in which direction, so it is labelled
    an approximation and never ranked as an estimate: `laplace_sampling` draws from the same Normal and has errors.
    MacKay 2003, chapter 27, https://www.inference.org.uk/mackay/itila/

    Arguments and errors are those of `laplace`.
    """
    batch = placed(story, data)
    with own_generators():
        check_data(story, batch)
        measure, factors = observed(story, as_seen(story, tuple(part[:1] for part in batch)))
    loc, scale_tril = laplace(story, batch, steps, progress)
    with torch.no_grad(), evaluating(story), own_generators():
        seen = as_seen(story, batch)
        trace = at_means(story, seen)
        joint = log_joint(story, seen, at_codes(trace, loc.unsqueeze(0)), particles=1)[0].double()
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


def _weigh(story: Story, datum: Batch, particles: int, loc: Tensor, scale_tril: Tensor) -> Tensor:
    q = MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)
    z = q.sample((particles,))  # (particles, 1, latent)
    guide = at_means(story, tuple(datum))
    latents = {name: value.expand(particles, *value.shape[1:]) for name, value in at_codes(guide, z).items()}
    held = sum(log_density(site, 1, 1) for site in held_sites(guide))  # a discrete site that stays where it is
    return log_joint(story, datum, latents, particles) - q.log_prob(z) - held


def held_sites(guide: Trace) -> list[Site]:
    """Latents that are no code."""
    codes = {site["name"] for site in code_sites(guide)}
    return [site for site in latent_sites(guide) if site["name"] not in codes]


def _of_rows(story: Story, batch: tuple[Tensor, ...], steps: int) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        trace = at_means(story, batch)
        start = torch.cat([site["value"].reshape(1, len(batch[0]), -1) for site in code_sites(trace)], dim=-1)[0]

    def log_p(z: Tensor) -> Tensor:
        return log_joint(story, batch, at_codes(trace, z.unsqueeze(0)), particles=1)[0]

    z = climb(log_p, start, steps)  # (batch, latent)
    return z, triangle(curvature(log_p, z)[1])


def triangle(root: Tensor) -> Tensor:
    """The lower triangle L with L L' = root root' and a positive diagonal."""
    lower = torch.linalg.qr(root.mT).R.mT
    return lower * lower.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)


def climb(log_p: Callable[[Tensor], Tensor], z: Tensor, steps: int) -> Tensor:
    """Newton steps uphill from z, `(batch, latent)`, each datum by itself; log_p is `(batch, latent)` to `(batch,)`."""
    best = log_p(z).detach()
    for _ in range(steps):
        gradient, root = curvature(log_p, z)
        step = (root @ (root.mT @ gradient.unsqueeze(-1))).squeeze(-1)
        climbed = torch.zeros_like(best, dtype=torch.bool)
        for shorter in (1.0, 0.5, 0.2, 0.05):
            tried = z + shorter * step
            with torch.no_grad():
                value = log_p(tried)
            better = (value > best) & ~climbed
            z, best = torch.where(better.unsqueeze(-1), tried, z), torch.where(better, value, best)
            climbed |= better
        if not climbed.any():
            break
    return z


def curvature(log_p: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of log_p at z, `(batch, latent)`, and R with R R' = |H|^-1, `(batch, latent, latent)`.

    |H| has the Hessian's eigenvectors and the absolute values of its eigenvalues, on a scale on which no dimension is
    curved more than another: codes may differ in size by many orders. There an eigenvalue is at least a millionth of
    the largest: a flat direction has a wide proposal, not an infinite one.
    """
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(log_p(z).sum(), z, create_graph=True)
        rows = [_derivative(column.sum(), z) for column in gradient.unbind(-1)]
    hessian, gradient = torch.stack(rows, dim=-2), gradient.detach()
    lost = ~(hessian.isfinite().all(-1).all(-1) & gradient.isfinite().all(-1))
    if lost.any():
        raise ValueError(
            f"log p(x, z) should be finite and smooth at a code; it is not for {int(lost.sum())} of the data"
        )
    length = hessian.norm(dim=-1)
    scale = torch.where(length > 0, length, 1).rsqrt()  # (batch, latent)
    values, axes = torch.linalg.eigh(scale.unsqueeze(-1) * (hessian + hessian.mT) / 2 * scale.unsqueeze(-2))
    values = values.abs()
    values = values.clamp_min(1e-6 * values.amax(-1, keepdim=True)).clamp_min(torch.finfo(z.dtype).tiny)
    return gradient, scale.unsqueeze(-1) * axes * values.rsqrt().unsqueeze(-2)


def _derivative(value: Tensor, z: Tensor) -> Tensor:
    if not value.requires_grad:  # log_p is linear in z
        return torch.zeros_like(z)
    (gradient,) = torch.autograd.grad(value, z, retain_graph=True, allow_unused=True, materialize_grads=True)
    return gradient


def check_code(story: Story, datum: tuple[Tensor, ...]) -> None:
    """Refuse a code that has no room around it: names, places on a sphere, shares that sum to one."""
    with torch.no_grad(), own_generators(), hot_loop():
        guide = at_means(story, datum)
        sites = list(latent_sites(guide))
        if any(is_auxiliary(site) for site in sites):
            raise ValueError("the Laplace approximation needs latents with a density of their own, not auxiliary ones")
        with evaluating(story):
            model = joint_trace(story, datum, {site["name"]: site["value"] for site in sites}, particles=1)
    codes = [site["name"] for site in code_sites(guide)]
    if not codes:
        raise ValueError("the Laplace approximation needs a code, and this story has none")
    for site in sites:
        name, support = site["name"], support_of(model.nodes[site["name"]]["fn"])
        if name not in codes and not is_point_mass(site["fn"]):
            raise ValueError(f"latent site '{name}' is no code: the Laplace approximation needs a point mass for it")
        if name in codes and support not in (None, constraints.real):
            raise ValueError(
                f"the Laplace approximation needs a code of unbounded real numbers; latent site '{name}' has the "
                f"support {support}: use importance, with a guide for it"
            )
