"""What a fit leaves behind, epoch by epoch, and what its objective says of data that it does not learn from."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from ppvae.base import Batch, Objective, Story
from ppvae.inference.program.answers import Answer
from ppvae.inference.program.checks import hot_loop
from ppvae.inference.program.traces import evaluating, placed
from ppvae.training.state import generators_of


@dataclass(frozen=True)
class Epoch:
    """One line of the history."""

    epoch: int  # from 1
    loss: float  # mean over the epoch's batches, nats per datum
    valid: float | None  # the objective on the validation data after the epoch, nats per datum
    seconds: float


@dataclass
class History(Answer):
    """What `fit` returns: one record per epoch."""

    epochs: list[Epoch] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Where the fit ended; losses in nats per datum."""
        if not self.epochs:
            return {"epochs": 0, "loss": math.nan, "valid": None, "seconds": 0.0}
        last = self.epochs[-1]
        return {"epochs": last.epoch, "loss": last.loss, "valid": last.valid, "seconds": self.seconds}

    def columns(self) -> dict[str, Sequence[Any]]:
        """A row for each epoch."""
        return {each.name: [getattr(epoch, each.name) for epoch in self.epochs] for each in fields(Epoch)}

    @property
    def loss(self) -> list[float]:
        return [epoch.loss for epoch in self.epochs]

    @property
    def valid(self) -> list[float | None]:
        return [epoch.valid for epoch in self.epochs]

    @property
    def seconds(self) -> float:
        return sum(epoch.seconds for epoch in self.epochs)


def assess(story: Any, data: Batch, objective: Objective, valid: Batch) -> Epoch:
    """The record of a story that has nothing to learn: what the objective says of it."""
    start = time.perf_counter()
    losses = [validate(story, placed(story, split), objective) for split in (data, valid)]
    return Epoch(0, losses[0], losses[1], time.perf_counter() - start)


@torch.no_grad()
def validate(story: Story, batch: tuple[Tensor, ...], objective: Objective) -> float:
    """What the objective says of data, nats per datum, of a story in evaluation mode; without gradients."""
    total = 0.0
    with evaluating(story), generators_of(None), hot_loop():
        torch.manual_seed(0)  # the same noise after every epoch: a curve without its jitter
        for parts in zip(*(part.split(1024) for part in batch), strict=True):
            total += objective(story, parts).item() * len(parts[0])
    return total / len(batch[0])
