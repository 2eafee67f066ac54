"""Kernels that were made for another processor, or by other code, are not taken up."""

import os
import subprocess
import sys

import pytest
import torch

from ppvae.compilation import cache
from ppvae.compilation.cache import VARIABLE, own_kernels

LOWER = {"AVX512": "avx2", "AVX2": "default"}  # a processor, and one that has less

ESTIMATE = """
import sys, warnings
from contextlib import nullcontext
import torch
from ppvae.compilation import compiled
from ppvae.compilation.steps import Steps

def weigh(x):
    return 2 * x.exp()

warnings.simplefilter("always")
x = torch.linspace(-1, 1, 64)
plain, own = nullcontext, getattr(compiled, "own_kernels", None)
for compiled.own_kernels in (plain, own):
    steps = Steps(weigh, torch.nn.Linear(1, 1), "always", backward=False)
    assert torch.allclose(steps(x), weigh(x)), steps(x) - weigh(x)
    print(steps.way)
"""


def as_a_machine(folder, **settings):
    """What the estimate of a process says, and the ways it took: with Inductor's own cache, then with the package's."""
    settings = {VARIABLE: str(folder), "TORCHINDUCTOR_VEC_ISA_OK": "1", "OMP_NUM_THREADS": "1"} | settings
    run = [sys.executable, "-c", ESTIMATE]
    done = subprocess.run(run, env=os.environ | settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr, done.stdout.split()


def test_kernels_of_a_processor_that_has_more_are_found_out_and_in_the_own_folder_not_even_found(tmp_path):
    capability = torch.backends.cpu.get_cpu_capability()
    if capability not in LOWER:
        pytest.skip(f"no processor below {capability} to run as")
    assert as_a_machine(tmp_path) == ("", ["compiled", "compiled"])
    said, ways = as_a_machine(tmp_path, ATEN_CPU_CAPABILITY=LOWER[capability])
    assert ways == ["replayed", "compiled"]
    if capability == "AVX512":
        assert said.count("NotCompiled") == 1
        assert "this estimate is replayed, not compiled: a log-weight is off by" in said
    else:
        assert said == ""  # where there are no vectors at all the source does not compile: there is nothing to find out


@pytest.fixture
def no_compiler(monkeypatch):
    """It is not asked for which vectors it can make code."""
    monkeypatch.setattr("torch._inductor.cpu_vec_isa.pick_vec_isa", lambda: "avx2")


@pytest.fixture
def folder(no_compiler, monkeypatch, tmp_path):
    """The name of the own folder, within one that Inductor is told to use."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))

    def name():
        with own_kernels():
            found = os.path.relpath(os.environ[VARIABLE], tmp_path)
        assert os.environ[VARIABLE] == str(tmp_path)
        return found

    return name


def test_the_folder_is_of_processor_threads_versions_and_sources(folder, monkeypatch):
    before = folder()
    assert folder() == before
    changes = {
        "torch._inductor.cpu_vec_isa.pick_vec_isa": lambda: "another",
        "torch.backends.cpu.get_cpu_capability": lambda: "another",
        "torch.get_num_threads": lambda: 77,
        "torch.__version__": "0",
        "ppvae.compilation.cache.version": lambda name: "0",
        "ppvae.compilation.cache._processor": lambda: "another",
        "ppvae.compilation.cache._sources": lambda: "another",
    }
    names = {before}
    for place, changed in changes.items():
        with monkeypatch.context() as patch:
            patch.setattr(place, changed)
            names.add(folder())
    assert len(names) == 1 + len(changes)
    assert not any(os.sep in name for name in names)


def test_a_line_that_changes_in_what_compiles_is_another_folder(monkeypatch, tmp_path):
    (tmp_path / "tiles.py").write_text("one")
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "cache.py"))
    before = cache._sources.__wrapped__()
    (tmp_path / "tiles.py").write_text("two")
    assert cache._sources.__wrapped__() != before


def test_without_the_variable_it_is_none_again_even_after_an_error(no_compiler, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)

    def compile():
        assert os.path.basename(os.environ[VARIABLE]).startswith("ppvae-")
        raise RuntimeError("no compiler")

    with pytest.raises(RuntimeError, match="no compiler"), own_kernels():
        compile()
    assert VARIABLE not in os.environ
