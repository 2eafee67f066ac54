"""Fixtures that every test may use, and stories whose answers are known."""

import doctest
import math

import pyro
import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded(doctest_namespace):
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
