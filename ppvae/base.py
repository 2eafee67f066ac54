"""The contracts that hold the package together: five words as types, what each may say beside, and who reads it.

A part is an `nn.Module` whose call returns a Pyro distribution. Nothing inherits from these protocols:
anything that fits one works everywhere.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

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
    """p(x | z): z `(..., latent)` to a distribution of batch_shape `(...)` and event_shape `(features,)`."""

    def __call__(self, z: Tensor, /) -> Distribution: ...


class Encoder(Protocol):
    """q(z | x): x `(..., features)` to a distribution of batch_shape `(...)` and event_shape `(latent,)`."""

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


class StoryModule(nn.Module):
    """What type checkers see of a story that a file made: a `Story` and a module. No class inherits from it."""

    def model(self, *batch: Any, **options: Any) -> Any:
        raise NotImplementedError

    def guide(self, *batch: Any, **options: Any) -> Any:
        raise NotImplementedError

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Its parts: which there are is said by the file."""


class Penalty(Protocol):
    """A term that an objective adds to the loss of a story: of x `(batch, features)` and z, nats per datum.

    It is a factor of the guide: log-weights, and every figure made of them, leave it out.
    """

    def __call__(self, story: Any, x: Tensor, z: Tensor, /) -> Tensor: ...


class Objective(Protocol):
    """What `fit` minimises: a scalar, the mean over the batch, in nats per datum."""

    def __call__(self, story: Story, data: Batch, /) -> Tensor: ...


# --- what a story or a part may say beside; `optional` asks, and knows what is meant where nothing is said


class WithSeen(Protocol):
    """A story that changes its batch before it runs, as one with missing values does; every run of a program asks."""

    def seen(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """The batch as the programs see it. Two that differ only where a value is missing are the same one here."""
        ...


class WithScores(Protocol):
    """A story whose figures are not of p(x); every saved figure and every comparison asks."""

    scores: str  # such as "p(x | labels)"


class WithLibrary(Protocol):
    """A likelihood, or its story, that takes the total count of every row beside z; who makes a batch asks."""

    library: bool


class WithPrior(Protocol):
    """A story whose prior may be fitted to its codes afterwards: `evaluation.scoring` asks."""

    prior: Prior
    prior_site: str  # the latent that it is of; "z" where nothing is said
    given: bool  # whether the prior takes labels, so that none can be put in its place


class WithLabels(Protocol):
    """A story of labels that can do without them; measures of its codes ask."""

    labels_may_miss: bool


class WithOutputs(Protocol):
    """A part that takes more than one network output an element, side by side; who sizes its network asks.

    A likelihood says how many for each observed element; an encoder for each latent one, or, by a method, in all.
    """

    outputs: int | Callable[[int], int]


class WithOutputBias(Protocol):
    """A likelihood that says where its network's output should start; `--output_bias` asks."""

    def output_bias(self, x: Tensor) -> Tensor:
        """From data `(rows, features)` to `(outputs * features,)`."""
        ...


class WithObserved(Protocol):
    """A distribution that is fitted to what it scores, and so to the observed part alone; a mask asks."""

    def observed(self, mask: Tensor) -> Distribution: ...


UNSAID: dict[str, Any] = {
    "seen": None,
    "scores": "",
    "library": False,
    "prior": None,
    "prior_site": "z",
    "given": False,
    "labels_may_miss": False,
    "outputs": 1,
    "output_bias": None,
    "observed": None,
}
"""What is meant where a story or a part says nothing."""


def optional(holder: Any, name: str) -> Any:
    """What a story, a part or a distribution says of itself by an attribute of the protocols above.

    >>> optional(object(), "prior_site"), optional(object(), "outputs")
    ('z', 1)
    """
    return getattr(holder, name, UNSAID[name])
