"""Where a fit's batches come from: tensors that lie on the device, or rows that are read while it runs."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

CHECKED = 1024  # rows of a stream that are looked at before a fit; the others as they come


class Source(Protocol):
    """Rows in a random order, a batch at a time."""

    def __len__(self) -> int: ...

    def sample(self) -> tuple[Tensor, ...]:
        """What there is to check before a fit."""
        ...

    def epoch(
        self, order: Generator, batch_size: int, device: torch.device
    ) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        """How many rows a batch has, and the tensors that `batch` makes it of."""
        ...

    def batch(self, *given: Tensor) -> tuple[Tensor, ...]: ...


class Memory:
    """Tensors of equal length on one device; a batch is selected inside the step, so that nothing is copied twice."""

    def __init__(self, data: tuple[Tensor, ...]):
        self.data = data

    def __len__(self) -> int:
        return len(self.data[0])

    def sample(self) -> tuple[Tensor, ...]:
        return self.data

    def epoch(
        self, order: Generator, batch_size: int, device: torch.device
    ) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        for rows in torch.randperm(len(self), generator=order).to(device).split(batch_size):
            yield rows.shape[0], (rows, *self.data)

    def batch(self, *given: Tensor) -> tuple[Tensor, ...]:
        rows, *data = given
        return tuple(part.index_select(0, rows) for part in data)


class Stream:
    """Rows that do not fit into memory, read by worker processes ahead of the step that needs them.

    The first of them are checked before a fit, and each batch of its first epoch when it has been read.

    Args:
        dataset: torch's kind with a length: `dataset[i]` is a row, or a tuple of the rows for `model(*batch)`.
        workers: processes that read; 0 for none.

    >>> stream = Stream(Arrays(np.zeros((10, 3), np.float32)), workers=0)
    >>> [rows for rows, _ in stream.epoch(torch.Generator(), 4, torch.device("cpu"))]
    [4, 4, 2]
    """

    def __init__(self, dataset: Any, workers: int = 2):
        self.dataset, self.workers = dataset, workers
        self.loaders: dict[int, tuple[Generator, DataLoader[Any]]] = {}  # by batch size

    def __len__(self) -> int:
        return len(self.dataset)

    def sample(self) -> tuple[Tensor, ...]:
        rows = range(min(CHECKED, len(self)))
        fetched = self.dataset.__getitems__(list(rows)) if hasattr(self.dataset, "__getitems__") else None
        return _collated([self.dataset[i] for i in rows] if fetched is None else fetched)

    def epoch(
        self, order: Generator, batch_size: int, device: torch.device
    ) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        generator, loader = self.loaders.get(batch_size, (None, None))
        if loader is None or generator is not order:
            loader = DataLoader(
                self.dataset,
                batch_size=batch_size,
                sampler=_Order(len(self), order),
                collate_fn=_collated,
                num_workers=self.workers,
                persistent_workers=self.workers > 0,
                pin_memory=device.type == "cuda",
                generator=Generator(),  # of the workers' seeds: how many are drawn depends on how many read
            )
            self.loaders[batch_size] = (order, loader)
        for batch in loader:
            yield len(batch[0]), tuple(part.to(device, non_blocking=True) for part in batch)

    def batch(self, *given: Tensor) -> tuple[Tensor, ...]:
        return given


class Arrays(Dataset[Any]):
    """Rows of numpy arrays of equal length, such as `numpy.load(path, mmap_mode="r")`, read a batch at a time.

    Args:
        arrays: numbers become float32 where they are floats or bytes, as images are.

    >>> Arrays(np.arange(6, dtype=np.uint8).reshape(3, 2))[1]
    (tensor([2., 3.]),)
    """

    def __init__(self, *arrays: Any):
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, row: int) -> tuple[Tensor, ...]:
        return tuple(part[0] for part in self.__getitems__([row]))

    def __getitems__(self, rows: list[int]) -> tuple[Tensor, ...]:
        return tuple(_tensor(array[rows]) for array in self.arrays)


class _Order(Sampler[int]):
    """A new order at every pass, from a fit's own generator."""

    def __init__(self, rows: int, order: Generator):
        self.rows, self.order = rows, order

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(self.rows, generator=self.order).tolist())


def _tensor(array: Any) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.float() if tensor.is_floating_point() or tensor.dtype == torch.uint8 else tensor


def _collated(rows: Any) -> tuple[Tensor, ...]:
    """A batch from its rows, unless they were read as one."""
    batch = rows if isinstance(rows, tuple) else default_collate(rows)
    return tuple(batch) if isinstance(batch, list | tuple) else (batch,)
