"""Priors by learned accept/reject sampling."""

import math
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppvae.base import Distribution
from ppvae.distributions.resampled import Resampled
from ppvae.models.checks import at_least_one
from ppvae.networks import mlp


class LARS(nn.Module):
    """p(z) = N(z; 0, I) [a(z) (1 - r) / Z + r], r = (1 - Z)^(T - 1): draws accepted with a learned probability a(z).

    Z = E[a(z)] under N(0, I) has no closed form. In training it is the mean over fresh draws at every call. In
    evaluation it is the mean over draws fixed for good, which no training has seen: the density is then one function
    of z, and `log_rate` says how far it may be off. Generation is exact. Bauer & Mnih 2019,
    https://arxiv.org/abs/1810.11428

    Args:
        latent: number of latent dimensions.
        hidden: size of each hidden layer of the network of logit a.
        truncation: T, the draw that is taken whatever it is; null for no end.
        draws: number of draws for Z in training.
        evaluation_draws: number of draws for Z in evaluation.

    >>> prior = LARS(2).eval()
    >>> log_rate, error = prior.log_rate()
    >>> prior().sample().shape, bool(error < 0.01)
    (torch.Size([2]), True)
    """

    loc: Tensor
    scale: Tensor
    fixed: Tensor

    def __init__(
        self,
        latent: int,
        hidden: Sequence[int] = (100, 100),
        truncation: int | None = 100,
        draws: int = 1024,
        evaluation_draws: int = 10_000,
    ):
        super().__init__()
        self.network = mlp(at_least_one("latent", latent), hidden, 1, nn.Tanh)
        self.truncation = truncation
        self.draws = at_least_one("draws", draws)
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("loc", torch.zeros(latent))
        self.register_buffer("scale", torch.ones(latent))
        fixed = torch.randn(at_least_one("evaluation_draws", evaluation_draws), latent, generator=generator)
        self.register_buffer("fixed", fixed)

    def log_acceptance(self, z: Tensor) -> Tensor:
        """log a(z), `(..., latent)` to `(...)`."""
        return nn.functional.logsigmoid(self.network(z)).squeeze(-1)

    def log_rate(self) -> tuple[Tensor, Tensor]:
        """log Z and its standard error, nats.

        Every log p(z), and with it every datum's evidence, is off by the same amount: about the error, the other way.
        """
        z = torch.randn_like(self.fixed[:1].expand(self.draws, -1)) if self.training else self.fixed
        log_a = self.log_acceptance(z)
        log_rate = log_a.logsumexp(0) - math.log(len(z))
        error = (log_a - log_rate).exp().std() / math.sqrt(len(z))  # sd(a) / (sqrt(S) Z)
        return log_rate, error.detach()

    def forward(self) -> Distribution:
        proposal = dist.Normal(self.loc, self.scale).to_event(1)
        return Resampled(proposal, self.log_acceptance, self.log_rate()[0], self.truncation)
