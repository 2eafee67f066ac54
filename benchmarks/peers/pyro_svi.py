"""Pyro's own VAE example: `pyro.module`, `SVI`, `pyro.optim.Adam`; for several particles its `RenyiELBO`, alpha 0.

As in https://pyro.ai/examples/vae.html (validation on, a sigmoid at the end of the decoder), with this problem's sizes
and the data in memory, where the example reads image after image.
"""

import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from problem import HIDDEN, LATENT, LEARNING_RATE, PIXELS
from pyro.infer import SVI, RenyiELBO, Trace_ELBO
from torch import Tensor, nn


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(PIXELS, HIDDEN), nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.fc1(x))
        return self.fc21(hidden), torch.exp(self.fc22(hidden))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc21 = nn.Linear(LATENT, HIDDEN), nn.Linear(HIDDEN, PIXELS)

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.fc21(torch.relu(self.fc1(z))))


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z_loc = torch.zeros(x.shape[0], LATENT, dtype=x.dtype)
            z = pyro.sample("latent", dist.Normal(z_loc, torch.ones_like(z_loc)).to_event(1))
            p = dist.Bernoulli(self.decoder(z), validate_args=False).to_event(1)
            pyro.sample("obs", p, obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("latent", dist.Normal(*self.encoder(x)).to_event(1))


def passes(x: np.ndarray, batch_size: int, particles: int) -> Callable[[int], float]:
    torch.manual_seed(0)
    data, vae = torch.from_numpy(x), VAE()
    elbo = Trace_ELBO() if particles == 1 else RenyiELBO(0.0, particles, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": LEARNING_RATE}), loss=elbo)

    def run(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            sum(svi.step(data[rows]) for rows in torch.randperm(len(data)).split(batch_size))
        return time.perf_counter() - start

    return run


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("pyro-ppl", "torch")}
