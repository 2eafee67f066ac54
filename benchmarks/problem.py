"""What every peer is given: the textbook VAE's sizes and binary digits, real or made up."""

import gzip
from pathlib import Path

import numpy as np

PIXELS, HIDDEN, LATENT = 784, 400, 20
LEARNING_RATE = 1e-3


def digits(rows: int, root: str | None = None, seed: int = 0) -> np.ndarray:
    """Binary images, `(rows, 784)` float32: MNIST's first, above a half, where `root` holds its files.

    Made-up ones are strokes: discs along a random walk, so that as in MNIST most pixels are 0 and the margin always is.
    """
    return _real(rows, Path(root)) if root else _strokes(rows, seed)


def _real(rows: int, root: Path) -> np.ndarray:
    found = sorted(root.rglob("train-images-idx3-ubyte*"))
    if not found:
        raise FileNotFoundError(f"{root} should hold MNIST's train-images-idx3-ubyte, as torchvision lays it")
    path = found[0]
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    images = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, PIXELS)
    return (np.resize(images, (rows, PIXELS)) > 127).astype(np.float32)


def _strokes(rows: int, seed: int, points: int = 24) -> np.ndarray:
    draw = np.random.default_rng(seed)
    turns = draw.normal(0, 0.6, (rows, points)).cumsum(1) + draw.uniform(0, 2 * np.pi, (rows, 1))
    steps = 1.3 * np.stack([np.cos(turns), np.sin(turns)], -1)
    path = 13.5 + steps.cumsum(1) - steps.cumsum(1).mean(1, keepdims=True)
    path = path.clip(5, 22)  # (rows, points, 2)
    grid = np.arange(28)
    near = np.exp(-((path[..., None] - grid) ** 2) / 1.5)  # (rows, points, 2, 28)
    ink = np.einsum("npi,npj->nij", near[:, :, 0], near[:, :, 1])
    return (ink.reshape(rows, PIXELS) > 0.6).astype(np.float32)
