"""The loop that a careful person writes: plain PyTorch, `torch.compile` on the loss, one fused Adam, no `.item()`."""

import math
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
from problem import HIDDEN, LATENT, LEARNING_RATE, PIXELS
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

COMPILE = True
FUSED = True


class VAE(nn.Module):
    def __init__(self, particles: int):
        super().__init__()
        self.particles = particles
        self.encoder = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, PIXELS))

    def forward(self, x: Tensor) -> Tensor:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        scale = log_scale.exp()
        if self.particles == 1:
            z = loc + scale * torch.randn_like(scale)
            kl = (0.5 * (scale.square() + loc.square() - 1) - log_scale).sum()
            return (binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum") + kl) / len(x)
        noise = torch.randn(self.particles, *scale.shape)
        z = loc + scale * noise
        logits = self.decoder(z)
        log_likelihood = -binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
        log_ratio = (0.5 * (noise.square() - z.square()) + log_scale).sum(-1)
        return math.log(self.particles) - torch.logsumexp(log_likelihood + log_ratio, 0).mean()


def passes(x: np.ndarray, batch_size: int, particles: int) -> Callable[[int], float]:
    torch.manual_seed(0)
    data, model = torch.from_numpy(x), VAE(particles)
    loss_of = torch.compile(model) if COMPILE else model
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=FUSED)

    def run(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            total = torch.zeros(())
            for rows in torch.randperm(len(data)).split(batch_size):
                loss = loss_of(data[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach()
            total.item()
        return time.perf_counter() - start

    return run


def versions() -> dict[str, str]:
    return {"torch": version("torch")}
