"""Encoders: modules whose call returns q(z | x), batch_shape `(...)` and event_shape `(latent,)`.

Each takes a network from `(..., features)` to `(..., latent * outputs)`, where its attribute `outputs` is the number
of network outputs per latent element.
"""

from ppvae.models.guides.normal import DiagonalNormal
from ppvae.models.guides.point import PointMass

__all__ = ["DiagonalNormal", "PointMass"]
