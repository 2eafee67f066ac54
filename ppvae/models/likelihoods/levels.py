"""Likelihoods of whole numbers from 0 to a largest one: the levels of a pixel, as they are, not scaled."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.base import Distribution
from ppvae.distributions import discretized_logistic
from ppvae.distributions.levels import Levels
from ppvae.models.checks import at_least_one, known
from ppvae.models.likelihoods.links import by_element, positive


class Categorical(nn.Module):
    """p(x | z) = prod_i softmax_i(network(z))_{x_i}: any mass on {0, ..., levels - 1}, which need be in no order.

    Its mean, sum_k k p_k, takes them as numbers. van den Oord et al. 2016, https://arxiv.org/abs/1601.06759

    Args:
        network: `(..., latent)` to `(..., levels * features)`: a logit of level 0 for every feature, then of level 1...
        levels: how many there are; it follows from data with a largest level.

    >>> Categorical(torch.nn.Linear(2, 12), levels=4)(torch.zeros(5, 2)).event_shape
    torch.Size([3])
    """

    def __init__(self, network: nn.Module, levels: int | None = None):
        super().__init__()
        self.network = network
        self.levels = self.outputs = _at_least_two(levels)

    def forward(self, z: Tensor) -> Distribution:
        return Levels(logits=by_element(self.network(z), self.levels)).to_event(1)

    def output_bias(self, x: Tensor) -> Tensor:
        """The logarithm of the share of each level in x, kept above 0.001 / levels."""
        shares = torch.stack([(x == level).to(x).mean(0) for level in range(self.levels)])  # (levels, features)
        return shares.clamp_min(1e-3 / self.levels).log().flatten()


class DiscretizedLogistic(nn.Module):
    """p(x | z) = prod_i F((y_i + h - m_i) / s_i) - F((y_i - h - m_i) / s_i): a mass on {0, ..., levels - 1}.

    F is the logistic function, y = 2 x / (levels - 1) - 1, h half a level; the first and the last level take the tails.
    m and s = 0.001 + softplus are on y's scale, from -1 to 1. Kingma et al. 2016, https://arxiv.org/abs/1606.04934

    Args:
        network: `(..., latent)` to `(..., 2 * features)`: m for every feature, then what s is made of.
        levels: how many there are; it follows from data with a largest level.

    >>> likelihood = DiscretizedLogistic(torch.nn.Linear(2, 6), levels=256)
    >>> likelihood(torch.zeros(5, 2)).log_prob(torch.tensor([0.0, 128.0, 255.0])).shape
    torch.Size([5])
    """

    outputs = 2

    def __init__(self, network: nn.Module, levels: int | None = None):
        super().__init__()
        self.network = network
        self.levels = _at_least_two(levels)

    def forward(self, z: Tensor) -> Distribution:
        loc, scale = self.network(z).chunk(2, dim=-1)
        return discretized_logistic.DiscretizedLogistic(loc, positive(scale), self.levels).to_event(1)


class DiscretizedLogisticMixture(nn.Module):
    """p(x | z) = prod_i sum_k w_ik P(x_i; m_ik, s_ik), P a discretised logistic: a mass on {0, ..., levels - 1}.

    Every element has components of its own; the channels of a pixel are independent given z.
    Salimans et al. 2017, https://arxiv.org/abs/1701.05517

    Args:
        network: `(..., latent)` to `(..., 3 * components * features)`: for every component the logit of w for every
            feature; then likewise m, and what s = 0.001 + softplus is made of.
        levels: how many there are; it follows from data with a largest level.
        components: how many each element has.

    >>> likelihood = DiscretizedLogisticMixture(torch.nn.Linear(2, 45), levels=256, components=5)
    >>> likelihood(torch.zeros(5, 2)).event_shape
    torch.Size([3])
    """

    def __init__(self, network: nn.Module, levels: int | None = None, components: int = 5):
        super().__init__()
        self.network = network
        self.levels = _at_least_two(levels)
        self.outputs = 3 * at_least_one("components", components)

    def forward(self, z: Tensor) -> Distribution:
        logits, loc, scale = by_element(self.network(z), self.outputs).chunk(3, dim=-1)  # (..., features, components)
        parts = discretized_logistic.DiscretizedLogistic(loc, positive(scale), self.levels)
        return discretized_logistic.DiscretizedLogisticMixture(dist.Categorical(logits=logits), parts).to_event(1)


def _at_least_two(levels: int | None) -> int:
    if levels == 1:
        raise ValueError("levels should be at least 2, got 1")
    return known("levels", levels)
