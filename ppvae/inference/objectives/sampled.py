"""Bounds that are plain reductions of log-weights: ELBO, IWAE and what lies between them, Renyi's, VIMCO."""

import torch
from torch import Tensor

from ppvae.base import Batch, Scalar, Story
from ppvae.inference.objectives.terms import a_share, at_least, not_negative, weigh_terms, with_score
from ppvae.inference.program.weights import log_mean_exp, weigh


def elbo(story: Story, data: Batch, *, particles: int = 1, beta: Scalar = 1.0) -> Tensor:
    """-E_q[log p(x | z) + beta (log p(z) - log q(z | x))], nats per datum.

    Kingma & Welling 2014, https://arxiv.org/abs/1312.6114; beta: Higgins et al. 2017,
    https://openreview.net/forum?id=Sy2fzU9gl

    The estimator of Pyro's `Trace_ELBO` divided by the batch, gradient included: sites whose draws pass no gradient
    (discrete ones) get the score-function term, and `poutine.scale`, inner subsampling and factors in the guide count
    as they do there. A subsampling scale of the data plate itself is left out: the loss is per datum.

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: draws per datum.
        beta: weight of KL(q || p(z)), a number or a 0-d tensor; below 1 the loss bounds nothing.

    Raises:
        ValueError: particles below 1; beta below 0 or not finite.
    """
    not_negative(beta=beta)
    terms = weigh_terms(story, data, particles, scaled=True)
    bound = terms.log_likelihood + beta * (terms.log_prior - terms.log_q) - terms.factors  # (particles, batch)
    if terms.log_score is not None:
        # E[grad log q] = 0: beta takes away that term of the bound's own gradient, which would only add variance
        bound = bound + (bound.detach() + beta) * (terms.log_score - terms.log_score.detach())
    return -bound.mean()


def iwae(story: Story, data: Batch, *, particles: int = 50) -> Tensor:
    """-log 1/K sum_k w_k, nats per datum. Burda et al. 2016, https://arxiv.org/abs/1509.00519

    Sites whose draws pass no gradient get the score-function term of the whole bound; `vimco` has less noise there.
    Factors in the guide are added to the loss outside the logarithm. `poutine.scale` is left out: a scaled weight
    bounds nothing.

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: K, draws per datum.

    Raises:
        ValueError: particles below 1.
    """
    log_w, log_score, factors = weigh(story, data, particles)
    score = None if log_score is None else log_score.sum(0)
    return factors.mean() - with_score(log_mean_exp(log_w), score).mean()


def miwae(story: Story, data: Batch, *, outer: int = 8, particles: int = 8) -> Tensor:
    """-1/M sum_m log 1/K sum_k w_mk, nats per datum. Rainforth et al. 2018, https://arxiv.org/abs/1802.04537

    Between the ELBO (K = 1) and IWAE (M = 1). The name is theirs; the one for missing data (Mattei & Frellsen 2019) is
    a story here, not an objective.

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        outer: M, bounds that are averaged.
        particles: K, draws within each; M K draws per datum in all.

    Raises:
        ValueError: outer or particles below 1.
    """
    at_least(1, outer=outer, particles=particles)
    log_w, log_score, factors = weigh(story, data, outer * particles)
    groups = (particles, outer)
    score = None if log_score is None else log_score.unflatten(0, groups).sum(0)
    return factors.mean() - with_score(log_mean_exp(log_w.unflatten(0, groups)), score).mean()


def ciwae(story: Story, data: Batch, *, particles: int = 50, beta: float = 0.5) -> Tensor:
    """-(beta ELBO + (1 - beta) IWAE_K), nats per datum. Rainforth et al. 2018, https://arxiv.org/abs/1802.04537

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: K, draws per datum, the same for both.
        beta: the ELBO's share. It is no weight of the KL, so a warm-up has nothing to raise here.

    Raises:
        ValueError: particles below 1; beta outside [0, 1], or a warm-up's.
    """
    if isinstance(beta, Tensor):
        raise ValueError(
            "a warm-up should raise the weight of a KL, got ciwae, whose beta is the ELBO's share: use elbo"
        )
    a_share(beta=beta)
    log_w, log_score, factors = weigh(story, data, particles)
    score = None if log_score is None else log_score.sum(0)
    single, multiple = with_score(log_w, log_score), with_score(log_mean_exp(log_w), score)
    return factors.mean() - beta * single.mean() - (1 - beta) * multiple.mean()


def renyi(story: Story, data: Batch, *, alpha: float = 0.5, particles: int = 50) -> Tensor:
    """-1 / (1 - alpha) log 1/K sum_k w_k^(1 - alpha), nats per datum. Li & Turner 2016, https://arxiv.org/abs/1602.02311

    alpha = 0 is IWAE, alpha = 1 the ELBO: the larger alpha, the lower the bound.

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        alpha: order of Renyi's divergence.
        particles: K, draws per datum.

    Raises:
        ValueError: particles below 1; alpha below 0, where it bounds nothing from below, or not finite.
    """
    not_negative(alpha=alpha)
    log_w, log_score, factors = weigh(story, data, particles)
    if alpha == 1:
        return factors.mean() - with_score(log_w, log_score).mean()
    score = None if log_score is None else log_score.sum(0)
    bound = log_mean_exp((1 - alpha) * log_w) / (1 - alpha)  # (batch)
    return factors.mean() - with_score(bound, score).mean()


def vimco(story: Story, data: Batch, *, particles: int = 50) -> Tensor:
    """IWAE whose score-function term has a baseline, nats per datum. Mnih & Rezende 2016, https://arxiv.org/abs/1602.06725

    Of particle k's log q counts L - L_-k: the bound, less the bound with w_k replaced by the geometric mean of the
    others. For sites whose draws pass no gradient; the others keep theirs, and where there are only those it is `iwae`.

    Args:
        story: any object with `model` and `guide`.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        particles: K, draws per datum.

    Raises:
        ValueError: particles below 2: a baseline is made of the other particles.
    """
    at_least(2, particles=particles)
    log_w, log_score, factors = weigh(story, data, particles)
    bound = log_mean_exp(log_w)  # (batch)
    if log_score is not None:
        signal = (bound - _without_each(log_w)).detach()  # (particles, batch)
        bound = bound + (signal * (log_score - log_score.detach())).sum(0)
    return factors.mean() - bound.mean()


def _without_each(log_w: Tensor) -> Tensor:
    """L_-k for every k: `(particles, batch)` to `(particles, batch)`."""
    particles = len(log_w)
    others = (log_w.sum(0) - log_w) / (particles - 1)  # the mean logarithm of all but one
    own = torch.eye(particles, dtype=torch.bool, device=log_w.device).unsqueeze(-1)
    return log_mean_exp(torch.where(own, others, log_w.unsqueeze(1)))  # row and column are k where it is replaced
