"""The matrix products of a step and nothing else: what any way of training it waits for, by the quicker library."""

import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
from problem import HIDDEN, LATENT, PIXELS
from torch import Tensor

from ppvae.compilation import products


def passes(x: np.ndarray, batch_size: int, particles: int) -> Callable[[int], float]:
    torch.manual_seed(0)
    data, rows = torch.from_numpy(x[:batch_size]), particles * batch_size
    sizes = [
        (batch_size, PIXELS, HIDDEN),
        (batch_size, HIDDEN, 2 * LATENT),
        (rows, LATENT, HIDDEN),
        (rows, HIDDEN, PIXELS),
    ]
    layers = [(torch.randn(n, i), torch.randn(o, i), torch.randn(n, o)) for n, i, o in sizes]
    layers[0] = (data, *layers[0][1:])
    turned = [slopes.t().contiguous() if slopes.shape[0] <= slopes.shape[1] else slopes.t() for *_, slopes in layers]
    quicker = products._quicker()

    def product(left: Tensor, right: Tensor) -> None:
        if quicker and left.is_contiguous() and left.numel() * right.shape[1] >= products.LEAST:
            torch.ops.mkldnn._linear_pointwise(left, right.t(), None, "none", [], "")
        else:
            torch.mm(left, right)

    def run(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count * (len(x) // batch_size)):
            for inputs, weight, _ in layers:
                product(inputs, weight.t())
            for place, (inputs, weight, slopes) in enumerate(layers):
                product(turned[place], inputs)
                if place:
                    product(slopes, weight)
        return time.perf_counter() - start

    return run


def versions() -> dict[str, str]:
    return {"torch": version("torch")}
