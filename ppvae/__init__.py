"""Variational autoencoders as probabilistic programs, with likelihood figures you can trust."""

from ppvae.pretraining import pretrain
from ppvae.runs import load
from ppvae.train import History, fit

__all__ = ["History", "fit", "load", "pretrain"]
