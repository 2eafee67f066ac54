"""Fixtures that every test may use, and stories whose answers are known."""

import doctest
import math

import pyro
import pytest
import seeds
import torch


def pytest_addoption(parser):
    parser.addoption(
        "--seed-offset", type=int, default=0, help="moves every seed of a test, so that the same code meets other draws"
    )


@pytest.fixture(scope="session", autouse=True)
def _shifted(request):
    with seeds.shifted(request.config.getoption("--seed-offset")):
        yield


@pytest.fixture(autouse=True)
def _seeded(request, doctest_namespace, monkeypatch):
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.setattr(seeds, "offset", 0)  # what it prints is of one seed
    torch.manual_seed(0)
    pyro.clear_param_store()
    doctest_namespace.update(torch=torch, pyro=pyro)
    yield
    pyro.clear_param_store()


@pytest.fixture(autouse=True)
def _never_compiled(monkeypatch):
    """However busy the machine is, a fit of a test is no long one; the tests of that choice set it themselves."""
    monkeypatch.setattr("ppvae.compilation.steps.SHORT", math.inf)


@pytest.fixture
def two_threads(monkeypatch):
    """Code is made for two, as on most machines, however few a test run has: it is another code than for one."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


@pytest.fixture
def double():
    """Float64 for a while: oracles are compared to more digits than float32 has."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def pytest_configure(config):
    config.option.doctest_optionflags = doctest.NORMALIZE_WHITESPACE
