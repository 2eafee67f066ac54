"""Objectives and estimators: all of them reductions of log-weights, for any pair of Pyro programs."""

from ppvae.inference.diagnostics.calibration import calibration
from ppvae.inference.diagnostics.gaps import gaps, generalisation
from ppvae.inference.diagnostics.leaderboard import leaderboard, reference
from ppvae.inference.evidence.annealing import annealed
from ppvae.inference.evidence.bidirectional import bidirectional
from ppvae.inference.evidence.bound_curve import bound_curve
from ppvae.inference.evidence.evidence import Evidence
from ppvae.inference.evidence.exact import exact
from ppvae.inference.evidence.flow import flow_sampling
from ppvae.inference.evidence.importance import importance, prior_sampling, upper_bound
from ppvae.inference.evidence.laplace import laplace_evidence, laplace_sampling
from ppvae.inference.evidence.refined import refined_sampling
from ppvae.inference.evidence.tail import pareto_k
from ppvae.inference.evidence.workers import in_processes
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
from ppvae.inference.posteriors.convergence import effective_draws, r_hat
from ppvae.inference.posteriors.laplace import laplace
from ppvae.inference.posteriors.posterior import Posterior, hmc, infer, local_flow, local_normal, nuts
from ppvae.inference.program.answers import Answer
from ppvae.inference.program.codes import decode, encode, reconstruct, sample
from ppvae.inference.program.weights import log_joint, log_mean_exp, log_weights

__all__ = [
    "Answer",
    "Evidence",
    "Posterior",
    "annealed",
    "bidirectional",
    "bound_curve",
    "calibration",
    "ciwae",
    "decode",
    "dreg",
    "effective_draws",
    "elbo",
    "encode",
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
    "nuts",
    "pareto_k",
    "piwae",
    "prior_sampling",
    "r_hat",
    "reconstruct",
    "reference",
    "refined_sampling",
    "renyi",
    "sample",
    "sticking_the_landing",
    "upper_bound",
    "vimco",
    "wake_sleep",
]
