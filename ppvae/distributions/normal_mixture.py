"""Mixtures of Normals whose draws pass a gradient."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Size, Tensor


class NormalMixture(dist.MixtureSameFamily):
    """sum_k pi_k N(z; m_k, diag s_k^2), with draws that pass a gradient to pi, m and s.

    With F_d the distribution of z_d given z_1 ... z_{d-1}, the uniform F_d(z_d) stays as it is when a parameter moves,
    so dz_d = -dF_d / p(z_d | z_1 ... z_{d-1}), one dimension after another. Figurnov et al. 2018,
    https://arxiv.org/abs/1805.08498. Pyro's `MixtureOfDiagNormals` has another such gradient, but no mean, needs two
    dimensions or more, and gives nan where two components have one mean.

    Args:
        logits: of the weights pi, `(..., components)`.
        loc: m, `(..., components, dim)`.
        scale: s, `(..., components, dim)`.

    >>> NormalMixture(torch.zeros(2), torch.tensor([[-1.0], [3.0]]), torch.ones(2, 1)).mean
    tensor([1.])
    """

    has_rsample = True

    def __init__(self, logits: Tensor, loc: Tensor, scale: Tensor, validate_args: bool | None = None):
        weights = dist.Categorical(logits=logits, validate_args=validate_args)
        components = dist.Normal(loc, scale, validate_args=validate_args).to_event(1)
        self.logits, self.loc, self.scale = weights.logits, loc, scale
        super().__init__(weights, components, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "NormalMixture":
        shape = Size(batch_shape)
        return NormalMixture(
            self.logits.expand(*shape, -1),
            self.loc.expand(shape + self.loc.shape[-2:]),
            self.scale.expand(shape + self.scale.shape[-2:]),
            validate_args=self._validate_args,
        )

    def rsample(self, sample_shape: Any = Size()) -> Tensor:
        log_joint = self.logits  # log pi_k p_k(z_1 ... z_{d-1})
        moved: list[Tensor] = []
        for value, loc, scale in zip(
            self.sample(sample_shape).unbind(-1), self.loc.unbind(-1), self.scale.unbind(-1), strict=True
        ):
            weights = log_joint.softmax(-1)
            cdf, density = _conditional(value.unsqueeze(-1), weights, loc, scale)
            moved.append(value - (cdf - cdf.detach()) / density.detach())
            log_joint = log_joint + dist.Normal(loc, scale, validate_args=False).log_prob(moved[-1].unsqueeze(-1))
        return torch.stack(moved, dim=-1)


def _conditional(value: Tensor, weights: Tensor, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """F and its density in one dimension; F less 1 in the upper half, where it has more digits."""
    u = (value - loc) / scale
    upper = (weights * torch.special.ndtr(u)).sum(-1, keepdim=True) > 0.5
    cdf = torch.where(upper, -torch.special.ndtr(-u), torch.special.ndtr(u))
    density = (weights * dist.Normal(loc, scale, validate_args=False).log_prob(value).exp()).sum(-1)
    return (weights * cdf).sum(-1), density.clamp_min(torch.finfo(value.dtype).tiny)
