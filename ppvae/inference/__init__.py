"""Objectives and estimators: all of them reductions of log-weights, for any pair of Pyro programs."""

from ppvae.inference.annealing import annealed, bidirectional
from ppvae.inference.calibration import calibration
from ppvae.inference.chains import hmc
from ppvae.inference.closed_form import exact
from ppvae.inference.convergence import effective_draws, r_hat
from ppvae.inference.evidence import Evidence
from ppvae.inference.gaps import gaps, generalisation
from ppvae.inference.importance import importance, prior_sampling, upper_bound
from ppvae.inference.ladder import ladder
from ppvae.inference.laplace import laplace, laplace_evidence, laplace_sampling
from ppvae.inference.leaderboard import leaderboard, reference
from ppvae.inference.local import local_normal, refined_sampling
from ppvae.inference.local_flow import flow_sampling, local_flow
from ppvae.inference.objectives import (
    ciwae,
    dreg,
    elbo,
    enumerated_elbo,
    free_bits,
    iwae,
    maximum_a_posteriori,
    mean_field_elbo,
    miwae,
    piwae,
    renyi,
    sticking_the_landing,
    vimco,
    wake_sleep,
)
from ppvae.inference.posteriors import infer
from ppvae.inference.tail import pareto_k
from ppvae.inference.weights import log_joint, log_mean_exp, log_weights
from ppvae.inference.workers import in_processes

__all__ = [
    "Evidence",
    "annealed",
    "bidirectional",
    "calibration",
    "ciwae",
    "dreg",
    "effective_draws",
    "elbo",
    "enumerated_elbo",
    "exact",
    "flow_sampling",
    "free_bits",
    "gaps",
    "generalisation",
    "hmc",
    "importance",
    "in_processes",
    "infer",
    "iwae",
    "ladder",
    "laplace",
    "laplace_evidence",
    "laplace_sampling",
    "leaderboard",
    "local_flow",
    "local_normal",
    "log_joint",
    "log_mean_exp",
    "log_weights",
    "maximum_a_posteriori",
    "mean_field_elbo",
    "miwae",
    "pareto_k",
    "piwae",
    "prior_sampling",
    "r_hat",
    "reference",
    "refined_sampling",
    "renyi",
    "sticking_the_landing",
    "upper_bound",
    "vimco",
    "wake_sleep",
]
