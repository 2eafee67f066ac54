"""Hamiltonian Monte Carlo for many chains of many data at once: one transition, and how its step size is found."""

from collections.abc import Callable

import torch
from torch import Tensor

from ppvae.inference.program.streams import Streams

GRID = 0.02  # between the logarithms of neighbouring step sizes

LogDensity = Callable[[Tensor], Tensor]
"""u `(particles, batch, size)` to its unnormalised log-density, `(particles, batch)` nats."""


def transition(
    log_density: LogDensity, u: Tensor, step: Tensor, scale: Tensor, noise: Streams, leapfrog: int
) -> tuple[Tensor, Tensor]:
    """One trajectory of HMC, which leaves the density of u invariant whatever the step. Neal 2011,
    https://arxiv.org/abs/1206.1901

    Args:
        u: where the chains are, `(particles, batch, size)`.
        step: step size of every datum, `(batch,)`, in units of `scale`.
        scale: of every dimension, `(batch, size)`: the standard deviations that the density is expected to have.
        noise: of momenta and acceptance.
        leapfrog: steps of the trajectory.

    Returns:
        Where the chains are next, and the probability of acceptance, `(particles, batch)`.
    """
    stride = step.unsqueeze(-1) * scale  # (batch, size)
    momentum = noise.normal(u.shape[0], u.shape[-1])
    value, gradient = value_and_gradient(log_density, u)
    energy = value - momentum.square().sum(-1) / 2
    moved, pushed = u, momentum + stride / 2 * gradient
    for jump in range(leapfrog):
        moved = moved + stride * pushed
        new_value, gradient = value_and_gradient(log_density, moved)
        pushed = pushed + (stride if jump < leapfrog - 1 else stride / 2) * gradient
    difference = new_value - pushed.square().sum(-1) / 2 - energy
    acceptance = torch.where(difference.isfinite(), difference, -torch.inf).clamp_max(0).exp()
    accepted = noise.uniform(u.shape[0]) < acceptance
    return torch.where(accepted.unsqueeze(-1), moved, u), acceptance


def value_and_gradient(log_density: LogDensity, u: Tensor) -> tuple[Tensor, Tensor]:
    """A log-density, `(particles, batch)`, and its gradient in u; zero where it is not finite, which is refused."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        value = log_density(u)
        (gradient,) = torch.autograd.grad(value.sum(), u)
    return value.detach(), gradient.nan_to_num(0.0, 0.0, 0.0)


def adapt(step: Tensor, acceptance: Tensor, target: float, rate: float = 0.5) -> Tensor:
    """The step size of every datum, moved towards an acceptance of `target` on average over its chains.

    Steps stay on a grid, 2 % apart: what acceptance says of them feeds back, and would blow up the rounding of the
    arithmetic, which depends on how many data are moved at once.
    """
    wanted = step.log() + rate * (acceptance.mean(0) - target)
    return ((wanted / GRID).round() * GRID).exp().clamp(1e-6, 1e3)
