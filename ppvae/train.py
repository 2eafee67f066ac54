"""fit(): one loop for every story and objective. It knows neither Pyro nor any model."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ppvae.base import Batch, Objective, Story
from ppvae.inference.checks import check_data, check_parameters, hot_loop, not_finite
from ppvae.inference.objectives import elbo
from ppvae.inference.programs import evaluating, networks_of, placed
from ppvae.progress import track

Transform = Callable[[Tensor], Tensor]


class NotFinite(ValueError):
    """The loss or a parameter stopped being a finite number; the story holds the last good parameters."""


@dataclass(frozen=True)
class Epoch:
    """One line of the history."""

    epoch: int  # from 1
    loss: float  # mean over the epoch's batches, nats per datum
    valid: float | None  # the objective on the validation data after the epoch, nats per datum
    seconds: float


@dataclass
class History:
    """What `fit` returns: one record per epoch."""

    epochs: list[Epoch] = field(default_factory=list)

    @property
    def loss(self) -> list[float]:
        return [epoch.loss for epoch in self.epochs]

    @property
    def valid(self) -> list[float | None]:
        return [epoch.valid for epoch in self.epochs]

    @property
    def seconds(self) -> float:
        return sum(epoch.seconds for epoch in self.epochs)


class Training:
    """The whole state of a fit: weights, optimiser, steps, and the generators that every draw comes from.

    `state_dict` and `load_state_dict` stop and continue a fit exactly: nothing random comes from anywhere else.
    """

    def __init__(self, story: Story, lr: float = 1e-3, seed: int = 0):
        self.story: Any = story
        self.networks = networks_of(story)
        self.parameters = [parameter for parameter in self.networks.parameters() if parameter.requires_grad]
        if not self.parameters:
            raise ValueError("fit should have something to learn; no parameter of this story requires a gradient")
        self.optimizer = torch.optim.Adam(self.parameters, lr=lr, fused=True)
        self.epoch = 0
        self.order = torch.Generator().manual_seed(seed)  # of the batches
        with _generators_of(None) as noise:  # of the guide's draws, dropout and fresh binarisation
            torch.manual_seed(seed)
        self.noise = noise

    def state_dict(self) -> dict[str, Any]:
        return {
            "story": copy.deepcopy(self.networks.state_dict()),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "epoch": self.epoch,
            "order": self.order.get_state(),
            "noise": list(self.noise),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.networks.load_state_dict(state["story"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.epoch = state["epoch"]
        self.order.set_state(state["order"])
        self.noise[:] = state["noise"]


def fit(
    story: Story,
    data: Batch,
    *,
    objective: Objective = elbo,
    epochs: int = 100,
    batch_size: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
    valid: Batch | None = None,
    transform: Transform | None = None,
    progress: bool = True,
) -> History:
    """Fit every trainable parameter of a story by Adam on an objective, and leave it in evaluation mode.

    Args:
        story: any object with `model` and `guide` that is, or holds, an `nn.Module`; its parameters decide the device.
        data: `(N, features)`, or a tuple of tensors of equal length for `model(*data)`.
        objective: `(story, batch)` to a scalar loss, nats per datum; give it arguments with `functools.partial`.
        epochs: passes over the data.
        batch_size: rows per step; the last batch of a pass may be smaller.
        lr: Adam's step size.
        seed: of everything random in the fit; torch's global generators are left as they were.
        valid: data on which the objective is evaluated after every epoch, with the same noise each time.
        transform: applied to every training batch's first tensor: `Dataset.resample`, for fresh binarisation.
        progress: whether to show a bar.

    Returns:
        History: per epoch the training and the validation loss, nats per datum, and the seconds.

    Raises:
        ValueError: data outside the likelihood's support, not finite or of the wrong shape; options out of range.
        NotFinite: a loss that is not finite; the story keeps the last good parameters.
    """
    training = begin(story, lr, seed)
    history = History()
    records = run(training, data, objective, epochs, batch_size, valid, transform)
    for record in track(records, "fit", total=epochs, show=progress):
        history.epochs.append(record)
    return history


def learns(story: Story) -> bool:
    """Whether a story has anything to learn: one that is solved in closed form has not."""
    return any(parameter.requires_grad for parameter in networks_of(story).parameters())


def begin(story: Any, lr: float = 1e-3, seed: int = 0) -> Training:
    """The state of a fit before its first step."""
    if isinstance(story, type) or not isinstance(story, Story):
        kind = story.__name__ if isinstance(story, type) else type(story).__name__
        raise ValueError(f"a story to fit should be an object with model and guide, got {kind}")
    if not 0 < lr < math.inf:
        raise ValueError(f"lr should be positive and finite, got {lr}")
    return Training(story, lr, seed)


def run(
    training: Training,
    data: Batch,
    objective: Objective,
    epochs: int,
    batch_size: int,
    valid: Batch | None = None,
    transform: Transform | None = None,
) -> Iterator[Epoch]:
    """Train for `epochs` more epochs, yielding a record after each. Between two of them the caller may do anything."""
    for option, value in {"epochs": epochs, "batch_size": batch_size}.items():
        if value < 1:
            raise ValueError(f"{option} should be at least 1, got {value}")
    story: Any = training.story
    batch = placed(story, data)
    held_out = None if valid is None else placed(story, valid)
    with _generators_of(list(training.noise)):
        check_data(story, _transformed(batch, transform))
        check_parameters(story, batch)
        if held_out is not None:
            check_data(story, held_out)
    for _ in range(epochs):
        start = time.perf_counter()
        before = training.state_dict()
        try:
            loss = _pass(training, batch, objective, batch_size, transform)
        except BaseException:  # stopped by hand, or by the objective: an epoch is done whole or not at all
            training.load_state_dict(before)
            raise
        if not math.isfinite(loss) or not _finite(training.parameters):
            training.load_state_dict(before)
            _find_not_finite(training, batch, objective, batch_size, transform)
        training.networks.eval()
        valid_loss = None if held_out is None else _validate(story, held_out, objective)
        yield Epoch(training.epoch, loss, valid_loss, time.perf_counter() - start)


def assess(story: Any, data: Batch, objective: Objective, valid: Batch) -> Epoch:
    """The record of a story that has nothing to learn: what the objective says of it."""
    start = time.perf_counter()
    losses = [_validate(story, placed(story, split), objective) for split in (data, valid)]
    return Epoch(0, losses[0], losses[1], time.perf_counter() - start)


def _pass(
    training: Training,
    batch: tuple[Tensor, ...],
    objective: Objective,
    batch_size: int,
    transform: Transform | None,
) -> float:
    """One epoch; its mean loss. Nothing is read back from the device before the end."""
    total = torch.zeros((), device=batch[0].device)
    training.networks.train()
    with _generators_of(training.noise), hot_loop():
        for rows in _batches(training, len(batch[0]), batch_size):
            total += _step(training, _rows(batch, rows, transform), objective) * len(rows)
    training.epoch += 1
    return total.item() / len(batch[0])


def _batches(training: Training, data: int, batch_size: int) -> tuple[Tensor, ...]:
    device = training.parameters[0].device
    return torch.randperm(data, generator=training.order).to(device).split(batch_size)


def _rows(batch: tuple[Tensor, ...], rows: Tensor, transform: Transform | None) -> tuple[Tensor, ...]:
    return _transformed(tuple(part[rows] for part in batch), transform)


def _transformed(batch: tuple[Tensor, ...], transform: Transform | None) -> tuple[Tensor, ...]:
    return batch if transform is None else (transform(batch[0]), *batch[1:])


def _step(training: Training, batch: tuple[Tensor, ...], objective: Objective) -> Tensor:
    loss = objective(training.story, batch)
    training.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    training.optimizer.step()
    return loss.detach()


@torch.no_grad()
def _validate(story: Story, batch: tuple[Tensor, ...], objective: Objective) -> float:
    total = 0.0
    with evaluating(story), _generators_of(None), hot_loop():
        torch.manual_seed(0)  # the same noise after every epoch: a curve without its jitter
        for parts in zip(*(part.split(1024) for part in batch), strict=True):
            total += objective(story, parts).item() * len(parts[0])
    return total / len(batch[0])


def _find_not_finite(
    training: Training,
    batch: tuple[Tensor, ...],
    objective: Objective,
    batch_size: int,
    transform: Transform | None,
) -> None:
    """Repeat the epoch step by step, up to the step that breaks; stop before it and say where it broke."""
    epoch = training.epoch + 1
    with _generators_of(training.noise), hot_loop():
        for step, rows in enumerate(_batches(training, len(batch[0]), batch_size), start=1):
            before = training.state_dict()
            noise = _generator_states()
            part = _rows(batch, rows, transform)
            loss = _step(training, part, objective)
            if torch.isfinite(loss) and _finite(training.parameters):
                continue
            gradients = [
                n for n, p in training.networks.named_parameters() if p.grad is not None and not _finite([p.grad])
            ]
            training.load_state_dict(before)
            _set_generators(noise)
            if torch.isfinite(loss):
                what = f"the gradient of {gradients[0] if gradients else 'a parameter'} is not finite"
            else:
                what = f"the loss is {loss.item()} at {not_finite(training.story, _rows(batch, rows, transform))}"
            raise NotFinite(
                f"{what} in epoch {epoch}, step {step}; the story keeps the last good parameters "
                "(a smaller lr, or data scaled to values near 1, may help)"
            )
    raise NotFinite(f"the loss was not finite in epoch {epoch}, and was finite when the epoch was repeated")


def _finite(parameters: Sequence[Tensor]) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in parameters)


def _generator_states() -> list[Tensor]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *cuda]


def _set_generators(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])


@contextmanager
def _generators_of(states: list[Tensor] | None) -> Iterator[list[Tensor]]:
    """Draw from a fit's own generators for a while; `states` is left where they got to, the global ones untouched."""
    outside = _generator_states()
    mine = [] if states is None else states
    if mine:
        _set_generators(mine)
    try:
        yield mine
    finally:
        mine[:] = _generator_states()
        _set_generators(outside)
