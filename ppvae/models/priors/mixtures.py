"""Priors that are mixtures."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.base import Distribution, Encoder
from ppvae.models.checks import at_least_one


class GaussianMixture(nn.Module):
    """p(z) = sum_k pi_k N(z; m_k, diag s_k^2), with every pi, m and s learned.

    The components start at draws from N(0, I) with unit scales, so the prior starts close to the standard one.
    Dilokthanakul et al. 2016, https://arxiv.org/abs/1611.02648

    Args:
        latent: number of latent dimensions.
        components: number of Gaussians.

    >>> GaussianMixture(2, components=10)().sample().shape
    torch.Size([2])
    """

    def __init__(self, latent: int, components: int = 10):
        super().__init__()
        shape = (at_least_one("components", components), at_least_one("latent", latent))
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(shape))
        self.log_scale = nn.Parameter(torch.zeros(shape))

    def forward(self) -> Distribution:
        gaussians = dist.Normal(self.loc, self.log_scale.exp()).to_event(1)  # (components) | (latent)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), gaussians)


class VampPrior(nn.Module):
    """p(z) = sum_k pi_k q(z | u_k): the encoder's own distributions at learned pseudo-inputs u_k.

    A finite stand-in for the encoder's average over the data, the prior that maximises the ELBO. pi_k is 1 / K unless
    learned. The pseudo-inputs start at random rows of the data, or at draws from N(0, I) where there are none, and
    take any real values. Tomczak & Welling 2018, https://arxiv.org/abs/1705.07120

    The encoder is the story's: it is no part of this module, so that its weights are saved once; `.to()`, `.double()`
    and `copy.deepcopy` of the story move or copy both. A story that gets another encoder needs another VampPrior.

    Args:
        latent: number of latent dimensions.
        encoder: q(z | x), with a density: no point mass.
        features: size of a datum.
        x: data to start from, `(rows, features)`.
        components: K, number of pseudo-inputs.
        learned_weights: whether pi is learned too.

    Raises:
        ValueError: when called, for an encoder whose distribution is a point mass.

    >>> from ppvae.models import encoders
    >>> prior = VampPrior(2, encoders.DiagonalNormal(torch.nn.Linear(3, 4)), features=3, components=5)
    >>> prior().sample().shape, sorted(prior.state_dict())
    (torch.Size([2]), ['inputs', 'logits'])
    """

    def __init__(
        self,
        latent: int,
        encoder: Encoder,
        features: int,
        x: Tensor | None = None,
        components: int = 50,
        learned_weights: bool = False,
    ):
        super().__init__()
        at_least_one("latent", latent)
        shape = (at_least_one("components", components), at_least_one("features", features))
        rows = None if x is None else torch.randint(len(x), (components,))
        self._encoder = (encoder,)  # in a tuple, where nn.Module does not see it
        self.inputs = nn.Parameter(torch.randn(shape) if x is None else x[rows].detach().to(torch.get_default_dtype()))
        self.logits = nn.Parameter(torch.zeros(components), requires_grad=learned_weights)

    def forward(self) -> Distribution:
        posteriors = self._encoder[0](self.inputs)  # (components) | (latent)
        if _is_point_mass(posteriors):
            raise ValueError(
                "a VampPrior should have an encoder with a density, such as DiagonalNormal, got a point mass"
            )
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), posteriors)


def _is_point_mass(distribution: Any) -> bool:
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return isinstance(distribution, dist.Delta)
