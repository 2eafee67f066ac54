"""Reweighted wake-sleep: a guide learns from the model's own weights and simulations, without a path through draws."""

from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.objectives.pathwise import Leaves, valued
from ppvae.inference.objectives.terms import a_share, weigh_terms
from ppvae.inference.program.traces import as_batch, is_auxiliary, is_point_mass, latent_sites, run, sample_sites
from ppvae.inference.program.weights import log_mean_exp, sum_sites


def wake_sleep(story: Story, data: Batch, *, particles: int = 50, insomnia: float = 1.0) -> Tensor:
    """Reweighted wake-sleep; the loss is IWAE_K's, nats per datum. Bornschein & Bengio 2015, https://arxiv.org/abs/1406.2751

    With normalised weights v, the model follows sum_k v_k d log p(x, z_k), and the guide
    insomnia sum_k v_k d log q(z_k | x) + (1 - insomnia) d log q(z' | x'), x' and z' drawn from the model: the wake
    phase lowers KL(p(z | x) || q) on the data, the sleep phase on what the model simulates. No draw needs to pass a
    gradient. Le et al. 2019, https://arxiv.org/abs/1805.10469; as Pyro's `ReweightedWakeSleep`.

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: K, draws per datum in the wake phase; one simulation a datum in the sleep phase.
        insomnia: share of the wake phase in the guide's gradient.

    Raises:
        ValueError: particles below 1; insomnia outside [0, 1]; a guide without a density; for a sleep phase, a model
            that observes no tensor of the batch as it is.
    """
    a_share(insomnia=insomnia)
    batch = as_batch(data)
    with Leaves() as leaves:
        terms = weigh_terms(story, batch, particles)
    _check_density(terms.guide)
    log_w, penalty = terms.log_w, terms.factors.mean()
    weights = torch.softmax(log_w.detach(), dim=0)  # (particles, batch)
    surrogate = (weights * (terms.log_joint + insomnia * terms.log_q)).sum(0).mean() - penalty + leaves.path(-penalty)
    if insomnia < 1:
        surrogate = surrogate + (1 - insomnia) * _asleep(story, batch)
    return -valued(log_mean_exp(log_w).mean() - penalty, surrogate)


def _check_density(guide: poutine.Trace) -> None:
    for site in latent_sites(guide):
        if is_point_mass(site["fn"]) or is_auxiliary(site):
            raise ValueError(
                f"wake_sleep should have a guide with a density at any z, which a guide that draws site "
                f"'{site['name']}' as a point mass, or by way of another, has not: elbo takes it"
            )


def _asleep(story: Story, batch: tuple[Tensor, ...]) -> Tensor:
    """The mean of log q(z' | x') at the model's own x' and z'."""
    with torch.no_grad(), _Asleep(batch) as asleep:
        model = run(story.model, batch, particles=1)
    if not asleep.simulated:
        raise ValueError(
            "the sleep phase should find a site that observes a tensor of the batch as it is, got none: insomnia=1 "
            "leaves that phase out"
        )
    simulated = tuple(asleep.simulated.get(place, part) for place, part in enumerate(batch))
    latents = {site["name"]: site["value"] for site in latent_sites(model) if site["name"] not in asleep.names}
    guide = run(poutine.condition(story.guide, data=latents), simulated, particles=1)
    sites = [site for site in sample_sites(guide) if site["name"] in latents]
    return sum_sites(sites, 1, len(batch[0])).mean()


class _Asleep(Messenger):
    """Draw, instead of observing, what a site observes of the batch as it is."""

    def __init__(self, batch: tuple[Tensor, ...]):
        super().__init__()
        self.batch = batch
        self.places: dict[str, int] = {}  # of a site's tensor in the batch
        self.simulated: dict[int, Tensor] = {}

    @property
    def names(self) -> set[str]:
        return set(self.places)

    def _pyro_sample(self, msg: Any) -> None:
        place = next((place for place, part in enumerate(self.batch) if msg["value"] is part), None)
        if msg["is_observed"] and place is not None:
            self.places[msg["name"]] = place
            msg["is_observed"], msg["value"] = False, None

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] in self.places:  # without the particles' dimension, of size 1
            value = msg["value"]
            self.simulated[self.places[msg["name"]]] = value.reshape(self.batch[self.places[msg["name"]]].shape)
