"""Random streams of evaluation: every datum draws from its own, so that no figure depends on what else is estimated."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def own_generators() -> Iterator[None]:
    """Torch's global generators, on every device, come back as they were."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield


def contents(batch: tuple[Tensor, ...]) -> list[bytes]:
    """Every datum as bytes: what seeds its streams."""
    parts = [part.detach().cpu().contiguous() for part in batch]
    arrays = [part.reshape(len(part), -1).view(torch.uint8).numpy() for part in parts]
    return [b"".join(array[row].tobytes() for array in arrays) for row in range(len(batch[0]))]


def keys(batch: tuple[Tensor, ...], seed: int) -> list[bytes]:
    """A key for every datum: of the seed, the datum, and how many equal ones came before it."""
    seen: Counter[bytes] = Counter()
    found = []
    for content in contents(batch):
        found.append(f"{seed} {seen[content]} ".encode() + content)  # equal data have draws of their own
        seen[content] += 1
    return found


def begin_stream(key: bytes, label: str) -> None:
    """The next draws of torch's global generators are one of a datum's streams, from its beginning."""
    seed = stream_seed(key, label)
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # `torch.manual_seed` notes where it was called from, for devices that are not there
        torch.default_generator.manual_seed(seed)


def stream_seed(key: bytes, label: str) -> int:
    """The seed of one of a datum's streams; torch takes signed 64-bit seeds."""
    return int.from_bytes(hashlib.blake2b(f"{label} ".encode() + key, digest_size=8).digest(), "big") >> 1


class Streams:
    """One generator a datum, for what moves many data at once: the draws of each are its own."""

    def __init__(self, keys: Sequence[bytes], label: str, like: Tensor):
        self.generators = [torch.Generator().manual_seed(stream_seed(key, label)) for key in keys]
        self.like = like

    def normal(self, particles: int, size: int) -> Tensor:
        """Standard normal draws, `(particles, data, size)`."""
        drawn = [torch.randn(particles, size, generator=g, dtype=self.like.dtype) for g in self.generators]
        return torch.stack(drawn, dim=1).to(self.like.device)

    def uniform(self, particles: int) -> Tensor:
        """Draws from [0, 1), `(particles, data)`."""
        drawn = [torch.rand(particles, generator=g, dtype=self.like.dtype) for g in self.generators]
        return torch.stack(drawn, dim=1).to(self.like.device)
