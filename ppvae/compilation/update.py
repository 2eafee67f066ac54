"""What follows the gradients of a step: they are clipped, and the optimiser moves the parameters."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from ppvae.compilation.adam import BESIDE, Adam, Operators, has_operators


class Update:
    """A step of an optimiser, by what `.grad` holds.

    Args:
        optimizer: any of torch's.
        parameters: those that learn.
        clip: largest norm that the gradient may have, that of all parameters together; any, where it is not given.
    """

    def __init__(self, optimizer: Optimizer, parameters: Sequence[Tensor], clip: float | None = None):
        self.optimizer, self.parameters, self.clip = optimizer, parameters, clip

    def __call__(self) -> None:
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()

    def operators(self, reached: Sequence[Tensor]) -> Operators | None:
        """The same as the end of a graph, of the parameters that have a gradient; none, where it has to be called."""
        if isinstance(self.optimizer, Adam) and has_operators(self.optimizer, reached):
            return Operators(self.optimizer, reached, self.clip)
        return None

    def settings(self) -> tuple[str, ...]:
        """What a graph holds as constants, beside the clip: as text, for betas may be a list."""
        names = ("betas", "eps", *BESIDE)
        return tuple(repr(group.get(name)) for group in self.optimizer.param_groups for name in names)
