"""Local inference: a Normal of its own for every datum, fitted to its posterior."""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.posteriors.ascent import ascend
from ppvae.inference.posteriors.newton import climb, curvature, triangle
from ppvae.inference.program.prepared import Prepared, prepared
from ppvae.inference.program.streams import begin_stream
from ppvae.inference.program.traces import latent_sites, run
from ppvae.inference.program.unconstrained import Unconstrained, check_guide, model_densities, unconstrain
from ppvae.progress import track

Covariance = Literal["full", "diagonal"]

ROWS = 512
"""Data that are refined at once. It bounds the memory."""

CLIMB = 8  # Newton steps, where the guide is a point mass
START = 64  # draws from the guide that say where a datum's Normal begins


class LocalNormal(NamedTuple):
    """q(u) = N(loc, L L') for every datum, over its latents in unbounded space."""

    loc: Tensor  # (batch, size)
    scale_tril: Tensor  # L: (batch, size, size)


def fit_normals(
    story: Story,
    data: Batch | Prepared,
    *,
    num_steps: int = 200,
    particles: int = 8,
    covariance: Covariance = "full",
    lr: float = 0.05,
    seed: int = 0,
    progress: bool = True,
    start: LocalNormal | None = None,
    tolerance: float | None = None,
) -> LocalNormal:
    """The Normal of every datum that maximises its own ELBO, E_q[log p(x, u)] + H(q), from the guide's answer on.

    Stochastic variational inference datum by datum, on a decoder that stays as it is: what amortisation gives away is
    what this gains. Adam in coordinates in which the guide is N(0, I), its step falling to zero; the draws of a step
    are shared by all data, so that no datum's answer depends on others, but for the last digits of the arithmetic.
    Cremer et al. 2018, https://arxiv.org/abs/1801.03558

    Args:
        story: any object with `model` and `guide` whose latents are continuous.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        num_steps: of Adam.
        particles: per step.
        covariance: `full` or `diagonal`.
        lr: the first step of Adam, in the guide's standard deviations.
        seed: of the draws.
        progress: whether to show a bar.
        start: where each Normal begins; the guide's moments, by draws, where it is left out.
        tolerance: nats by which a datum's ELBO should rise to go on, and then its best answer is kept; every datum is
            given all the steps where it is left out.

    Raises:
        ValueError: options out of range; a latent that is discrete or lies on a curved set.
    """
    for option, value in {"num_steps": num_steps, "particles": particles}.items():
        if value < 1:
            raise ValueError(f"{option} should be at least 1, got {value}")
    if covariance not in ("full", "diagonal"):
        raise ValueError(f"covariance should be full or diagonal, got {covariance}")
    task = prepared(story, data)
    names = task.keys(seed)
    starts = range(0, len(task), ROWS)
    found = []

    def all_steps() -> Iterator[None]:
        flat = unconstrain(story, task.batch, "local inference")
        check_guide(story, task.batch)
        for first in starts:
            some = slice(first, first + ROWS)
            parts = task.rows(some).batch
            begin = _start(story, parts, flat, names[some]) if start is None else (start.loc[some], start[1][some])
            q = _Whitened(*begin, covariance)
            yield from q.maximise(model_densities(story, parts, flat), num_steps, particles, lr, seed, tolerance)
            found.append(q.normal())

    with task.running():
        for _ in track(all_steps(), "local inference", total=num_steps * len(starts), show=progress):
            pass
    return LocalNormal(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _start(story: Story, batch: tuple[Tensor, ...], flat: Unconstrained, names: list[bytes]) -> tuple[Tensor, Tensor]:
    """Where a Normal begins, `(batch, size)`, and a root of its covariance: the guide's moments in unbounded space.

    A point mass has no spread: there it begins as the Laplace approximation.
    """
    drawn = []
    with torch.no_grad():
        for row, name in enumerate(names):
            begin_stream(name, "local ")
            trace = run(story.guide, tuple(part[row : row + 1] for part in batch), START)
            drawn.append(flat.vector({site["name"]: site["value"] for site in latent_sites(trace)}))
    u = torch.cat(drawn, dim=1)
    scale = u.std(0)
    if (scale > 0).all():
        return u.mean(0), torch.diag_embed(scale)
    densities = model_densities(story, batch, flat)

    def log_p(u: Tensor) -> Tensor:
        return densities(u.unsqueeze(0))[0][0]

    mode = climb(log_p, u.mean(0), CLIMB)
    return mode, triangle(curvature(log_p, mode)[1])


class _Whitened:
    """N(loc, L L') for every datum in coordinates in which it starts as N(0, I), and its ascent."""

    def __init__(self, start: Tensor, root: Tensor, covariance: Covariance):  # (batch, size), (batch, size, size)
        self.start, self.full = start, covariance == "full"
        self.root = root if self.full else torch.diag_embed(root.norm(dim=-1))  # the same variances
        self.loc = torch.zeros_like(start).requires_grad_()
        self.log_diagonal = torch.zeros_like(start).requires_grad_()
        self.lower = start.new_zeros(*start.shape, start.shape[-1]).requires_grad_()

    def scale_tril(self) -> Tensor:
        diagonal = torch.diag_embed(self.log_diagonal.exp())
        return self.lower.tril(-1) + diagonal if self.full else diagonal

    def normal(self) -> LocalNormal:
        """In unbounded space."""
        with torch.no_grad():
            return LocalNormal(self._placed(self.loc), self.root @ self.scale_tril())

    def _placed(self, v: Tensor) -> Tensor:
        return self.start + (self.root @ v.unsqueeze(-1)).squeeze(-1)

    def maximise(
        self,
        densities: Callable[[Tensor], tuple[Tensor, Tensor]],
        steps: int,
        draws: int,
        lr: float,
        seed: int,
        tolerance: float | None,
    ) -> Iterator[None]:
        """Adam on the sum of every datum's ELBO."""
        parameters = [self.loc, self.log_diagonal, *([self.lower] if self.full else [])]

        def elbo(noise: Tensor) -> Tensor:
            tril = self.scale_tril()
            v = self.loc + (tril @ noise.expand(-1, len(self.loc), -1).unsqueeze(-1)).squeeze(-1)
            log_p, _ = densities(self._placed(v))  # (draws, batch)
            return log_p.mean(0) + self.log_diagonal.sum(-1)

        yield from ascend(parameters, elbo, self.loc.shape[-1], steps, draws, lr, seed, tolerance)
