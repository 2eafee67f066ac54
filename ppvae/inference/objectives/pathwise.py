"""Estimators that give the path of a draw, its density and the model gradients of their own."""

from collections.abc import Sequence
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.objectives.terms import at_least, check_reparameterised, weigh_terms
from ppvae.inference.program.weights import log_mean_exp


def sticking_the_landing(story: Story, data: Batch, *, particles: int = 1) -> Tensor:
    """The ELBO without the score of q in its gradient, nats per datum. Roeder et al. 2017, https://arxiv.org/abs/1703.09194

    The guide's gradient is d log w / dz dz / dphi, that of log q's own parameters, zero on average, being left out: it
    vanishes draw by draw once the guide is exact.

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: draws per datum.

    Raises:
        ValueError: particles below 1; a latent that passes no gradient through its draws.
    """
    with Leaves() as leaves:
        terms = weigh_terms(story, data, particles, scaled=True)
    check_reparameterised(terms.guide)
    bound = (terms.log_w - terms.factors).mean()
    return -valued(bound, leaves.path(bound) + (terms.log_joint - terms.factors).mean())


def dreg(story: Story, data: Batch, *, particles: int = 50) -> Tensor:
    """IWAE with a doubly reparameterised gradient, nats per datum. Tucker et al. 2019, https://arxiv.org/abs/1810.04152

    For the guide sum_k v_k^2 d log w_k / dz_k dz_k / dphi with normalised weights v, whose signal-to-noise ratio grows
    with K where that of `iwae` falls; for the model sum_k v_k d log p(x, z_k) / dtheta, as in `iwae`. Roles are told
    apart, not parameters, so one that serves both (VampPrior's encoder) gets both.

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: K, draws per datum.

    Raises:
        ValueError: particles below 1; a latent that passes no gradient through its draws.
    """
    with Leaves() as leaves:
        terms = weigh_terms(story, data, particles)
    check_reparameterised(terms.guide)
    log_w, penalty = terms.log_w, terms.factors.mean()
    weights = torch.softmax(log_w.detach(), dim=0)  # (particles, batch)
    path = leaves.path((weights.square() * log_w).sum(0).mean() - penalty)
    direct = (weights * terms.log_joint).sum(0).mean() - penalty
    return -valued(log_mean_exp(log_w).mean() - penalty, path + direct)


def piwae(story: Story, data: Batch, *, outer: int = 8, particles: int = 8) -> Tensor:
    """IWAE_MK for the model, MIWAE_MK for the guide, nats per datum. Rainforth et al. 2018, https://arxiv.org/abs/1802.04537

    The loss is IWAE's. Sites whose draws pass no gradient get MIWAE's score-function term.

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        outer: M, bounds that are averaged for the guide.
        particles: K, draws within each; M K draws per datum in all.

    Raises:
        ValueError: outer or particles below 1.
    """
    at_least(1, outer=outer, particles=particles)
    with Leaves() as leaves:
        terms = weigh_terms(story, data, outer * particles)
    log_w, penalty = terms.log_w, terms.factors.mean()
    grouped = log_w.detach().unflatten(0, (particles, outer))  # (particles, outer, batch)
    guides = (torch.softmax(grouped, dim=0) / outer).flatten(0, 1)
    models = torch.softmax(log_w.detach(), dim=0)
    direct = (models * terms.log_joint - guides * terms.log_q).sum(0).mean() - penalty
    path = (guides * log_w).sum(0).mean() - penalty
    if terms.log_score is not None:
        bounds = log_mean_exp(grouped)  # (outer, batch)
        score = (bounds * terms.log_score.unflatten(0, grouped.shape[:2]).sum(0)).mean()
        direct, path = direct + score, path + score
    return -valued(log_mean_exp(log_w).mean() - penalty, direct + leaves.path(path))


def valued(bound: Tensor, surrogate: Tensor) -> Tensor:
    """The value of one, the gradient of the other."""
    return bound.detach() + surrogate - surrogate.detach()


class Leaves(Messenger):
    """Pass every draw on as a leaf: what depends on its value is then told from how the value came about.

    Within it a guide's density, and a model's, are functions of the parameters alone; `path` gives back how a target
    depends on them through the draws. The guide runs once, so dropout is one draw for the sample and its density.
    """

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[Tensor] = []  # in the order of the guide, as functions of the parameters and earlier leaves
        self.leaves: list[Tensor] = []

    def _pyro_post_sample(self, msg: Any) -> None:
        value = msg["value"]
        if not msg["is_observed"] and isinstance(value, Tensor) and value.requires_grad:
            msg["value"] = value.detach().requires_grad_()
            self.drawn.append(value)
            self.leaves.append(msg["value"])

    def path(self, target: Tensor) -> Tensor:
        """sum_i a_i z_i with a_i = d target / dz_i: its gradient is target's through the draws, and nothing else's."""
        surrogate = target.new_zeros(())
        if not (torch.is_grad_enabled() and self.leaves and target.requires_grad):
            return surrogate
        slopes = _slopes(target, self.leaves)
        for i in reversed(range(len(self.leaves))):  # a later draw is a function of the earlier ones
            along = (slopes[i] * self.drawn[i]).sum()
            surrogate = surrogate + along
            earlier = _slopes(along, self.leaves[:i])
            slopes = [slope + more for slope, more in zip(slopes, earlier, strict=False)]
        return surrogate


def _slopes(target: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    if not leaves:
        return []
    slopes = torch.autograd.grad(target, leaves, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(leaf) if slope is None else slope for slope, leaf in zip(slopes, leaves, strict=True)]
