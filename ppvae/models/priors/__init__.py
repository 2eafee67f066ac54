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

from ppvae.models.priors.elementary import Flat, StandardNormal
from ppvae.models.priors.mixtures import GaussianMixture

__all__ = ["Flat", "GaussianMixture", "StandardNormal"]
