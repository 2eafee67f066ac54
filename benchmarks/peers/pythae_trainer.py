"""pythae's own trainer, https://github.com/clementchadebec/benchmark_VAE, on networks of this problem's sizes."""

import logging
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
from problem import HIDDEN, LATENT, LEARNING_RATE, PIXELS
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor, nn


class Encoder(BaseEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.loc, self.log_var = nn.Linear(PIXELS, HIDDEN), *(nn.Linear(HIDDEN, LATENT) for _ in "ab")

    def forward(self, x: Tensor) -> ModelOutput:
        hidden = torch.relu(self.hidden(x))
        return ModelOutput(embedding=self.loc(hidden), log_covariance=self.log_var(hidden))


class Decoder(BaseDecoder):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, PIXELS), nn.Sigmoid())

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.layers(z))


def passes(x: np.ndarray, batch_size: int, particles: int) -> Callable[[int], float]:
    if particles != 1:
        raise ImportError("it is measured on one particle only")
    logging.disable(logging.INFO)
    folder = tempfile.mkdtemp(prefix="pythae")
    settings = BaseTrainerConfig(
        output_dir=folder,
        per_device_train_batch_size=batch_size,
        learning_rate=LEARNING_RATE,
        no_cuda=True,
        seed=0,
    )
    config = VAEConfig(input_dim=(PIXELS,), latent_dim=LATENT, reconstruction_loss="bce")
    model = VAE(config, encoder=Encoder(), decoder=Decoder())
    trainer = BaseTrainer(model, BaseDataset(torch.from_numpy(x), torch.zeros(len(x))), training_config=settings)
    trainer.prepare_training()
    epoch = 0

    def run(count: int) -> float:
        nonlocal epoch
        start = time.perf_counter()
        for _ in range(count):
            epoch += 1
            trainer.train_step(epoch)
        return time.perf_counter() - start

    return run


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("pythae", "torch")}
