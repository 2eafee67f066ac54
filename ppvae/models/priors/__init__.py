"""Priors: modules whose call returns p(z), batch_shape `()` and event_shape `(latent,)`.

A prior of your own is a module like these; nothing needs to be registered:

>>> class Wide(torch.nn.Module):
...     def __init__(self, latent: int, scale: float = 3.0):
...         super().__init__()
...         self.latent, self.scale = latent, scale
...
...     def forward(self):
...         return pyro.distributions.Normal(torch.zeros(self.latent), self.scale).to_event(1)
>>> Wide(2)().event_shape
torch.Size([2])
"""

from ppvae.models.priors.discrete import OneHot, RelaxedOneHot
from ppvae.models.priors.elementary import DiagonalNormal, Flat, Laplace, StandardNormal, StudentT
from ppvae.models.priors.fitted import ExPost
from ppvae.models.priors.fitted import ex_post as ex_post  # makes a part, and is none
from ppvae.models.priors.flows import MaskedAutoregressiveFlow, NeuralSplineFlow, RealNVP
from ppvae.models.priors.lars import LARS
from ppvae.models.priors.mixtures import GaussianMixture, VampPrior
from ppvae.models.priors.sphere import HypersphericalUniform, VonMisesFisher

__all__ = [
    "LARS",
    "DiagonalNormal",
    "ExPost",
    "Flat",
    "GaussianMixture",
    "HypersphericalUniform",
    "Laplace",
    "MaskedAutoregressiveFlow",
    "NeuralSplineFlow",
    "OneHot",
    "RealNVP",
    "RelaxedOneHot",
    "StandardNormal",
    "StudentT",
    "VampPrior",
    "VonMisesFisher",
]
