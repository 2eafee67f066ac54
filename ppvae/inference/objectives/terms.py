"""The terms of a log-weight kept apart, and the rules that objectives have in common."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from pyro import poutine
from torch import Tensor

from ppvae.base import Batch, Scalar, Story
from ppvae.inference.program.traces import Site, as_batch, check_measures, check_one_plate, latent_sites, sample_sites
from ppvae.inference.program.weights import draw, joint_trace, sum_sites


class Terms(NamedTuple):
    """log w = log p(x | z) + log p(z) - log q(z | x), each term `(particles, batch)` nats, and what goes with it."""

    log_likelihood: Tensor  # of what the model observes, factors included
    log_prior: Tensor
    log_q: Tensor
    log_score: Tensor | None  # the part of log_q whose sites pass no gradient through their draws, or None
    factors: Tensor  # the guide's
    guide: poutine.Trace
    model: poutine.Trace

    @property
    def log_joint(self) -> Tensor:
        return self.log_likelihood + self.log_prior

    @property
    def log_w(self) -> Tensor:
        return self.log_joint - self.log_q


def weigh_terms(story: Story, data: Batch, particles: int, scaled: bool = False) -> Terms:
    """`weigh`, with its terms apart."""
    batch = as_batch(data)
    draws = draw(story, batch, particles, scaled)
    model = joint_trace(story, batch, draws.latents, particles)
    check_one_plate(draws.trace, model)
    check_measures(draws.trace, model)
    shape = (particles, len(batch[0]))

    def total(sites: Iterable[Site]) -> Tensor:
        chosen = list(sites)
        return sum_sites(chosen, *shape, scaled) if chosen else batch[0].new_zeros(shape)

    return Terms(
        log_likelihood=total(site for site in sample_sites(model) if site["name"] not in draws.latents),
        log_prior=total(site for site in sample_sites(model) if site["name"] in draws.latents),
        log_q=draws.log_q - draws.factors if scaled else draws.log_q,  # scaled, it has the factors too
        log_score=draws.log_score,
        factors=draws.factors,
        guide=draws.trace,
        model=model,
    )


def with_score(bound: Tensor, log_score: Tensor | None) -> Tensor:
    """A bound, with the gradient bound * grad log q of draws that pass none: `log_score` holds all that it hangs on."""
    if log_score is None:
        return bound
    return bound + bound.detach() * (log_score - log_score.detach())


def check_reparameterised(guide: poutine.Trace) -> None:
    """Refuse a latent that passes no gradient, where the objective has no other way to its guide."""
    for site in latent_sites(guide):
        if not site["fn"].has_rsample:
            raise ValueError(
                "every latent site should pass a gradient through its draws here, which site "
                f"'{site['name']}' ({type(site['fn']).__name__}) does not: enumerated_elbo sums over its values, and "
                "vimco draws them"
            )


def at_least(smallest: int, **options: int) -> None:
    for option, value in options.items():
        if value < smallest:
            raise ValueError(f"{option} should be at least {smallest}, got {value}")


def not_negative(**options: Scalar) -> None:
    """A tensor, such as a warm-up's, is not read: that would stop a compiled step."""
    for option, value in options.items():
        if not isinstance(value, Tensor) and not 0 <= value < math.inf:
            raise ValueError(f"{option} should be finite and at least 0, got {value}")


def a_share(**options: float) -> None:
    for option, value in options.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{option} should be between 0 and 1, got {value}")
