"""ppvae: an ordinary story and `fit`'s own loop, from the rows' order to the record of the epoch."""

import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import numpy as np
import torch
from problem import HIDDEN, LATENT, LEARNING_RATE, PIXELS

from ppvae import networks
from ppvae.inference import elbo, iwae
from ppvae.models import VAE, encoders, likelihoods, priors
from ppvae.training.fit import begin
from ppvae.training.fit import run as run_epochs

COMPILE = "auto"


def passes(x: np.ndarray, batch_size: int, particles: int) -> Callable[[int], float]:
    torch.manual_seed(0)
    story = VAE(
        priors.StandardNormal(LATENT),
        likelihoods.Bernoulli(networks.mlp(LATENT, [HIDDEN], PIXELS)),
        encoders.DiagonalNormal(networks.mlp(PIXELS, [HIDDEN], 2 * LATENT)),
    )
    objective = elbo if particles == 1 else partial(iwae, particles=particles)
    training = begin(story, LEARNING_RATE)
    epochs = run_epochs(training, torch.from_numpy(x), objective, 10**6, batch_size, compile=COMPILE)

    def run(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            next(epochs)
        return time.perf_counter() - start

    return run


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("ppvae", "pyro-ppl", "torch")}
