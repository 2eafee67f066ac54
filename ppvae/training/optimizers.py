"""Which optimiser moves the parameters: any of `torch.optim`, or a function like one.

The names of this file's list are what a configuration may say. Others of `torch.optim` ask for what a fit has not:
`LBFGS` for a loss that it can call, `SparseAdam` for sparse gradients, `Muon` for matrices alone.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torch.optim import ASGD, SGD, Adadelta, Adafactor, Adagrad, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop, Rprop

from ppvae.compilation.adam import Adam

__all__ = [
    "ASGD",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
]

MakeOptimizer = Callable[[list[nn.Parameter], float], Optimizer]
"""Parameters that learn and a step size to an optimiser, as the classes of `torch.optim` are; in groups if it likes."""


def optimizer_of(make: MakeOptimizer, parameters: list[nn.Parameter], lr: float) -> Optimizer:
    """The optimiser that `make` makes.

    Raises:
        ValueError: what makes none, or one that a fit cannot call.

    >>> sgd = optimizer_of(partial(SGD, momentum=0.9), [nn.Parameter(nn.Linear(1, 1).weight)], 0.1)
    >>> sgd.param_groups[0]["momentum"]
    0.9
    """
    rule = "optimizer should be a function of (parameters, lr), as the class torch.optim.AdamW is"
    if not callable(make):
        arguments = "functools.partial(torch.optim.SGD, momentum=0.9) gives it arguments"
        raise ValueError(f"{rule}, got an object of {type(make).__name__}: {arguments}")
    try:
        optimizer = make(parameters, lr)
    except Exception as error:  # a function of the user's may fail in any way
        said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"the optimizer {_name(make)} could not be made: {' '.join(said.split())}") from error
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f"{rule}; {_name(make)} gives an object of {type(optimizer).__name__}")
    try:
        inspect.signature(optimizer.step).bind()
    except TypeError as error:
        raise ValueError(f"{rule}; {_name(make)} wants a loss that it can call, and a fit gives gradients") from error
    return optimizer


def _name(make: Any) -> str:
    while isinstance(make, partial):
        make = make.func
    return str(getattr(make, "__name__", type(make).__name__))
