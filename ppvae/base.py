"""The contracts that hold the package together: five words as types, and no logic.

A part is an `nn.Module` whose call returns a Pyro distribution. Nothing inherits from these protocols:
anything that fits one works everywhere.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

Distribution: TypeAlias = TorchDistributionMixin
"""Any of Pyro's distributions."""

Batch: TypeAlias = Tensor | Sequence[Tensor]
"""Data for a story: one tensor `(batch, features)`, or several of equal length, passed as `model(*batch)`."""

Scalar: TypeAlias = float | Tensor
"""A number, or a 0-d tensor where it changes from step to step: an input of a compiled step, not a constant of it."""


class Prior(Protocol):
    """p(z): batch_shape `()`, event_shape `(latent,)`."""

    def __call__(self) -> Distribution: ...


class Likelihood(Protocol):
    """p(x | z): z `(..., latent)` to a distribution of batch_shape `(...)` and event_shape `(features,)`.

    An attribute `outputs` says how many network outputs it takes per observed element (1 where there is none). They
    lie side by side: first one for every element, then the next for every element.
    """

    def __call__(self, z: Tensor, /) -> Distribution: ...


class Encoder(Protocol):
    """q(z | x): x `(..., features)` to a distribution of batch_shape `(...)` and event_shape `(latent,)`.

    An attribute `outputs` says how many network outputs it takes per latent element (1 where there is none); a method
    `outputs(latent)` says how many in all.
    """

    def __call__(self, x: Tensor, /) -> Distribution: ...


class Architecture(Protocol):
    """A family of networks: what its members need beyond sizes are its own fields."""

    def encoder(self, shape: Sequence[int], outputs: int) -> nn.Module:
        """A network from data, `(..., features)` with features = prod(shape), to `(..., outputs)`."""
        ...

    def decoder(self, inputs: int, shape: Sequence[int], outputs: int) -> nn.Module:
        """A network from codes, `(..., inputs)`, to `(..., outputs * features)`, the outputs side by side."""
        ...


@runtime_checkable
class Story(Protocol):
    """The pair of Pyro programs. Both keep their data plate at dim -1 and leave dim -2 to the particles."""

    def model(self, *batch: Any, **options: Any) -> Any: ...

    def guide(self, *batch: Any, **options: Any) -> Any: ...


class Penalty(Protocol):
    """A term that an objective adds to the loss of a story: of x `(batch, features)` and z, nats per datum.

    It is a factor of the guide: log-weights, and every figure made of them, leave it out.
    """

    def __call__(self, story: Any, x: Tensor, z: Tensor, /) -> Tensor: ...


class Objective(Protocol):
    """What `fit` minimises: a scalar, the mean over the batch, in nats per datum."""

    def __call__(self, story: Story, data: Batch, /) -> Tensor: ...
