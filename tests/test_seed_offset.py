"""`--seed-offset` moves every seed, of the tests and of the library."""

from functools import partial

import numpy as np
import pyro
import pytest
import seeds
import torch

from ppvae.inference import importance, in_processes
from ppvae.inference.program.streams import begin_stream
from ppvae.selfcheck.analytic import LinearGaussian

pytestmark = pytest.mark.usefixtures("unshifted")


@pytest.fixture
def unshifted():
    """These tests say themselves by how much."""
    with seeds.shifted(0):
        yield


def of_torch(seed):
    torch.manual_seed(seed)
    return torch.randn(3)


def of_a_generator(seed):
    return torch.randn(3, generator=torch.Generator().manual_seed(seed))


def of_pyro(seed):
    pyro.set_rng_seed(seed)
    return torch.tensor([pyro.sample("z", pyro.distributions.Normal(0.0, 1.0)).item(), np.random.normal()])  # noqa: NPY002


def of_numpy(seed):
    np.random.seed(seed)  # noqa: NPY002
    return torch.from_numpy(np.random.normal(size=3))  # noqa: NPY002


def of_numpys_generator(seed):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=3))


def of_numpys_state(seed):
    return torch.from_numpy(np.random.RandomState(seed).normal(size=3))


WAYS = [of_torch, of_a_generator, of_pyro, of_numpy, of_numpys_generator, of_numpys_state]


@pytest.mark.parametrize("drawn", WAYS)
def test_every_seed_moves_by_the_offset(drawn):
    plain, further = drawn(3), drawn(8)
    with seeds.shifted(0):
        assert torch.equal(drawn(3), plain)
    with seeds.shifted(5):
        assert torch.equal(drawn(3), further)
    assert torch.equal(drawn(3), plain)


def test_what_is_no_seed_stays():
    with seeds.shifted(5):
        assert isinstance(np.random.mtrand._rand, np.random.RandomState)
        assert isinstance(torch.random.default_generator, torch.Generator)
        seeded = np.random.PCG64(1)
        assert np.random.default_rng(seeded).bit_generator is seeded


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_the_librarys_streams_move_too_and_those_of_its_processes(processes):
    def drawn():
        begin_stream(b"a datum", "0")
        return torch.randn(3)

    x, story = LinearGaussian().data(4), LinearGaussian().story(widen=1.3)
    estimator = partial(importance, particles=40, progress=False)
    plain, found = drawn(), estimator(story, x).estimate
    with seeds.shifted(5):
        assert not torch.equal(drawn(), plain)
        moved = estimator(story, x).estimate
        assert not torch.isclose(moved, found).any()
        assert torch.equal(in_processes(estimator, story, x, processes).estimate, moved)
    assert torch.equal(estimator(story, x).estimate, found)
