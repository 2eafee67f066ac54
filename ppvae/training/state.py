"""The whole state of a fit as one value, with the generators that every draw comes from."""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ppvae.base import Story
from ppvae.compilation.adam import Adam
from ppvae.compilation.steps import Way
from ppvae.inference.program.traces import networks_of
from ppvae.training.optimizers import MakeOptimizer, optimizer_of


class Training:
    """The whole state of a fit: weights, optimiser, steps, and the generators that every draw comes from.

    `state_dict` and `load_state_dict` stop and continue a fit exactly: nothing random comes from anywhere else.

    Args:
        story: any object with `model` and `guide` that is, or holds, an `nn.Module`.
        lr: the optimiser's step size.
        seed: of the generators.
        optimizer: makes the optimiser of the parameters that learn, in groups if it likes.
    """

    def __init__(self, story: Story, lr: float = 1e-3, seed: int = 0, optimizer: MakeOptimizer = Adam):
        self.story: Any = story
        self.networks = networks_of(story)
        self.parameters = [parameter for parameter in self.networks.parameters() if parameter.requires_grad]
        if not self.parameters:
            raise ValueError("fit should have something to learn; no parameter of this story requires a gradient")
        self.optimizer = optimizer_of(optimizer, self.parameters, lr)
        self.epoch = 0
        self.way: Way | None = None  # of the steps, once `compile="auto"` has settled it
        self.order = torch.Generator().manual_seed(seed)  # of the batches
        with generators_of(None) as noise:  # of the guide's draws, dropout and fresh binarisation
            torch.manual_seed(seed)
        self.noise = noise

    def state_dict(self, over: Any = None) -> dict[str, Any]:
        """All of it, of copies.

        Args:
            over: an earlier one that nobody wants any more: its memory is used again.
        """
        over = {} if over is None else over
        return {
            "story": _copied(self.networks.state_dict(), over.get("story")),
            "optimizer": _copied(self.optimizer.state_dict(), over.get("optimizer")),
            "epoch": self.epoch,
            "way": self.way,
            "order": self.order.get_state(),
            "noise": list(self.noise),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.networks.load_state_dict(state["story"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.epoch = state["epoch"]
        self.way = state.get("way")
        self.order.set_state(state["order"])
        self.noise[:] = state["noise"]

    def set_rate(self, share: float) -> None:
        """Every group's step size, as a share of what it began with."""
        for group in self.optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * share


def _copied(value: Any, over: Any) -> Any:
    """A deep copy, its tensors over those of an earlier one where they fit."""
    if isinstance(value, dict):
        over = over if isinstance(over, dict) else {}
        return {key: _copied(part, over.get(key)) for key, part in value.items()}
    if isinstance(value, Tensor) and isinstance(over, Tensor):
        same = (value.shape, value.dtype, value.device) == (over.shape, over.dtype, over.device)
        return over.copy_(value) if same else value.detach().clone()
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)


def cosine(gone: float, epochs: int) -> float:
    """From 1 to 0 along half a wave. Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983

    >>> [round(cosine(gone, 10), 3) for gone in (0, 5, 10)]
    [1.0, 0.5, 0.0]
    """
    return 0.5 * (1 + math.cos(math.pi * gone / epochs))


def finite(parameters: Sequence[Tensor]) -> bool:
    """Whether every number is. A sum is, only if all of its terms are, and is quicker; but it may overflow.

    >>> finite([torch.full((2,), 3e38)]), finite([torch.tensor([math.inf, -math.inf])])
    (True, False)
    """
    return all(bool(p.sum().isfinite()) or bool(p.isfinite().all()) for p in parameters)


def generator_states() -> list[Tensor]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *cuda]


def set_generators(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])


@contextmanager
def generators_of(states: list[Tensor] | None) -> Iterator[list[Tensor]]:
    """Draw from a fit's own generators for a while; `states` is left where they got to, the global ones untouched."""
    outside = generator_states()
    mine = [] if states is None else states
    if mine:
        set_generators(mine)
    try:
        yield mine
    finally:
        mine[:] = generator_states()
        set_generators(outside)
