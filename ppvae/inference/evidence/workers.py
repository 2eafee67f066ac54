"""Estimators in several processes: the data are shared out, and no figure changes."""

import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing import get_context

from ppvae.base import Batch, Story
from ppvae.inference.evidence.evidence import COLUMNS, Evidence
from ppvae.inference.program.streams import contents
from ppvae.inference.program.traces import as_batch, as_seen
from ppvae.progress import follow, tell

Estimator = Callable[[Story, Batch], Evidence]


def in_processes(estimator: Estimator, story: Story, data: Batch, processes: int) -> Evidence:
    """What `estimator(story, data)` gives, with the data shared out over several processes of this machine.

    Equal data go to one process, in their order, so that every datum draws from the same streams as ever.

    Args:
        estimator: of the story and data alone, such as `functools.partial(importance, particles=5000)`.
        story: one that pickle takes: its class lies in a file that can be imported.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        processes: how many.

    Raises:
        ValueError: processes below 1; a story or an estimator that cannot be sent to another process.
    """
    if processes < 1:
        raise ValueError(f"processes should be at least 1, got {processes}")
    batch = as_batch(data)
    shares = _shares(as_seen(story, batch), processes)
    if len(shares) == 1:
        return estimator(story, data)
    try:
        pickle.dumps((estimator, story))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"a story for several processes should be one that pickle takes, its class in a file, but: {said}"
        ) from error
    threads = max(1, torch.get_num_threads() // len(shares))
    context = get_context("spawn")
    told = context.Queue()
    with ProcessPoolExecutor(len(shares), context, _begin, (threads, told)) as pool:
        jobs = [pool.submit(estimator, story, tuple(part[share] for part in batch)) for share in shares]
        follow(told, lambda: all(job.done() for job in jobs))
        found = [job.result() for job in jobs]
    return _joined(found, torch.cat(shares))


def _begin(threads: int, told: Any) -> None:
    torch.set_num_threads(threads)
    tell(told)


def _shares(batch: tuple[Tensor, ...], processes: int) -> list[Tensor]:
    """The numbers of the rows that each process has, in order; equal rows together."""
    places = [
        int.from_bytes(blake2b(content, digest_size=4).digest(), "big") % processes for content in contents(batch)
    ]
    rows = torch.tensor(places)
    shares = [(rows == process).nonzero().squeeze(-1) for process in range(processes)]
    return [share for share in shares if len(share)]


def _joined(parts: list[Evidence], order: Tensor) -> Evidence:
    columns: Any = {name: torch.cat([getattr(part, name) for part in parts]) for name in COLUMNS}
    return replace(parts[0], **columns).rows(order.argsort())
