"""Objectives: reductions of log-weights to a scalar loss, in nats per datum, that `fit` minimises."""

from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.weights import draw, log_joint, log_mean_exp


def elbo(story: Story, data: Batch, particles: int = 1) -> Tensor:
    """-E_q[log p(x, z) - log q(z | x)], nats per datum. Kingma & Welling 2014, https://arxiv.org/abs/1312.6114

    The estimator of Pyro's `Trace_ELBO` divided by the batch, gradient included: sites whose draws pass no gradient
    (discrete ones) get the score-function term. `poutine.scale` in a program is not applied.

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: draws per datum.
    """
    draws = draw(story, data, particles)
    log_w = log_joint(story, data, draws.latents) - draws.log_q  # (particles, batch)
    if draws.log_score is not None:
        # E[grad log q] = 0: the 1 takes away that term of log_w's own gradient, which would only add variance
        log_w = log_w + (log_w.detach() + 1) * (draws.log_score - draws.log_score.detach())
    return -log_w.mean()


def iwae(story: Story, data: Batch, particles: int = 50) -> Tensor:
    """-log 1/K sum_k w_k, nats per datum. Burda et al. 2016, https://arxiv.org/abs/1509.00519

    Sites whose draws pass no gradient get the score-function term of the whole bound.

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: K, draws per datum.
    """
    draws = draw(story, data, particles)
    bound = log_mean_exp(log_joint(story, data, draws.latents) - draws.log_q)  # (batch)
    if draws.log_score is not None:
        log_score = draws.log_score.sum(0)
        bound = bound + bound.detach() * (log_score - log_score.detach())
    return -bound.mean()
