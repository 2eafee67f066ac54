"""Proposals made of a guide: stretched about its mean, or mixed with the prior."""

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.distributions.transforms import AffineTransform
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ppvae.base import Batch, Distribution, Story
from ppvae.inference.program.traces import (
    as_batch,
    check_measures,
    check_one_plate,
    is_auxiliary,
    is_point_mass,
    latent_sites,
    run,
    sample_sites,
    support_of,
)
from ppvae.inference.program.weights import draw, joint_trace, log_weights, sum_sites


class _Widening(Messenger):
    """Every latent of a guide over unbounded reals is drawn from a wider distribution."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor
        self.widened = False

    def _pyro_sample(self, msg: Any) -> None:
        free = not (msg["is_observed"] or site_is_subsample(msg) or msg["infer"].get("_deterministic"))
        if free and not is_point_mass(msg["fn"]) and support_of(msg["fn"]) is constraints.real:
            msg["fn"] = widen(msg["fn"], self.factor)
            self.widened = True


def widen(fn: Distribution, factor: float) -> Distribution:
    """The distribution of m + s (z - m), for z from `fn` and m its mean.

    >>> widen(pyro.distributions.Normal(torch.ones(2), 0.5).to_event(1), 3.0).log_prob(torch.ones(2)).exp()
    tensor(0.0707)
    """
    mean = fn.mean
    if mean.isnan().any():
        raise ValueError(f"widening needs a guide that has a mean, which {type(fn).__name__} has not")
    stretch = AffineTransform((1 - factor) * mean, factor, event_dim=fn.event_dim)
    return dist.TransformedDistribution(fn, [stretch])


def widened_log_weights(story: Story, data: Batch, particles: int = 1, widening: float = 1.3) -> Tensor:
    """log p(x, z) - log q(z), `(particles, batch)` nats, with z from the guide `widening` times as wide as it is.

    Latents whose support is not all of the reals are drawn as they are.

    Raises:
        ValueError: a guide none of whose latents can be widened.
    """
    wider = _Widening(widening)
    log_w = log_weights(_GuideWithin(story, wider), data, particles=particles)
    if not wider.widened:
        raise ValueError(
            "widening needs a latent over unbounded reals, and this guide draws none: leave it out, or ask for a "
            "defensive share of draws from the prior"
        )
    return log_w


class _GuideWithin:
    """A story whose guide runs within a handler."""

    def __init__(self, story: Story, handler: Messenger):
        self.model = story.model
        self.guide = handler(story.guide)


def defensive_log_weights(story: Story, data: Batch, particles: int = 1, share: float = 0.1) -> Tensor:
    """log p(x, z) - log((1 - a) q(z | x) + a p(z)), `(particles, batch)` nats, with z from that mixture."""
    batch = as_batch(data)
    rows = len(batch[0])
    prior = {site["name"]: site for site in latent_sites(run(story.model, batch, particles))}
    drawn = draw(story, batch, particles)
    if any(is_auxiliary(site) for site in latent_sites(drawn.trace)):
        raise ValueError("a defensive share needs latents with a density of their own, not auxiliary ones")
    chosen = torch.rand(particles, rows, device=batch[0].device) < share
    latents = {
        name: torch.where(_over_events(chosen, prior[name]), prior[name]["value"], value) if name in prior else value
        for name, value in drawn.latents.items()
    }
    model = joint_trace(story, batch, latents, particles)
    check_one_plate(drawn.trace, model)
    check_measures(drawn.trace, model)
    log_p = sum_sites(sample_sites(model), particles, rows)
    log_prior = sum_sites((site for site in sample_sites(model) if site["name"] in latents), particles, rows)
    log_q = guide_log_density(story, batch, latents, particles)
    return log_p - torch.logaddexp(log_q + math.log1p(-share), log_prior + math.log(share))


def guide_log_density(story: Story, batch: tuple[Tensor, ...], latents: dict[str, Tensor], particles: int) -> Tensor:
    """log q(z | x), `(particles, batch)` nats, at given values of the latent sites."""
    trace = run(poutine.condition(story.guide, data=latents), batch, particles)
    return sum_sites((site for site in sample_sites(trace) if site["name"] in latents), particles, len(batch[0]))


def _over_events(chosen: Tensor, site: Any) -> Tensor:
    return chosen.reshape(*chosen.shape, *[1] * site["fn"].event_dim)
