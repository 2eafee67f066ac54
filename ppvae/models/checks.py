"""Arguments of parts, and parts themselves, checked."""

import math
from typing import Any

import pyro
import torch

from ppvae.base import optional

SIZES = {
    "prior": "it is made with the latent size",
    "likelihood": "its attribute `outputs` says how many network outputs it takes per feature (1 where there is none)",
    "encoder": "its attribute `outputs` says how many network outputs it takes per latent (1 where there is none)",
}


def known(name: str, value: int | None) -> int:
    """A size that is given, or follows from the data."""
    if value is None:
        raise ValueError(f"{name} should be given: it follows from data with a largest level, and these have none")
    return at_least_one(name, value)


def at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} should be at least 1, got {value}")
    return value


def positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} should be positive and finite, got {value}")
    return value


def not_negative(name: str, value: float) -> float:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} should be finite and not negative, got {value}")
    return value


@torch.no_grad()
def check_part(option: str, part: Any, shape: tuple[int, ...], size: int) -> Any:
    """The part itself, once its call on zeros of `shape` has given a distribution of event_shape `(size,)`."""
    mode = part.training
    arguments = [torch.zeros(shape)] if shape else []
    if optional(part, "library"):  # a likelihood of counts that takes the size of every row beside z
        arguments.append(torch.ones(1))
    part.eval()  # a call in training may change a buffer
    try:
        with pyro.validation_enabled(False):
            event = tuple(part(*arguments).event_shape)
    except Exception as error:  # a class of the user's may fail in any way
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"the {option} should give a distribution, but: {said}") from error
    finally:
        part.train(mode)
    if event != (size,):
        rule = f"the {option} should give a distribution of event_shape ({size},), got {event}"
        raise ValueError(f"{rule}: {'end it with .to_event(1)' if not event else SIZES[option]}")
    return part
