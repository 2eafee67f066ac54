"""Encoders of one-hot vectors, and of their relaxation to the simplex."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.base import Distribution
from ppvae.distributions.relaxed_one_hot import RelaxedOneHot
from ppvae.models.checks import positive


class OneHotCategorical(nn.Module):
    """q(z | x) = pi(x)_k for the k-th one-hot vector, pi = softmax(network(x)): a class per datum, `latent` of them.

    Its draws pass no gradient: objectives use the score function, and Pyro's `TraceEnum_ELBO` with `config_enumerate`
    sums over the classes exactly. It goes with a prior over one-hot vectors. Kingma et al. 2014, section 3,
    https://arxiv.org/abs/1406.5298

    Args:
        network: `(..., features)` to `(..., latent)`, the logits.

    >>> OneHotCategorical(torch.nn.Linear(3, 4))(torch.zeros(5, 3)).sample().sum(-1)
    tensor([1., 1., 1., 1., 1.])
    """

    outputs = 1

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Distribution:
        return dist.OneHotCategorical(logits=self.network(x))


class GumbelSoftmax(nn.Module):
    """q(z | x) of z = softmax((network(x) + g) / temperature), g of Gumbel's distribution: a density on the simplex.

    It goes with a prior of a density on the simplex: the evidence is that of the relaxed story, and says nothing of a
    story with one-hot codes. There is no straight-through variant, for its draws have no density that a log-weight
    could be made of. Jang et al. 2017, https://arxiv.org/abs/1611.01144; Maddison et al. 2017,
    https://arxiv.org/abs/1611.00712

    Args:
        network: `(..., features)` to `(..., latent)`, the logits.
        temperature: towards 0 the draws are one-hot, and gradients noisier. Maddison et al. take 2/3 here and 1/2 in
            the prior; where both are equal, fits are prone to stay where the code says nothing.

    Raises:
        ValueError: temperature not positive and finite.

    >>> GumbelSoftmax(torch.nn.Linear(3, 4))(torch.zeros(5, 3)).rsample().shape
    torch.Size([5, 4])
    """

    outputs = 1
    temperature: Tensor

    def __init__(self, network: nn.Module, temperature: float = 0.67):
        super().__init__()
        self.network = network
        self.register_buffer("temperature", torch.tensor(positive("temperature", temperature)))

    def forward(self, x: Tensor) -> Distribution:
        return RelaxedOneHot(self.temperature, logits=self.network(x))
