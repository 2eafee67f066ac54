"""Missing values: likelihoods that score what is observed, and nothing of the rest.

A batch is `(x, mask)`, with `mask` of x's shape and true where x is observed. The evidence is then that of the observed
values alone, log p(x_observed) = log of the integral of p(z) prod_{observed i} p(x_i | z): right whenever values are
missing at random, whatever stands in their places. The guide sees zeros there. Mattei & Frellsen 2019,
https://arxiv.org/abs/1812.02633
"""

import torch
from pyro.distributions import Independent
from torch import Tensor

from ppvae.base import Distribution, optional
from ppvae.distributions.observed import Observed


def observed(distribution: Distribution, mask: Tensor) -> Distribution:
    """The distribution that scores only the elements where `mask` is true; its draws and its mean are of all of them.

    Args:
        distribution: event_shape `(features,)`, its elements independent: it ends in `.to_event(1)`.
        mask: `(batch, features)`, booleans; it broadcasts over particles.

    Raises:
        ValueError: elements that are not independent, so that leaving some out is an integral.

    >>> normal = pyro.distributions.Normal(torch.zeros(5, 2), 1).to_event(1)
    >>> observed(normal, torch.tensor([True, False])).log_prob(torch.tensor([0.0, torch.nan]))[0]
    tensor(-0.9189)
    """
    if not (isinstance(distribution, Independent) and distribution.base_dist.event_dim == 0):
        raise ValueError(
            "a likelihood of data with missing values should have independent elements given z, and end with "
            f".to_event(1); this one is {type(distribution).__name__}"
        )
    elements = distribution.base_dist
    if optional(elements, "observed") is not None:
        elements = elements.observed(mask)
    return Observed(elements, mask).to_event(1)


def masked(x: Tensor) -> tuple[Tensor, Tensor]:
    """Data with nan for what is missing, as a batch: x with zeros instead, and the mask of what is observed.

    >>> masked(torch.tensor([[1.0, torch.nan]]))
    (tensor([[1., 0.]]), tensor([[ True, False]]))
    """
    mask = ~x.isnan()
    return zeros_where_missing(x, mask), mask


def zeros_where_missing(x: Tensor, mask: Tensor) -> Tensor:
    """x with zeros where `mask` is false, whatever was there.

    Raises:
        ValueError: a mask of another shape than x.
    """
    if mask.shape != x.shape:
        lengths = "; lengths are for the story `sequence`" if mask.dim() == 1 else ""
        raise ValueError(
            f"mask should have the shape of x, {tuple(x.shape)}, got {tuple(mask.shape)}: a batch is (x, mask) or "
            f"(x, mask, library), the mask true where x is observed{lengths}"
        )
    return torch.where(mask.bool(), x, 0)
