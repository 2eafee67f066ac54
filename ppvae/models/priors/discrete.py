"""Priors over a choice of one among many, and over its relaxation."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.base import Distribution
from ppvae.distributions.relaxed_one_hot import RelaxedOneHot as RelaxedOneHotCategorical
from ppvae.models.checks import at_least_one, positive


class OneHot(nn.Module):
    """p(z = e_k) = pi_k: one of `latent` unit vectors, a discrete code.

    Jang et al. 2017, https://arxiv.org/abs/1611.01144

    Args:
        latent: number of choices.
        learned: whether pi is learned, from almost uniform on; else it is uniform.

    >>> OneHot(4)().log_prob(torch.eye(4))  # -log 4
    tensor([-1.3863, -1.3863, -1.3863, -1.3863])
    """

    def __init__(self, latent: int, learned: bool = False):
        super().__init__()
        start = torch.zeros(at_least_one("latent", latent))
        self.logits = nn.Parameter(start + 0.01 * torch.randn(latent) if learned else start, requires_grad=learned)

    def forward(self) -> Distribution:
        return dist.OneHotCategorical(logits=self.logits)


class RelaxedOneHot(nn.Module):
    """p(z) = (K - 1)! t^(K - 1) prod_k (pi_k z_k^(-t - 1)) / (sum_k pi_k z_k^-t)^K: a density inside the simplex.

    The Concrete distribution, or Gumbel-softmax: softmax((log pi + Gumbel noise) / t), which nears the unit vectors as
    t falls. It goes with an encoder of the same support, and the ELBO is then one of the relaxed story: densities and
    figures are not those of `OneHot`. The density is over the first K - 1 coordinates.
    Maddison et al. 2017, https://arxiv.org/abs/1611.00712; Jang et al. 2017, https://arxiv.org/abs/1611.01144

    Args:
        latent: K, number of choices, at least 2.
        temperature: t.
        learned: whether pi is learned; else it is uniform.

    >>> RelaxedOneHot(3)().sample().sum().round(decimals=4)
    tensor(1.)
    """

    temperature: Tensor

    def __init__(self, latent: int, temperature: float = 0.5, learned: bool = False):
        super().__init__()
        if at_least_one("latent", latent) < 2:
            raise ValueError(f"latent should be at least 2 for a density inside the simplex, got {latent}")
        self.register_buffer("temperature", torch.tensor(positive("temperature", temperature)))
        self.logits = nn.Parameter(torch.zeros(latent), requires_grad=learned)

    def forward(self) -> Distribution:
        return RelaxedOneHotCategorical(self.temperature, logits=self.logits)
