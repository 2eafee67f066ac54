"""Normalizing flows as Pyro distributions."""

from typing import Any, ClassVar

import torch
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import Distribution

_validate = Distribution._validate_args
import zuko  # noqa: E402  importing it turns the validation of every torch distribution off; here it comes back

Distribution.set_default_validate_args(_validate)

__all__ = ["Flow", "zuko"]


class Flow(ZukoToPyro):
    """log p(z) = log p_0(f(z)) + log |det df / dz| for a flow f of zuko's and its base p_0.

    Pyro's own wrapper, and what it leaves out: `sample`, `rsample` and a support. A flow has no mean in closed form.
    Its draws pass a gradient, through the inverse of f. Import zuko from here, not by itself: `import zuko` turns
    torch's validation of arguments and values off for the whole process.

    Args:
        dist: what a flow of zuko's returns, event_shape `(features,)`.

    >>> Flow(zuko.flows.NSF(2)()).expand([5]).rsample().shape
    torch.Size([5, 2])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.dist.rsample(torch.Size(sample_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.dist.sample(torch.Size(sample_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Flow":
        return Flow(self.dist.expand(torch.Size(batch_shape)))
