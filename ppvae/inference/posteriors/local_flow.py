"""A flow of its own for every datum, fitted to its posterior."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.nn.functional import softplus

from ppvae.base import Batch, Story
from ppvae.inference.posteriors.ascent import ascend
from ppvae.inference.posteriors.local import LocalNormal, fit_normals
from ppvae.inference.program.prepared import Prepared, prepared
from ppvae.inference.program.unconstrained import Unconstrained, model_densities, unconstrain
from ppvae.progress import track

ROWS = 256
"""Data whose flows are fitted at once. It bounds the memory."""


class LocalFlow(NamedTuple):
    """q(u) of every datum over its latents in unbounded space: noise, bent, coupled and placed.

    e ~ N(0, I); y = sinh((asinh e + skew) exp(log_tail)) in every dimension (Jones & Pewsey 2009,
    https://doi.org/10.1093/biomet/asp053), which one latent has too; affine couplings, in which one half of the
    dimensions says how the other is scaled and shifted (Dinh et al. 2017, https://arxiv.org/abs/1605.08803);
    u = loc + L y. Every datum has weights of its own.
    """

    loc: Tensor  # (batch, size)
    scale_tril: Tensor  # L: (batch, size, size)
    skew: Tensor  # (batch, size)
    log_tail: Tensor  # (batch, size), above 0 for tails that are heavier than a Normal's
    inward: Tensor  # of the couplings' networks: (batch, couplings, size, hidden)
    inward_bias: Tensor  # (batch, couplings, hidden)
    outward: Tensor  # (batch, couplings, hidden, 2 size)
    outward_bias: Tensor  # (batch, couplings, 2 size)

    def rsample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """u at N(0, I) noise, and its log-density: `(draws, batch, size)` and `(draws, batch)`."""
        bent = (noise.asinh() + self.skew) * self.log_tail.exp()
        y, log_det = bent.sinh(), self._log_bend(noise, bent)
        for number in range(self.inward.shape[1]):
            log_scale, shift = self._coupling(number, y)
            y, log_det = y * log_scale.exp() + shift, log_det + log_scale.sum(-1)
        u = self.loc + (self.scale_tril @ y.unsqueeze(-1)).squeeze(-1)
        return u, _log_normal(noise) - log_det - self._log_volume()

    def log_prob(self, u: Tensor) -> Tensor:
        """The log-density at u, `(draws, batch, size)`: `(draws, batch)` nats."""
        y = torch.linalg.solve_triangular(self.scale_tril, (u - self.loc).unsqueeze(-1), upper=False).squeeze(-1)
        log_det = u.new_zeros(u.shape[:-1])
        for number in reversed(range(self.inward.shape[1])):
            log_scale, shift = self._coupling(number, y)
            y, log_det = (y - shift) * (-log_scale).exp(), log_det + log_scale.sum(-1)
        bent = y.asinh()
        noise = (bent * (-self.log_tail).exp() - self.skew).sinh()
        return _log_normal(noise) - log_det - self._log_bend(noise, bent) - self._log_volume()

    def _log_volume(self) -> Tensor:
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def _log_bend(self, noise: Tensor, bent: Tensor) -> Tensor:
        """log |dy / de|, with log cosh that does not overflow."""
        log_cosh = bent.abs() + softplus(-2 * bent.abs()) - math.log(2)
        return (log_cosh + self.log_tail - 0.5 * noise.square().log1p()).sum(-1)

    def _coupling(self, number: int, y: Tensor) -> tuple[Tensor, Tensor]:
        """Log-scales, within -2 and 2, and shifts of one half of the dimensions by the other; zero of that other."""
        size = y.shape[-1]
        given = (torch.arange(size, device=y.device) < size // 2) ^ bool(number % 2)
        inner = ((y * given).transpose(0, 1) @ self.inward[:, number] + self.inward_bias[:, number, None]).tanh()
        found = (inner @ self.outward[:, number] + self.outward_bias[:, number, None]).transpose(0, 1)
        log_scale, shift = found.chunk(2, dim=-1)  # (draws, batch, size)
        return 2 * (log_scale / 2).tanh() * ~given, shift * ~given


def _log_normal(noise: Tensor) -> Tensor:
    return -0.5 * noise.square().sum(-1) - noise.shape[-1] / 2 * math.log(2 * math.pi)


def fit_flows(
    story: Story,
    data: Batch | Prepared,
    *,
    num_steps: int = 600,
    particles: int = 32,
    couplings: int = 4,
    hidden: int = 16,
    lr: float = 0.03,
    seed: int = 0,
    progress: bool = True,
    start: LocalNormal | None = None,
    tolerance: float | None = 0.002,
) -> LocalFlow:
    """The flow of every datum that maximises its own ELBO, from its own Normal with full covariance on.

    What a family of flows can do for one datum at a time, on a decoder that stays as it is: what is left to log p(x) is
    the flow's approximation gap. Noise and first weights are shared by all data, so that no datum's answer depends on
    others, but for the last digits of the arithmetic. Cremer et al. 2018, https://arxiv.org/abs/1801.03558

    Args:
        story: any object with `model` and `guide` whose latents are continuous.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        num_steps: of Adam, at most.
        particles: per step.
        couplings: layers that mix the dimensions; a single latent has none.
        hidden: units of their networks.
        lr: the first step of Adam.
        seed: of the draws.
        progress: whether to show a bar.
        start: where it begins; `fit_normals`'s answer where it is left out.
        tolerance: nats by which a datum's ELBO should rise to go on; None gives every datum all the steps.

    Raises:
        ValueError: options out of range; a latent that is discrete or lies on a curved set.
    """
    for option, value in {
        "num_steps": num_steps,
        "particles": particles,
        "couplings": couplings,
        "hidden": hidden,
    }.items():
        if value < 1:
            raise ValueError(f"{option} should be at least 1, got {value}")
    task = prepared(story, data)
    if start is None:
        start = fit_normals(story, task, seed=seed, progress=progress)
    flat = unconstrain(story, task.batch, "local inference")
    starts = range(0, len(task), ROWS)
    found = []

    def all_steps() -> Iterator[None]:
        for first in starts:
            some = slice(first, first + ROWS)
            parts = task.rows(some).batch
            q = _Free(LocalNormal(*(part[some] for part in start)), couplings if flat.size > 1 else 0, hidden, seed)
            densities = model_densities(story, parts, flat)
            yield from ascend(q.parameters, q.elbo(densities), flat.size, num_steps, particles, lr, seed, tolerance)
            found.append(q.flow())

    with task.running():
        for _ in track(all_steps(), "a flow for every datum", total=num_steps * len(starts), show=progress):
            pass
    return LocalFlow(*(torch.cat(parts).detach() for parts in zip(*found, strict=True)))


class _Free:
    """The free parameters of the flows of a chunk of data, which begin as their Normals."""

    def __init__(self, start: LocalNormal, couplings: int, hidden: int, seed: int):
        self.start = start
        batch, size = start.loc.shape
        noise = torch.Generator().manual_seed(seed)
        inward = torch.randn(couplings, size, hidden, generator=noise, dtype=start.loc.dtype).to(start.loc)
        shapes = [(size,), (size,), (size, size), (size,), (size,)]
        shapes += [(couplings, hidden), (couplings, hidden, 2 * size), (couplings, 2 * size)]
        zeros = [start.loc.new_zeros(batch, *shape) for shape in shapes]
        self.parameters = [part.requires_grad_() for part in (*zeros, inward.repeat(batch, 1, 1, 1)) if part.numel()]
        self.none = [part for part in (*zeros, inward.expand(batch, -1, -1, -1)) if not part.numel()]

    def flow(self) -> LocalFlow:
        loc, log_diagonal, lower, skew, log_tail, *rest = self.parameters
        root = self.start.scale_tril
        loc = self.start.loc + (root @ loc.unsqueeze(-1)).squeeze(-1)
        scale_tril = root @ (lower.tril(-1) + torch.diag_embed(log_diagonal.exp()))
        inward_bias, outward, outward_bias, inward = rest or self.none
        return LocalFlow(loc, scale_tril, skew, log_tail.tanh(), inward, inward_bias, outward, outward_bias)

    def elbo(self, densities: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Callable[[Tensor], Tensor]:
        def of_noise(noise: Tensor) -> Tensor:
            u, log_q = self.flow().rsample(noise.expand(-1, len(self.start.loc), -1))
            return (densities(u)[0] - log_q).mean(0)

        return of_noise


def weigh_flow(story: Story, datum: Batch, *proposal: Tensor, particles: int, flat: Unconstrained) -> Tensor:
    """Log-weights of one datum by its flow alone, `(particles, 1)`: for `estimate`."""
    u, log_q = LocalFlow(*proposal).rsample(torch.randn(particles, *proposal[0].shape).to(proposal[0]))
    return model_densities(story, tuple(datum), flat)(u)[0] - log_q


def weigh_normal(story: Story, datum: Batch, *proposal: Tensor, particles: int, flat: Unconstrained) -> Tensor:
    """Log-weights of one datum by its Normal, as it is, `(particles, 1)`: for `estimate`."""
    q = MultivariateNormal(proposal[0], scale_tril=proposal[1], validate_args=False)
    u = q.sample((particles,))
    return model_densities(story, tuple(datum), flat)(u)[0] - q.log_prob(u)
