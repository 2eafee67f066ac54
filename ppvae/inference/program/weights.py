"""Log-weights, log p(x, z) - log q(z | x) per particle and datum, and the reductions that every figure is made of."""

import math
from typing import Any, NamedTuple

import torch
from pyro import poutine
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.program.traces import (
    as_batch,
    check_measures,
    check_one_plate,
    is_auxiliary,
    is_point_mass,
    latent_sites,
    log_density,
    run,
    sample_sites,
)


class Draws(NamedTuple):
    """Draws from a guide, and what a log-weight needs of them."""

    latents: dict[str, Tensor]  # name: (particles, batch, ...)
    log_q: Tensor  # (particles, batch), nats
    log_score: Tensor | None  # the part of log_q whose sites pass no gradient through their draws, or None
    factors: Tensor  # (particles, batch): the guide's factors, which log_q holds for an objective alone
    trace: poutine.Trace


def draw(story: Story, data: Batch, particles: int = 1, scaled: bool = False) -> Draws:
    """Draw every latent site from the guide, `particles` times per datum.

    A site that Pyro knows as auxiliary (an autoguide's, of which the model's latents are functions) counts in the
    density alone. With `scaled`, for an objective, `poutine.scale` is applied and the guide's factors are counted.
    """
    batch = as_batch(data)
    trace = run(story.guide, batch, particles)
    sites = list(sample_sites(trace) if scaled else latent_sites(trace))
    _check_auxiliary(sites)
    terms = {site["name"]: log_density(site, particles, len(batch[0]), scaled) for site in sites}
    scores = [terms[site["name"]] for site in sites if not (site["fn"].has_rsample or site["is_observed"])]
    latents = {site["name"]: site["value"] for site in latent_sites(trace) if not is_auxiliary(site)}
    nothing = batch[0].new_zeros(particles, len(batch[0]))
    log_q = torch.stack(list(terms.values())).sum(0) if terms else nothing
    given = [log_density(site, particles, len(batch[0]), scaled) for site in sample_sites(trace) if site["is_observed"]]
    factors = torch.stack(given).sum(0) if given else nothing
    return Draws(latents, log_q, torch.stack(scores).sum(0) if scores else None, factors, trace)


def _check_auxiliary(sites: list[Any]) -> None:
    """An auxiliary draw has the density of the latents that are functions of it, and of nothing else."""
    auxiliary = sum(site["value"].numel() for site in sites if is_auxiliary(site))
    points = sum(site["value"].numel() for site in sites if is_point_mass(site["fn"]))
    if auxiliary and auxiliary != points:
        names = ", ".join(site["name"] for site in sites if is_auxiliary(site))
        raise ValueError(
            f"a guide's auxiliary site should be what its point masses are one-to-one functions of; {names} is not, so "
            "the guide has no density"
        )


def log_joint(story: Story, data: Batch, latents: dict[str, Tensor], *, particles: int | None = None) -> Tensor:
    """log p(x, z), `(particles, batch)` nats, at given values of the latent sites.

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        latents: for every latent site of the model its value, `(particles, batch, ...)`.
        particles: how many; the first value's leading size where it is not given.

    Raises:
        ValueError: when a latent site has no value, or a site lies outside the data plate.
    """
    batch = as_batch(data)
    if particles is None:
        particles = next(iter(latents.values())).shape[0] if latents else 1
    return sum_sites(sample_sites(joint_trace(story, batch, latents, particles)), particles, len(batch[0]))


@torch.no_grad()
def latent_densities(story: Story, data: Batch) -> tuple[Tensor, Tensor]:
    """log q(z_n | x_m), `(n, m)`, and log p(z_n), `(n,)`, nats, of one draw z_n from the guide of every datum.

    What measures of the aggregate posterior 1/N sum_m q(z | x_m) are made of. Draws come from torch's global generator.
    """
    batch = as_batch(data)
    rows = len(batch[0])
    drawn = draw(story, batch).latents
    pairs = {name: value.transpose(0, 1).expand(rows, rows, *value.shape[2:]) for name, value in drawn.items()}
    guide = run(poutine.condition(story.guide, data=pairs), batch, rows)
    log_q = sum_sites((site for site in sample_sites(guide) if site["name"] in pairs), rows, rows)
    model = joint_trace(story, batch, drawn, particles=1)
    log_p = sum_sites((site for site in sample_sites(model) if site["name"] in pairs), 1, rows)
    return log_q, log_p[0]


def joint_trace(story: Story, batch: tuple[Tensor, ...], latents: dict[str, Tensor], particles: int) -> poutine.Trace:
    """The model run at given values of all its latent sites, and of nothing else."""
    trace = run(poutine.condition(story.model, data=latents), batch, particles)
    unmatched = [site["name"] for site in latent_sites(trace)]
    if unmatched:
        raise ValueError(f"the guide should draw every latent site of the model; it lacks {', '.join(unmatched)}")
    unknown = latents.keys() - {site["name"] for site in sample_sites(trace)}
    if unknown:
        raise ValueError(f"the guide should draw the model's latent sites only; it draws {', '.join(sorted(unknown))}")
    for site in sample_sites(trace):  # a value of another size would broadcast, and count its density several times
        event = tuple(site["fn"].event_shape)
        drawn = tuple(site["value"].shape[site["value"].dim() - len(event) :])
        if drawn != event:
            source = "the guide draws" if site["name"] in latents else "it observes"
            raise ValueError(f"site '{site['name']}' has event_shape {event} in the model, and {source} {drawn}")
    return trace


def sum_sites(sites: Any, particles: int, batch: int, scaled: bool = False) -> Tensor:
    """The log-densities of several sites added up: `(particles, batch)` nats."""
    return torch.stack([log_density(site, particles, batch, scaled) for site in sites]).sum(0)


def weigh(story: Story, data: Batch, particles: int, scaled: bool = False) -> tuple[Tensor, Tensor | None, Tensor]:
    """Log-weights `(particles, batch)`, the score-function part of log q, or None, and the guide's factors."""
    batch = as_batch(data)
    draws = draw(story, batch, particles, scaled)
    trace = joint_trace(story, batch, draws.latents, particles)
    check_one_plate(draws.trace, trace)
    check_measures(draws.trace, trace)
    return (
        sum_sites(sample_sites(trace), particles, len(batch[0]), scaled) - draws.log_q,
        draws.log_score,
        draws.factors,
    )


def log_weights(story: Story, data: Batch, *, particles: int = 1) -> Tensor:
    """log w = log p(x, z) - log q(z | x) with z drawn from the guide: `(particles, batch)`, nats.

    Everything else is a reduction of these: their mean over particles is the ELBO, their log-mean-exp the importance
    weighted bound and the estimate of log p(x). Differentiable, wherever the guide's draws are. `poutine.scale`,
    subsampling scales and factors in the guide are left out: they belong to an objective. The story runs in the mode
    that it is in; `fit` leaves it in evaluation mode.

    Args:
        story: any object with `model` and `guide` that keeps its data plate at dim -1.
        data: `(batch, features)`, or a tuple of tensors of equal length for `model(*data)`.
        particles: draws per datum.

    Raises:
        ValueError: particles below 1; tensors of unequal length; a site outside the data plate; a plate of which only
            a part is taken; a latent site of the model that the guide does not draw, or one more.
    """
    return weigh(story, data, particles)[0]


def log_mean_exp(log_w: Tensor) -> Tensor:
    """log 1/K sum_k w_k over the first dimension: `(particles, batch)` to `(batch)`, nats."""
    return torch.logsumexp(log_w, dim=0) - math.log(len(log_w))


def effective_sample_size(log_w: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2, from 1 to the number of particles: `(particles, batch)` to `(batch)`. Kong 1992."""
    return torch.exp(2 * torch.logsumexp(log_w, dim=0) - torch.logsumexp(2 * log_w, dim=0))


def standard_error(log_w: Tensor) -> Tensor:
    """Monte Carlo standard error of `log_mean_exp`, by the delta method: `(particles, batch)` to `(batch)`, nats.

    se = sd(w) / (sqrt(K) mean(w)) = sqrt((K / ESS - 1) / (K - 1)). One particle says nothing of its error: infinite.
    """
    return delta_method(len(log_w), effective_sample_size(log_w))


def delta_method(particles: int, ess: Tensor) -> Tensor:
    """The standard error of `log_mean_exp` by its effective sample size, nats."""
    if particles == 1:
        return torch.full_like(ess, torch.inf)
    excess = (particles / ess - 1).clamp_min(0)  # below 0 only by rounding
    return torch.sqrt(excess / (particles - 1))
