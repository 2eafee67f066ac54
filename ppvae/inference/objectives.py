"""Objectives: reductions of log-weights to a scalar loss, in nats per datum, that `fit` minimises."""

from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.weights import log_mean_exp, weigh


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
    log_w, log_score = weigh(story, data, particles, scaled=True)  # (particles, batch)
    if log_score is not None:
        # E[grad log q] = 0: the 1 takes away that term of log_w's own gradient, which would only add variance
        log_w = log_w + (log_w.detach() + 1) * (log_score - log_score.detach())
    return -log_w.mean()


def iwae(story: Story, data: Batch, particles: int = 50) -> Tensor:
    """-log 1/K sum_k w_k, nats per datum. Burda et al. 2016, https://arxiv.org/abs/1509.00519

    Sites whose draws pass no gradient get the score-function term of the whole bound. `poutine.scale` and factors in
    the guide are left out: a scaled weight bounds nothing.

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: K, draws per datum.
    """
    log_w, log_score = weigh(story, data, particles)
    bound = log_mean_exp(log_w)  # (batch)
    if log_score is not None:
        log_score = log_score.sum(0)
        bound = bound + bound.detach() * (log_score - log_score.detach())
    return -bound.mean()
