"""What is read off a fitted story: codes, reconstructions, generated data."""

import math
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.program.streams import own_generators
from ppvae.inference.program.traces import (
    Site,
    evaluating,
    is_auxiliary,
    is_point_mass,
    latent_sites,
    log_density,
    placed,
    run,
    sample_sites,
)


class _AtMeans(Messenger):
    """Every latent site takes its mean instead of a draw."""

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and not site_is_subsample(msg) and not msg["infer"].get("_deterministic"):
            mean = msg["fn"].mean
            if mean.isnan().any():
                raise ValueError(f"latent site '{msg['name']}' has no mean ({type(msg['fn']).__name__}), so no code")
            msg["value"], msg["done"] = mean, True


@torch.no_grad()
def encode(story: Story, data: Batch) -> Tensor:
    """The guide's mean E_q[z | x] of every latent site, side by side: `(batch, latent)`.

    Raises:
        ValueError: a latent whose distribution has no mean.
    """
    trace = at_means(story, placed(story, data))
    return torch.cat([by_datum(site["fn"], site["value"]) for site in code_sites(trace)], dim=-1)


def code_sites(trace: poutine.Trace) -> list[Site]:
    """The latent sites that make up a code: not those that a guide marks `infer={"code": False}`, such as a tree."""
    return [site for site in latent_sites(trace) if site["infer"].get("code", True)]


@torch.no_grad()
def is_deterministic(story: Story, data: Batch) -> bool:
    """Whether the guide gives its code by point masses: there is one code for a datum, and no density of others."""
    batch = tuple(part[:1] for part in placed(story, data))
    unchecked = pyro.validation_enabled(False)  # a guide may be broken, and still be a point mass or not
    with unchecked, own_generators():
        trace = once(story, story.guide, batch)
    if any(is_auxiliary(site) for site in latent_sites(trace)):
        return False
    return bool(code_sites(trace)) and all(is_point_mass(site["fn"]) for site in code_sites(trace))


def at_means(story: Story, batch: tuple[Tensor, ...]) -> poutine.Trace:
    """The guide's trace with every latent at its mean."""
    with _AtMeans():
        return once(story, story.guide, batch)


def once(story: Story, program: Callable[..., Any], batch: tuple[Tensor, ...]) -> poutine.Trace:
    """A program's run with one particle for each datum, the story in evaluation mode."""
    with evaluating(story):
        return run(program, batch, particles=1)


@torch.no_grad()
def reconstruction_log_likelihood(story: Story, data: Batch) -> Tensor:
    """log p(x | z) at the guide's mean z, `(batch,)` nats."""
    batch = placed(story, data)
    trace = at_means(story, batch)
    model = once(story, poutine.replay(story.model, trace=trace), batch)
    observed = [log_density(site, 1, len(batch[0])) for site in sample_sites(model) if _is_data(site)]
    return torch.stack(observed).sum(0)[0]


@torch.no_grad()
def decode(story: Story, data: Batch, *, z: Tensor) -> Tensor:
    """E[x | z] at codes of one's own, `(batch, latent)` as `encode` lays them out, one a datum: `(batch, features)`.

    What of the data is not x (labels, a mask) is given; latents that are no code, such as a tree, are the guide's.
    """
    batch = placed(story, data)
    trace = at_means(story, batch)
    values = at_codes(trace, z.unsqueeze(0))
    return _observed_mean(once(story, poutine.condition(story.model, data=values), batch), batch)


def at_codes(trace: poutine.Trace, z: Tensor) -> dict[str, Tensor]:
    """Every latent site's value, once the codes `(particles, batch, latent)` are in their places.

    A value is `(plates within the data's, particles, batch, *event)`; `by_datum` says how its numbers are laid out.
    """
    sites = code_sites(trace)
    values = {site["name"]: site["value"] for site in latent_sites(trace)}
    plates = [values[site["name"]].shape[: -2 - site["fn"].event_dim] for site in sites]
    shapes = [(*inner, *site["fn"].event_shape) for inner, site in zip(plates, sites, strict=True)]
    parts = z.split([math.prod(shape) for shape in shapes], dim=-1)
    for site, inner, shape, part in zip(sites, plates, shapes, parts, strict=True):
        count = len(inner)
        laid_out = part.reshape(*part.shape[:-1], *shape)
        values[site["name"]] = laid_out.movedim(tuple(range(2, 2 + count)), tuple(range(count)))
    return values


@torch.no_grad()
def prior_variance(story: Story, data: Batch, draws: int = 2000) -> Tensor | None:
    """The variance of every latent under the model, in the order of `encode`, by draws: `(latent,)`; None if flat.

    It changes nothing of torch's global generator.
    """
    batch = placed(story, data)
    batch = tuple(part[:1].expand(draws, *part.shape[1:]) for part in batch)
    with own_generators():
        torch.manual_seed(0)
        order = [site["name"] for site in code_sites(once(story, story.guide, batch))]
        try:
            sites = {site["name"]: site for site in latent_sites(once(story, story.model, batch))}
        except NotImplementedError:  # an improper prior
            return None
    return torch.cat([by_datum(sites[name]["fn"], sites[name]["value"]).var(0) for name in order if name in sites])


@torch.no_grad()
def drawn_codes(story: Story, data: Batch, draws: int = 1, site: str | None = None) -> Tensor:
    """Draws from the guide q(z | x) of one latent site, or of all side by side: `(draws * batch, latent)`.

    Draws come from torch's global generator: seed it, or fork it, at the edge.
    """
    batch = tuple(part.repeat(draws, *[1] * (part.dim() - 1)) for part in placed(story, data))
    sites = code_sites(once(story, story.guide, batch))
    chosen = [found for found in sites if found["name"] == site] or sites
    return torch.cat([by_datum(found["fn"], found["value"]) for found in chosen], dim=-1)


@torch.no_grad()
def reconstruct(story: Story, data: Batch) -> Tensor:
    """E[x | z] at the guide's mean z, `(batch, features)`."""
    batch = placed(story, data)
    trace = at_means(story, batch)
    return _observed_mean(once(story, poutine.replay(story.model, trace=trace), batch), batch)


@torch.no_grad()
def sample(story: Story, like: Batch, *, means: bool = False, seed: int = 0) -> Tensor:
    """Draws x ~ p(x | z) with z from the prior, one for each row of `like`: `(batch, features)`.

    Args:
        like: rows like those to draw; their x does not matter, what else they hold (labels, a mask) is given.
        means: E[x | z] in place of the draws x.
        seed: of the draws; torch's global generators are left as they were.

    Raises:
        NotImplementedError: a prior that cannot be drawn from.
    """
    batch = placed(story, like)
    with evaluating(story), own_generators():
        torch.manual_seed(seed)
        trace = run(story.model, batch, particles=1)
        if means:
            return _observed_mean(trace, batch)
        return torch.cat([by_datum(site["fn"], site["fn"].sample()) for site in _data_sites(trace, batch)], dim=-1)


@torch.no_grad()
def simulate_jointly(story: Story, like: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Draws z ~ p(z), x ~ p(x | z): a batch like `like` with x in its place, and the latents, one particle each.

    So z is an exact draw from p(z | x). Draws come from torch's global generator: seed it, or fork it, at the edge.

    Raises:
        ValueError: a story that observes something that is not one tensor of the batch, as it is; a model in which x
            depends on x, as where a decoder is fed the values before: its draws are not from p(x).
    """
    batch = placed(story, like)
    trace = once(story, story.model, batch)
    drawn, left = list(batch), [site for site in sample_sites(trace) if _is_data(site)]
    for site in _data_sites(trace, batch):
        same = [place for place, part in enumerate(batch) if site["value"] is part]
        place = same[0] if same else 0  # x is seen through its mask
        x = site["fn"].sample().squeeze(0)
        if x.shape != batch[place].shape or (not same and len(left) > 1):
            raise ValueError(
                f"to simulate data, a story should observe one tensor of the batch as it is; site '{site['name']}' "
                f"draws {tuple(x.shape)}, where the batch holds {tuple(batch[place].shape)}"
            )
        drawn[place] = x.to(batch[place].dtype)
    latents = {site["name"]: site["value"] for site in latent_sites(trace)}
    again = once(story, poutine.condition(story.model, data=latents), tuple(drawn))
    drawn_from: dict[str, Any] = dict(trace.nodes)
    for site in sample_sites(again):  # what was drawn should have the density that it was drawn from
        name, before = site["name"], drawn_from[site["name"]]["fn"].log_prob(site["value"])
        if not torch.allclose(site["fn"].log_prob(site["value"]), before, rtol=1e-4, atol=1e-4, equal_nan=True):
            raise ValueError(
                f"to simulate data, a model should not be fed the x that it draws; the density of site '{name}' "
                "depends on it"
            )
    return tuple(drawn), latents


def _observed_mean(trace: poutine.Trace, batch: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([by_datum(site["fn"], site["fn"].mean) for site in _data_sites(trace, batch)], dim=-1)


def _data_sites(trace: poutine.Trace, batch: tuple[Tensor, ...]) -> list[Site]:
    """The sites that observe a tensor of the batch as it is; all that observe, where none does."""
    sites = [site for site in sample_sites(trace) if _is_data(site)]
    given = [site for site in sites if any(site["value"] is part for part in batch)]  # not labels made from one
    return given or sites


def by_datum(fn: Any, value: Tensor) -> Tensor:
    """(..., 1, batch, *event) to (batch, everything else), for one particle."""
    rows = value.movedim(value.dim() - fn.event_dim - 1, 0)
    return rows.reshape(len(rows), -1)


def _is_data(site: Site) -> bool:
    return bool(site["is_observed"]) and not isinstance(site["fn"], pyro.distributions.Unit)
