"""Likelihoods: modules whose call returns p(x | z), batch_shape `(...)` and event_shape `(features,)`.

Each takes a network from `(..., latent)` to `(..., features * outputs)`, where its attribute `outputs` is the number
of network outputs per observed element.
"""

from ppvae.models.likelihoods.binary import Bernoulli
from ppvae.models.likelihoods.counts import Binomial
from ppvae.models.likelihoods.real import Normal

__all__ = ["Bernoulli", "Binomial", "Normal"]
