"""Variational autoencoders as probabilistic programs, with likelihood figures you can trust."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppvae import data, inference, models, networks
    from ppvae.experiments.save_load import load, save
    from ppvae.training.fit import fit
    from ppvae.training.history import History
    from ppvae.training.pretraining import pretrain

__all__ = ["History", "data", "fit", "inference", "load", "models", "networks", "pretrain", "save"]

_ROOMS = {"data", "inference", "models", "networks"}
_FUNCTIONS = {
    "History": "ppvae.training.history",
    "fit": "ppvae.training.fit",
    "load": "ppvae.experiments.save_load",
    "pretrain": "ppvae.training.pretraining",
    "save": "ppvae.experiments.save_load",
}


def __getattr__(name: str) -> Any:
    """What is imported when it is first used: `ppvae --help` needs no torch, and `ppvae.fit` no command line."""
    if name in _ROOMS:
        return import_module(f"ppvae.{name}")
    if name in _FUNCTIONS:
        return getattr(import_module(_FUNCTIONS[name]), name)
    raise AttributeError(f"module 'ppvae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
