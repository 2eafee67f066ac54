"""Where Inductor keeps what it makes: a folder that is shared only by machines and code for which it is the same."""

import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
LISTED = ("model name", "flags", "Features", "CPU part")  # of /proc/cpuinfo: what `-march=native` is decided by


@contextmanager
def own_kernels() -> Iterator[None]:
    """Inductor's cache is a folder within the one that it would be, for as long as something is compiled and loaded.

    Inductor's key of a graph says nothing of the processor: with one cache, another one is given loops over vectors
    that it does not have, which compile there and compute something else (docs/compilation.md). Nor does it hold what
    this package changes in Inductor. So the folder's name has both.

    Raises:
        torch._inductor.exc.InvalidCxxCompiler: there is no C++ compiler.
    """
    from torch._inductor.runtime import runtime_utils

    utils: Any = runtime_utils  # where it is in every version
    before = os.environ.get(VARIABLE)
    try:
        os.environ[VARIABLE] = str(Path(utils.cache_dir()) / _name())
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


def _name() -> str:
    """Of what kernels are made for, and by: most of it to be read, the end to tell apart."""
    from torch._inductor.cpu_vec_isa import pick_vec_isa  # who asks the compiler too, with an answer kept as ever

    isa, threads = str(pick_vec_isa()).replace(" ", "-"), torch.get_num_threads()
    parts = [torch.backends.cpu.get_cpu_capability(), _processor(), _sources()]
    digest = hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()
    return f"ppvae-{version('ppvae')}-torch-{torch.__version__}-{isa}-{threads}-threads-{digest}"


@cache
def _processor() -> str:
    """The instructions that it has, as far as the system tells: two with AVX-512 need not have the same ones."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    listed = sorted({line for line in lines if line.split("\t")[0].split(":")[0].strip() in LISTED})
    return "\n".join([platform.machine(), *(listed or [platform.processor()])])


@cache
def _sources() -> str:
    """This folder's, which change what Inductor makes of a graph: what an older checkout made does not come back."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
