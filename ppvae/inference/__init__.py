"""Objectives and estimators: all of them reductions of log-weights, for any pair of Pyro programs."""

from ppvae.inference.importance import Evidence, importance, prior_sampling
from ppvae.inference.laplace import laplace, laplace_sampling
from ppvae.inference.objectives import elbo, enumerated_elbo, iwae
from ppvae.inference.weights import log_joint, log_mean_exp, log_weights, pareto_k

__all__ = [
    "Evidence",
    "elbo",
    "enumerated_elbo",
    "importance",
    "iwae",
    "laplace",
    "laplace_sampling",
    "log_joint",
    "log_mean_exp",
    "log_weights",
    "pareto_k",
    "prior_sampling",
]
