"""Objectives: reductions of log-weights to a scalar loss, in nats per datum, that `fit` minimises.

Each is `(story, data, ...)` to minus a bound on log p(x), averaged over the batch. Factors in the guide (penalties) are
added to the loss outside every logarithm. None reads a number back from the device, so that a step can be compiled.
"""

from ppvae.inference.objectives.divergences import free_bits, mean_field_elbo
from ppvae.inference.objectives.enumeration import enumerated_elbo
from ppvae.inference.objectives.modes import maximum_a_posteriori
from ppvae.inference.objectives.pathwise import dreg, piwae, sticking_the_landing
from ppvae.inference.objectives.sampled import ciwae, elbo, iwae, miwae, renyi, vimco
from ppvae.inference.objectives.simulation import wake_sleep

__all__ = [
    "ciwae",
    "dreg",
    "elbo",
    "enumerated_elbo",
    "free_bits",
    "iwae",
    "maximum_a_posteriori",
    "mean_field_elbo",
    "miwae",
    "piwae",
    "renyi",
    "sticking_the_landing",
    "vimco",
    "wake_sleep",
]
