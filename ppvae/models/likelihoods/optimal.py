"""The Normal likelihood whose variance needs no gradient."""

import torch
from torch import Tensor, nn

from ppvae.base import Distribution
from ppvae.distributions import optimal_normal
from ppvae.models import checks


class OptimalNormal(nn.Module):
    """p(x | z) = N(x; network(z), c I) with c the mean squared residual: a density.

    In training mode c is that of the batch being scored, over all its data, particles and observed elements: given the
    means, the variance of highest likelihood, without a step size of its own. It is held fixed in the gradient, where
    it makes no difference to an ELBO's. A running mean of the batches' c is kept in the buffer `variance`, and in
    evaluation mode, which `fit` leaves and every estimator sets, p(x | z) is the Normal of that one variance: a density
    that does not depend on what it is scored with, so its figures are those of any other likelihood. Rybkin et al.
    2021, https://arxiv.org/abs/2006.13202

    Args:
        network: `(..., latent)` to `(..., features)`, the mean.
        variance: c until the first batch has been scored in training.
        momentum: weight of the latest batch in the running mean, 0 to 1; the first batches are averaged.

    >>> likelihood = OptimalNormal(torch.nn.Identity())
    >>> _ = likelihood(torch.zeros(4, 1)).log_prob(torch.tensor([[1.0], [-1.0], [3.0], [-3.0]]))
    >>> likelihood.eval()(torch.zeros(1)).variance
    tensor([5.])
    """

    outputs = 1
    variance: Tensor
    batches: Tensor

    def __init__(self, network: nn.Module, variance: float = 1.0, momentum: float = 0.02):
        super().__init__()
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum should be above 0 and at most 1, got {momentum}")
        self.network = network
        self.momentum = momentum
        self.register_buffer("variance", torch.tensor(checks.positive("variance", variance)))
        self.register_buffer("batches", torch.tensor(0.0))

    def forward(self, z: Tensor) -> Distribution:
        fit = self._fit if self.training else None
        return optimal_normal.OptimalNormal(self.network(z), self.variance, fit).to_event(1)

    def output_bias(self, x: Tensor) -> Tensor:
        """The mean of x."""
        return x.mean(0)

    def _fit(self, square: Tensor, mask: Tensor | None) -> Tensor:
        """The mean of the squared residuals that count, and the running mean moved towards it."""
        count = torch.ones_like(square) if mask is None else mask.expand_as(square).to(square)
        latest = (square * count).sum() / count.sum()
        latest = torch.where(latest.isfinite(), latest, self.variance)  # nothing observed; or a fit about to be stopped
        latest = latest.clamp_min(torch.finfo(square.dtype).tiny ** 0.5)
        self.batches += 1
        self.variance.lerp_(latest, (1 / self.batches).clamp_min(self.momentum))
        return latest
