"""Encoders: modules whose call returns q(z | x), batch_shape `(...)` and event_shape `(latent,)`.

Each takes a network from `(..., features)` to `(..., latent * outputs)`, where its attribute `outputs` is the number
of network outputs per latent element; where `outputs` is a method, `outputs(latent)` is how many in all.
"""

from ppvae.models.encoders.discrete import GumbelSoftmax, OneHotCategorical
from ppvae.models.encoders.flows import InverseAutoregressiveFlow, NeuralSpline, Sylvester
from ppvae.models.encoders.normal import DiagonalNormal, FullNormal, LowRankNormal, NormalMixture
from ppvae.models.encoders.point import PointMass
from ppvae.models.encoders.sphere import VonMisesFisher

__all__ = [
    "DiagonalNormal",
    "FullNormal",
    "GumbelSoftmax",
    "InverseAutoregressiveFlow",
    "LowRankNormal",
    "NeuralSpline",
    "NormalMixture",
    "OneHotCategorical",
    "PointMass",
    "Sylvester",
    "VonMisesFisher",
]
