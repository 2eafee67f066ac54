"""Code is made for two threads, as on most machines, however few a test run has: it is another code than for one."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
