"""Normalizing flows made for drawing: one pass to a draw and its density."""

from typing import Any

import numpy as np
import torch
from torch import Size, Tensor

from ppvae.distributions.flow import Flow, zuko


class GuideFlow(Flow):
    """z = f(e), e ~ N(0, I), with log q(z) = log N(e; 0, I) - log |det df / de| kept for its own draws.

    The density of any other point takes the inverse of f: for an autoregressive f as many passes as dimensions.

    Args:
        transforms: f, as transforms of the base's draws, first to last.
        like: `(..., dim)`, of the batch shape, dtype and device of the draws.

    >>> q = GuideFlow([zuko.transforms.IdentityTransform()], like=torch.zeros(5, 2))
    >>> z = q.rsample()
    >>> torch.allclose(q.log_prob(z), q.log_prob(z.clone()))
    True
    """

    dist: Any  # zuko's

    def __init__(self, transforms: Any, like: Tensor):
        base = zuko.distributions.DiagNormal(torch.zeros_like(like), torch.ones_like(like))
        super().__init__(zuko.distributions.NormalizingFlow(zuko.transforms.ComposedTransform(*transforms).inv, base))

    @property
    def event_shape(self) -> Size:
        shape: Size = self.dist.base.event_shape  # an affine transform would add its own batch shape
        return shape

    def expand(self, batch_shape: Any, _instance: Any = None) -> "GuideFlow":
        new = GuideFlow.__new__(GuideFlow)
        Flow.__init__(new, self.dist.expand(Size(batch_shape)))
        return new

    def rsample(self, sample_shape: Any = Size()) -> Tensor:
        draws: Tensor = self(sample_shape)
        return draws

    def sample(self, sample_shape: Any = Size()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        known: Tensor | None = self.cache.get(value)
        if known is not None and (known.requires_grad or not torch.is_grad_enabled()):
            return known
        log_q: Tensor = self.dist.log_prob(value)  # a draw made without gradients says nothing of them
        return log_q

    @property
    def mean(self) -> Tensor:
        """By Monte Carlo over 256 fixed draws of e, the same for every datum: a flow has no mean in closed form.

        They come in pairs e, -e, so the mean of a flow that is affine is exact.
        """
        noise = torch.from_numpy(np.random.default_rng(0).standard_normal((128, *self.event_shape)))
        like = torch.zeros_like(self.dist.base.mean)
        noise = torch.cat([noise, -noise]).to(like).reshape(-1, *[1] * len(self.batch_shape), *self.event_shape)
        total = like
        for e in noise.split(16):  # so many times the memory of one draw
            total = total + self.dist.transform.inv(e + like).sum(0)
        return total / len(noise)
