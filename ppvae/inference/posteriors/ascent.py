"""Stochastic ascent of every datum's own ELBO, and when to stop: by noise that no step has seen."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

EVERY = 20  # steps between looks at the ELBO
HELD_OUT = 128  # draws that a look takes, the same every time
FIRST = 1 / 3  # of the steps are taken in any case: they are long, and their noise hides a gain
PATIENCE = 1 / 6  # of the steps without a gain, after which a datum has arrived

Elbo = Callable[[Tensor], Tensor]
"""Noise `(draws, 1, size)`, shared by all data, to every datum's ELBO up to a constant, `(batch,)` nats."""


def ascend(
    parameters: list[Tensor],
    elbo: Elbo,
    size: int,
    steps: int,
    draws: int,
    lr: float,
    seed: int,
    tolerance: float | None = None,
) -> Iterator[None]:
    """Adam on the sum of every datum's ELBO, its step falling to zero; the parameters are moved in place.

    With a tolerance, a datum has arrived when its ELBO by held-out noise has not risen by so many nats for a sixth of
    the steps, the first third left aside; it is left with the best parameters of any look, and the ascent ends with the
    last to arrive. No datum's answer depends on others.

    The noise of an ascent with a tolerance is mirrored, and its second moments are exact: so are the gradients, then,
    of a Normal whose target is one.

    Args:
        parameters: `(batch, ...)` each, and no two data share any.
        size: of the noise of a draw.
    """
    optimizer = torch.optim.Adam(parameters, lr=lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    like, noise = parameters[0], torch.Generator().manual_seed(seed)
    rounding = torch.finfo(like.dtype).eps ** 0.5  # nats for a step of 1
    best = None
    if tolerance is not None:
        apart = torch.Generator().manual_seed(seed + 1)
        best = _Best(
            parameters,
            elbo,
            _normal(HELD_OUT, size, apart, like, mirrored=True),
            tolerance,
            max(2.0, PATIENCE * steps / EVERY),
        )
    for step in range(1, steps + 1):
        loss = -elbo(_normal(draws, size, noise, like, mirrored=best is not None)).sum()
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
            # exact moments make exact zeros, but for rounding, which Adam would blow up to a step
            parameter.grad = gradient if best is None else torch.where(gradient.abs() < rounding, 0.0, gradient)
        optimizer.step()
        decay.step()
        yield
        if best is not None and (step % EVERY == 0 or step == steps) and best.all_arrived(step > FIRST * steps):
            break
    if best is not None:
        best.restore()


def _normal(draws: int, size: int, generator: torch.Generator, like: Tensor, mirrored: bool) -> Tensor:
    """Noise; mirrored, every draw has its opposite beside it and second moments are those of N(0, I).

    All of them with four draws a dimension or more; with fewer, the variances.
    """
    if not mirrored or draws < 2:
        return torch.randn(draws, 1, size, generator=generator, dtype=like.dtype).to(like)
    half = torch.randn(draws // 2, size, generator=generator, dtype=torch.float64)
    if draws >= 4 * size:
        root = torch.linalg.cholesky(half.T @ half / len(half))
        half = torch.linalg.solve_triangular(root.T, half, upper=True, left=False)
    else:
        half = half / half.square().mean(0).sqrt()
    return torch.cat([half, -half]).unsqueeze(1).to(like)


class _Best:
    """The best that each datum has had, and how long ago it last gained."""

    def __init__(self, parameters: list[Tensor], elbo: Elbo, noise: Tensor, tolerance: float, patience: float):
        self.parameters, self.elbo, self.noise = parameters, elbo, noise
        self.tolerance, self.patience = tolerance, patience
        self.kept = [parameter.detach().clone() for parameter in parameters]
        self.value = self._now()
        self.mark, self.waited = self.value, torch.zeros_like(self.value)

    def all_arrived(self, counting: bool) -> bool:
        """Look at the ELBO of all that are still on their way."""
        value, moving = self._now(), self.waited < self.patience
        better = moving & (value > self.value)
        for kept, parameter in zip(self.kept, self.parameters, strict=True):
            kept[better] = parameter.detach()[better]
        self.value = torch.where(better, value, self.value)
        gained = value > self.mark + self.tolerance
        self.mark = torch.where(moving & gained, value, self.mark)
        self.waited = torch.where(moving, torch.where(gained, 0.0, self.waited + counting), self.waited)
        return not bool((self.waited < self.patience).any())

    def restore(self) -> None:
        for kept, parameter in zip(self.kept, self.parameters, strict=True):
            parameter.data.copy_(kept)

    def _now(self) -> Tensor:
        with torch.no_grad():
            return self.elbo(self.noise).nan_to_num(-torch.inf, -torch.inf, -torch.inf)
