"""What a denoising autoencoder does to what its encoder sees: in training only, as dropout.

Vincent et al. 2008, https://doi.org/10.1145/1390156.1390294; Vincent et al. 2010,
https://www.jmlr.org/papers/v11/vincent10a.html. Each acts on `(..., features)`, every element on its own, and draws
from torch's global generator, which `fit` seeds; in evaluation mode it gives back x itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ppvae.base import Architecture


class Masking(nn.Module):
    """0 in place of every element with probability `rate`; the others stay as they are, not rescaled as by dropout.

    Vincent et al. 2010, https://www.jmlr.org/papers/v11/vincent10a.html

    Args:
        rate: the share of the elements that is lost.

    Raises:
        ValueError: for a rate that is no probability.

    >>> Masking(0.25)(torch.ones(20, 3)).unique()
    tensor([0., 1.])
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = _probability(rate)

    def forward(self, x: Tensor) -> Tensor:
        return x.masked_fill(_uniform(x) < self.rate, 0) if self.training else x


class GaussianNoise(nn.Module):
    """x + scale * e with e ~ N(0, I).

    Vincent et al. 2010, https://www.jmlr.org/papers/v11/vincent10a.html

    Args:
        scale: the noise's standard deviation.

    Raises:
        ValueError: for a scale that is none.

    >>> GaussianNoise(0.1).eval()(torch.ones(2))
    tensor([1., 1.])
    """

    def __init__(self, scale: float):
        super().__init__()
        if not 0 <= scale < math.inf:
            raise ValueError(f"scale should be finite and not negative, got {scale}")
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * torch.randn_like(x) if self.training else x


class SaltAndPepper(nn.Module):
    """`low` or `high`, equally likely, in place of every element with probability `rate`.

    Vincent et al. 2010, https://www.jmlr.org/papers/v11/vincent10a.html

    Args:
        rate: the share of the elements that is lost.
        low: the smallest value, or every feature's, `(features,)`.
        high: the largest.

    Raises:
        ValueError: for a rate that is no probability; for values that are not finite, or a low one above the high one.

    >>> SaltAndPepper(0.5, low=-1.0, high=2.0)(torch.zeros(20, 3)).unique()
    tensor([-1.,  0.,  2.])
    """

    low: Tensor
    high: Tensor

    def __init__(self, rate: float, low: float | Tensor = 0.0, high: float | Tensor = 1.0):
        super().__init__()
        self.rate = _probability(rate)
        self.register_buffer("low", torch.as_tensor(low))
        self.register_buffer("high", torch.as_tensor(high))
        for name, value in {"low": self.low, "high": self.high}.items():
            if not value.isfinite().all():
                raise ValueError(f"{name} should be finite, got {value[~value.isfinite()][0].item()}")
        if (self.low > self.high).any():
            above = (self.low - self.high).max().item()
            raise ValueError(f"low should not be above high, got {above:g} above: give the smallest value first")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        draw = _uniform(x)
        lost = torch.where(draw < self.rate / 2, self.low.to(x), self.high.to(x))
        return torch.where(draw < self.rate, lost, x)


@dataclass(frozen=True)
class Corrupted:
    """A family whose encoders begin with a corruption, and are another family's from there on, as its decoders are.

    Vincent et al. 2010, https://www.jmlr.org/papers/v11/vincent10a.html

    Args:
        network: the other family.
        corruption: `(..., features)` to the same.

    >>> from ppvae import networks
    >>> encoder = Corrupted(networks.MLP([]), GaussianNoise(0.1)).encoder((2, 3), outputs=4)
    >>> torch.equal(encoder(torch.ones(6)), encoder(torch.ones(6)))
    False
    """

    network: Architecture
    corruption: nn.Module

    def encoder(self, shape: Sequence[int], outputs: int) -> nn.Module:
        return nn.Sequential(self.corruption, self.network.encoder(shape, outputs))

    def decoder(self, inputs: int, shape: Sequence[int], outputs: int) -> nn.Module:
        return self.network.decoder(inputs, shape, outputs)


def _probability(rate: float) -> float:
    if not 0 <= rate <= 1:
        raise ValueError(f"rate should be from 0 to 1, got {rate}")
    return rate


def _uniform(x: Tensor) -> Tensor:
    """From 0 up to, and never, 1: a rate of 0 takes nothing, a rate of 1 all."""
    return torch.rand(x.shape, device=x.device)
