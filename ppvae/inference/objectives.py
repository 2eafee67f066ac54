"""Objectives: reductions of log-weights to a scalar loss, in nats per datum, that `fit` minimises."""

import pyro
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.programs import as_batch
from ppvae.inference.weights import log_mean_exp, weigh

__all__ = ["elbo", "enumerated_elbo", "iwae"]


def elbo(story: Story, data: Batch, particles: int = 1) -> Tensor:
    """-E_q[log p(x, z) - log q(z | x)], nats per datum. Kingma & Welling 2014, https://arxiv.org/abs/1312.6114

    The estimator of Pyro's `Trace_ELBO` divided by the batch, gradient included: sites whose draws pass no gradient
    (discrete ones) get the score-function term, and `poutine.scale`, inner subsampling and factors in the guide count
    as they do there. A subsampling scale of the data plate itself is left out: the loss is per datum.

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: draws per datum.
    """
    log_w, log_score, _ = weigh(story, data, particles, scaled=True)  # (particles, batch)
    if log_score is not None:
        # E[grad log q] = 0: the 1 takes away that term of log_w's own gradient, which would only add variance
        log_w = log_w + (log_w.detach() + 1) * (log_score - log_score.detach())
    return -log_w.mean()


def enumerated_elbo(story: Story, data: Batch, particles: int = 1, nesting: int = 1) -> Tensor:
    """The ELBO with a sum over every value of the discrete latents, nats per datum.

    Pyro's `TraceEnum_ELBO` divided by the batch. Every site of the guide whose values can be listed is summed over,
    weighted by the guide's probabilities (`infer={"enumerate": None}` leaves it drawn); one of the model alone asks
    with `infer={"enumerate": "parallel"}`, and is summed out of the likelihood. Other sites are drawn, as for `elbo`,
    which this is where there is nothing to sum. Kingma et al. 2014, section 3.1,
    https://arxiv.org/abs/1406.5298

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: draws per datum of the sites that are drawn.
        nesting: how deep the story's plates go: 1 for the data plate alone, 3 with another one at dim -3.
    """
    batch = as_batch(data)
    for option, value in {"particles": particles, "nesting": nesting}.items():
        if value < 1:
            raise ValueError(f"{option} should be at least 1, got {value}")
    pyro_elbo = TraceEnum_ELBO(
        num_particles=particles,
        max_plate_nesting=nesting,
        vectorize_particles=True,
        strict_enumeration_warning=False,
    )
    guide = config_enumerate(story.guide, default="parallel")
    store = pyro.get_param_store()
    with store.scope(store.get_state()):
        if torch.is_grad_enabled():
            return pyro_elbo.differentiable_loss(story.model, guide, *batch) / len(batch[0])
        loss = pyro_elbo.loss(story.model, guide, *batch) / len(batch[0])
        return torch.tensor(loss, dtype=torch.result_type(batch[0], 1.0), device=batch[0].device)


def iwae(story: Story, data: Batch, particles: int = 50) -> Tensor:
    """-log 1/K sum_k w_k, nats per datum. Burda et al. 2016, https://arxiv.org/abs/1509.00519

    Sites whose draws pass no gradient get the score-function term of the whole bound. Factors in the guide are added to
    the loss outside the logarithm. `poutine.scale` is left out: a scaled weight bounds nothing.

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: K, draws per datum.
    """
    log_w, log_score, factors = weigh(story, data, particles)
    bound = log_mean_exp(log_w) - factors.mean(0)  # (batch)
    if log_score is not None:
        log_score = log_score.sum(0)
        bound = bound + bound.detach() * (log_score - log_score.detach())
    return -bound.mean()
