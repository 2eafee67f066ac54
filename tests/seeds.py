"""Every seed that is set moves by one offset: the same tests with other draws.

What the library seeds itself moves too, in this process and in those that an estimator shares its data out to.
"""

from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

offset = 0


def moved(seed: Any, below: int) -> Any:
    """A seed of numpy may be several numbers, or an object that has been seeded."""
    if isinstance(seed, list | tuple):
        return [moved(part, below) for part in seed]
    return (int(seed) + offset) % below if isinstance(seed, int | np.integer) else seed


def as_before(whose: type) -> type:
    """Objects that were made before, such as numpy's own global one, are still of the class."""
    return type("AsBefore", (type(whose),), {"__instancecheck__": lambda _, instance: isinstance(instance, whose)})


class Generator(torch.Generator, metaclass=as_before(torch.Generator)):
    def manual_seed(self, seed: int) -> "Generator":
        super().manual_seed(moved(seed, 2**63))
        return self


class RandomState(np.random.RandomState, metaclass=as_before(np.random.RandomState)):
    def __init__(self, seed: Any = None):
        super().__init__(moved(seed, 2**32))

    def seed(self, seed: Any = None) -> None:
        super().seed(moved(seed, 2**32))


class _Default:
    """Torch's global generator, but for what seeds it."""

    def __init__(self, generator: torch.Generator):
        self.generator = generator

    def __getattr__(self, name: str) -> Any:
        return getattr(self.generator, name)

    def manual_seed(self, seed: int) -> torch.Generator:
        return self.generator.manual_seed(moved(seed, 2**63))


_torchs, _numpys, _global = torch.manual_seed, np.random.default_rng, np.random.seed
INSTEAD = {
    (torch, "manual_seed"): lambda seed: _torchs(moved(seed, 2**63)),
    (torch, "Generator"): Generator,
    (torch, "default_generator"): _Default(torch.default_generator),
    (np.random, "default_rng"): lambda seed=None: _numpys(moved(seed, 2**63)),
    (np.random, "seed"): lambda seed=None: _global(moved(seed, 2**32)),
    (np.random, "RandomState"): RandomState,
}


@contextmanager
def shifted(by: int):
    """Inside, seeds move by `by`; by 0, nothing is put in the place of anything."""
    global offset
    before = offset
    with ExitStack() as stack:
        if by:
            from ppvae.inference.evidence import workers

            for (module, name), new in INSTEAD.items():
                stack.enter_context(patch.object(module, name, new))
            stack.enter_context(patch.object(workers, "_begin", _Begin(by)))
        offset = by
        try:
            yield
        finally:
            offset = before


_for_good = ExitStack()


class _Begin:
    """How a process of an estimator begins: by moving its seeds too, until it ends."""

    def __init__(self, by: int):
        self.by = by

    def __call__(self, threads: int, told: Any) -> None:
        from ppvae.inference.evidence import workers

        begin = workers._begin
        if isinstance(begin, _Begin):  # a fork, whose seeds are moved as they were
            torch.set_num_threads(threads)
            workers.tell(told)
        else:
            _for_good.enter_context(shifted(self.by))
            begin(threads, told)
