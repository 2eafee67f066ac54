"""A story and data that it can score: what every estimator and posterior starts from."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.program.checks import check_data, hot_loop
from ppvae.inference.program.streams import keys, own_generators
from ppvae.inference.program.traces import as_seen, evaluating, placed


@dataclass(frozen=True)
class Prepared:
    """A story with its data: on its device, as its programs see them, and checked once."""

    story: Story
    batch: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.batch[0])

    @property
    def first(self) -> tuple[Tensor, ...]:
        """One datum, to look at the programs with."""
        return self.datum(0)

    def datum(self, row: int) -> tuple[Tensor, ...]:
        """One datum, as a batch of its own."""
        return tuple(part[row : row + 1] for part in self.batch)

    def rows(self, some: slice) -> "Prepared":
        """Some of the data."""
        return Prepared(self.story, tuple(part[some] for part in self.batch))

    def chunks(self, size: int) -> "list[Prepared]":
        """The data in turn, so many at once."""
        return [self.rows(slice(start, start + size)) for start in range(0, len(self), size)]

    def keys(self, seed: int) -> list[bytes]:
        """What each datum's random streams are keyed by."""
        return keys(self.batch, seed)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The story in evaluation mode and without Pyro's validation; torch's generators come back as they were.

        A recurrent network has no second derivative in cuDNN: it runs without.
        """
        with own_generators(), evaluating(self.story), hot_loop(), torch.backends.cudnn.flags(enabled=False):
            yield


def prepared(story: Story, data: Batch | Prepared) -> Prepared:
    """A story and its data, prepared; what is so already, as it is.

    Raises:
        ValueError: data that the story cannot score.
    """
    if isinstance(data, Prepared):
        return data
    batch = placed(story, data)
    with own_generators():
        check_data(story, batch)
    return Prepared(story, as_seen(story, batch))
