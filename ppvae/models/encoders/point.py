"""The encoder of a single value."""

import pyro.distributions as dist
from torch import Tensor, nn

from ppvae.base import Distribution


class PointMass(nn.Module):
    """q(z | x) = delta(z - network(x)), a point mass.

    The ELBO is then log p(x, z) at z = network(x): MAP inference, and the autoencoder of Goodfellow et al. 2016,
    chapter 14, https://www.deeplearningbook.org/contents/autoencoders.html

    Args:
        network: `(..., features)` to `(..., latent)`.

    >>> PointMass(torch.nn.Linear(3, 2))(torch.zeros(5, 3)).event_shape
    torch.Size([2])
    """

    outputs = 1

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Distribution:
        z = self.network(x)
        if not isinstance(z, Tensor):
            kind = type(z).__name__
            raise ValueError(f"a point mass needs a network that returns a tensor, not {kind}: VAE takes an encoder")
        return dist.Delta(z, event_dim=1)
