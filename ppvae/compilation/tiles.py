"""Loops that Inductor should not tile in two dimensions: it writes beside what they should, up to torch 2.13."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def sound() -> Iterator[None]:
    """Two of the tiles that Inductor cuts a processor's loops into are one, so that every loop writes where it should.

    With several threads, sums into places that an index says are off by the tile's own offset,
    https://github.com/pytorch/pytorch/issues/191837; and a reduction between whose tiled loops lies a third stores a
    whole vector where less is left, https://github.com/pytorch/pytorch/issues/196681. Either damages the heap.
    """
    from torch._inductor.codegen import cpp

    code: Any = cpp
    before = code.TilingSelect.select_tiling

    def select_tiling(self: Any, loops: Any, sizes: Any) -> Any:
        factors, levels, *rest = before(self, loops, sizes)
        if len(levels) == 2 and (levels[1] != levels[0] + 1 or _sums_into_places(code._get_loop_body(loops))):
            factors, levels = factors[1:], levels[1:]
        return factors, levels, *rest

    code.TilingSelect.select_tiling = select_tiling
    try:
        yield
    finally:
        code.TilingSelect.select_tiling = before


def _sums_into_places(bodies: Any) -> bool:
    return any(
        entry.mode == "atomic_add" for body in bodies for entries in body.memory_usage.values() for entry in entries
    )
