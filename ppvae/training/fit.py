"""fit(): one loop for every story and objective. It knows neither Pyro nor any model."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ppvae.base import Batch, Objective, Story
from ppvae.compilation.adam import Adam
from ppvae.compilation.steps import Compile, Steps
from ppvae.compilation.update import Update
from ppvae.inference.objectives import elbo
from ppvae.inference.objectives.warming import warmed
from ppvae.inference.program.checks import check_data, check_parameters, hot_loop, not_finite
from ppvae.inference.program.traces import networks_of, placed
from ppvae.progress import console, track
from ppvae.training.batches import Memory, Source, Stream
from ppvae.training.history import Epoch, History, validate
from ppvae.training.optimizers import MakeOptimizer
from ppvae.training.state import (
    Training,
    cosine,
    finite,
    generator_states,
    generators_of,
    set_generators,
)

Transform = Callable[[Tensor], Tensor]
Data = Batch | Stream | Dataset[Any]
Schedule = Literal["constant", "cosine"]


class NotFinite(ValueError):
    """The loss or a parameter stopped being a finite number; the story holds the last good parameters."""


@dataclass
class Course:
    """What does not change from epoch to epoch."""

    training: Training
    source: Source
    steps: Steps
    batch_size: int
    batch: Callable[..., tuple[Tensor, ...]]  # of a batch's tensors, transformed
    epochs: int  # there will be, those before a stop included
    schedule: Schedule
    look: Callable[..., None] | None  # at the tensors of a batch, where nobody has checked all rows before


def fit(
    story: Story,
    data: Data,
    *,
    objective: Objective = elbo,
    epochs: int = 100,
    batch_size: int = 128,
    lr: float = 1e-3,
    optimizer: MakeOptimizer = Adam,
    seed: int = 0,
    warm_up: int = 0,
    clip: float | None = None,
    schedule: Schedule = "constant",
    compile: Compile = "auto",
    valid: Batch | None = None,
    transform: Transform | None = None,
    progress: bool = True,
) -> History:
    """Fit every trainable parameter of a story on an objective, by Adam or another optimiser: it ends in eval mode.

    Args:
        story: any object with `model` and `guide` that is, or holds, an `nn.Module`; its parameters decide the device.
        data: `(N, features)`, or a tuple of tensors of equal length for `model(*data)`; a `torch.utils.data.Dataset` of
            rows, or a `Stream` of one, where they do not fit into memory.
        objective: `(story, batch)` to a scalar loss, nats per datum; give it arguments with `functools.partial`.
        epochs: passes over the data.
        batch_size: rows per step; the last batch of a pass may be smaller.
        lr: the optimiser's step size.
        optimizer: `(parameters, lr)` to an optimiser: a class of `torch.optim`, such as `torch.optim.AdamW`; give it
            arguments with `functools.partial(torch.optim.SGD, momentum=0.9)`. Its step is torch's own; that of Adam,
            where none is given, is the same in less time, and a part of the compiled step.
        seed: of everything random in the fit; torch's global generators are left as they were.
        warm_up: epochs over which the objective's beta rises from 0, a little every step; 0 for none.
        clip: largest norm that the gradient may have, that of all parameters together; any, where it is not given.
        schedule: of the step size: `constant`, or `cosine`, which lets it fall to 0 along half a wave.
        compile: `auto` compiles the step where that is estimated to save more time than it takes, as only longer fits
            do; or `always`, or `never`. The story then runs a few times as Python, of which the last is what the first
            step is checked against, and its operators are repeated: what it should do beside them (printing, keeping a
            list) needs `never`.
        valid: data on which the objective is evaluated after every epoch, with the same noise each time.
        transform: applied to every training batch's first tensor: `Dataset.resample`, for fresh binarisation.
        progress: whether to show a bar, and to say in one line whether a longer fit is compiled, and why.

    Returns:
        History: per epoch the training and the validation loss, nats per datum, and the seconds.

    Raises:
        ValueError: data outside the likelihood's support, not finite or of the wrong shape; options out of range; an
            optimiser that cannot be made; a warm-up longer than the fit, or of an objective without beta.
        NotFinite: a loss that is not finite; the story keeps the last good parameters.
    """
    training = begin(story, lr, seed, optimizer)
    history = History()
    given = (objective, epochs, batch_size, valid, transform, warm_up, clip, schedule, compile, progress)
    records = run(training, data, *given)
    for record in track(records, "fit", total=epochs, show=progress):
        history.epochs.append(record)
    return history


def learns(story: Story) -> bool:
    """Whether a story has anything to learn: one that is solved in closed form has not."""
    return any(parameter.requires_grad for parameter in networks_of(story).parameters())


def begin(story: Any, lr: float = 1e-3, seed: int = 0, optimizer: MakeOptimizer = Adam) -> Training:
    """The state of a fit before its first step.

    Args:
        story: any object with `model` and `guide` that is, or holds, an `nn.Module`.
        lr: the optimiser's step size.
        seed: of everything random in the fit.
        optimizer: `(parameters, lr)` to an optimiser of the parameters that learn, in several groups if it likes.
    """
    if isinstance(story, type) or not isinstance(story, Story):
        kind = story.__name__ if isinstance(story, type) else type(story).__name__
        raise ValueError(f"a story to fit should be an object with model and guide, got {kind}")
    if not 0 < lr < math.inf:
        raise ValueError(f"lr should be positive and finite, got {lr}")
    return Training(story, lr, seed, optimizer)


def run(
    training: Training,
    data: Data,
    objective: Objective,
    epochs: int,
    batch_size: int,
    valid: Batch | None = None,
    transform: Transform | None = None,
    warm_up: int = 0,
    clip: float | None = None,
    schedule: Schedule = "constant",
    compile: Compile = "auto",
    say: bool = False,
) -> Iterator[Epoch]:
    """Train for `epochs` more epochs, yielding a record after each. Between two of them the caller may do anything.

    A warm-up and a schedule count from the training's first epoch. What was stopped goes on as `compile` chose before.
    """
    for option, value in {"epochs": epochs, "batch_size": batch_size}.items():
        if value < 1:
            raise ValueError(f"{option} should be at least 1, got {value}")
    if clip is not None and not 0 < clip < math.inf:
        raise ValueError(f"clip should be positive and finite, got {clip}")
    if schedule not in get_args(Schedule):
        raise ValueError(f"schedule should be {' or '.join(get_args(Schedule))}, got {schedule}")
    at = warmed(objective, warm_up, training.epoch + epochs)
    story: Any = training.story
    source = _source(story, data)
    held_out = None if valid is None else placed(story, valid)

    def batch(*given: Tensor) -> tuple[Tensor, ...]:
        return _transformed(source.batch(*given), transform)

    def loss(gone: Tensor, *given: Tensor) -> Tensor:
        return at(gone)(story, batch(*given))

    def look(*given: Tensor) -> None:
        try:
            with generators_of(None):
                check_data(story, batch(*given))
        except ValueError as error:
            raise ValueError(f"in a batch of the stream, {error}") from error

    with generators_of(list(training.noise)):
        sample = placed(story, source.sample())
        check_data(story, _transformed(sample, transform))
        check_parameters(story, sample)
        if held_out is not None:
            check_data(story, held_out)
    left = epochs * math.ceil(len(source) / batch_size)
    tell = partial(console.print, highlight=False, soft_wrap=True) if say else None
    update = Update(training.optimizer, training.parameters, clip)
    steps = Steps(loss, training.networks, compile, left, training.way, tell, update=update)
    total = training.epoch + epochs
    unchecked = look if isinstance(source, Stream) else None
    course = Course(training, source, steps, min(batch_size, len(source)), batch, total, schedule, unchecked)
    before = None
    for _ in range(epochs):
        start = time.perf_counter()
        before = training.state_dict(over=before)
        try:
            mean = _pass(course)
        except BaseException:  # stopped by hand, or by the objective: an epoch is done whole or not at all
            training.load_state_dict(before)
            raise
        if not math.isfinite(mean) or not finite(training.parameters):
            training.load_state_dict(before)
            _find_not_finite(course)
        training.networks.eval()
        valid_loss = None if held_out is None else validate(story, held_out, objective)
        yield Epoch(training.epoch, mean, valid_loss, time.perf_counter() - start)


def _source(story: Story, data: Data) -> Source:
    if isinstance(data, Stream):
        return data
    return Stream(data) if isinstance(data, Dataset) else Memory(placed(story, data))


def _transformed(batch: tuple[Tensor, ...], transform: Transform | None) -> tuple[Tensor, ...]:
    return batch if transform is None else (transform(batch[0]), *batch[1:])


def _pass(course: Course) -> float:
    """One epoch; its mean loss. Nothing is read back from the device before the end."""
    training, losses, counts = course.training, [], []
    with generators_of(training.noise), hot_loop():
        for rows, given in _batches(course):
            if course.look is not None:
                course.look(*given[1:])
            losses.append(course.steps(*given, whole=rows == course.batch_size))
            counts.append(rows)
    training.epoch += 1
    training.way, course.look = course.steps.way, None
    values = torch.stack(losses).tolist()
    return sum(value * rows for value, rows in zip(values, counts, strict=True)) / len(course.source)


def _batches(course: Course) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """Of every batch of an epoch its rows and the loss's tensors: the first is how many epochs have gone by before."""
    training, device = course.training, course.training.parameters[0].device
    training.networks.train()
    course.steps.gradients.refresh()
    count = math.ceil(len(course.source) / course.batch_size)
    gone = (training.epoch + torch.arange(count, device=device) / count).unbind()
    for place, (rows, given) in enumerate(course.source.epoch(training.order, course.batch_size, device)):
        if course.schedule == "cosine":
            training.set_rate(cosine(training.epoch + place / count, course.epochs))
        yield rows, (gone[place], *given)


def _find_not_finite(course: Course) -> None:
    """Repeat the epoch step by step, up to the step that breaks; stop before it and say where it broke."""
    training, epoch = course.training, course.training.epoch + 1
    with generators_of(training.noise), hot_loop():
        for step, (rows, given) in enumerate(_batches(course), start=1):
            before = training.state_dict()
            noise = generator_states()
            loss = course.steps(*given, whole=rows == course.batch_size)
            if torch.isfinite(loss) and finite(training.parameters):
                continue
            training.load_state_dict(before)
            set_generators(noise)
            if torch.isfinite(loss):
                course.steps.eager(*given)
                set_generators(noise)
                named = training.networks.named_parameters()
                gradients = [name for name, p in named if p.grad is not None and not finite([p.grad])]
                what = f"the gradient of {gradients[0] if gradients else 'a parameter'} is not finite"
            else:
                what = f"the loss is {loss.item()} at {not_finite(training.story, course.batch(*given[1:]))}"
            raise NotFinite(
                f"{what} in epoch {epoch}, step {step}; the story keeps the last good parameters "
                "(a smaller lr, or data scaled to values near 1, may help)"
            )
    raise NotFinite(f"the loss was not finite in epoch {epoch}, and was finite when the epoch was repeated")
