"""Encoders: modules whose call returns q(z | x), batch_shape `(...)` and event_shape `(latent,)`.

Each takes a network from `(..., features)` to `(..., latent * outputs)`, where its attribute `outputs` is the number
of network outputs per latent element; where `outputs` is a method, `outputs(latent)` is how many in all.
"""

from ppvae.models.guides.discrete import GumbelSoftmax, OneHotCategorical
from ppvae.models.guides.flows import InverseAutoregressiveFlow, NeuralSpline, Sylvester
from ppvae.models.guides.normal import DiagonalNormal, FullNormal, LowRankNormal, NormalMixture
from ppvae.models.guides.point import PointMass
from ppvae.models.guides.sphere import VonMisesFisher

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
