"""KL warm-up: an objective whose beta rises while it is minimised."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from ppvae.base import Objective


def warmed(objective: Any, warm_up: int, epochs: int) -> Callable[[Tensor], Objective]:
    """The objective after so many epochs, a 0-d tensor: beta rises from 0 to its value over `warm_up` epochs.

    beta_t = beta min(1, t / warm_up). Sonderby et al. 2016, https://arxiv.org/abs/1602.02282. It is passed as a tensor,
    so that a compiled step takes it as an input.

    Args:
        objective: any that takes `beta`; its arguments given with `functools.partial`.
        warm_up: epochs; 0 for none.
        epochs: how many there will be.

    Raises:
        ValueError: warm_up below 0, or beyond `epochs`; an objective without beta.

    >>> from ppvae.inference import elbo
    >>> [warmed(partial(elbo, beta=4.0), 10, 20)(torch.tensor(t)).keywords["beta"].item() for t in (0.0, 5.0, 15.0)]
    [0.0, 2.0, 4.0]
    """
    if warm_up < 0:
        raise ValueError(f"warm_up should be at least 0, got {warm_up}")
    if warm_up == 0:
        return lambda gone: objective
    if warm_up > epochs:
        raise ValueError(
            f"a warm-up should be no longer than the run, got warm_up {warm_up} in {epochs} epochs: beta would end "
            f"below its value; a warm_up of at most {epochs}, or more epochs, would do"
        )
    beta = inspect.signature(objective).parameters.get("beta")
    if beta is None or beta.default is beta.empty:
        raise ValueError(
            f"a warm-up should have an objective with a beta to raise, got {_name(objective)}: such as elbo, "
            "mean_field_elbo or free_bits"
        )
    return lambda gone: partial(objective, beta=beta.default * (gone / warm_up).clamp_max(1))


def _name(objective: Any) -> str:
    while isinstance(objective, partial):
        objective = objective.func
    return str(getattr(objective, "__name__", type(objective).__name__))
