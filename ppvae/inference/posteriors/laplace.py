"""The Laplace approximation at every datum's code."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import constraints
from pyro.poutine import Trace
from torch import Tensor

from ppvae.base import Batch, Story
from ppvae.inference.posteriors.newton import climb, curvature, triangle
from ppvae.inference.program.answers import Answer
from ppvae.inference.program.checks import hot_loop
from ppvae.inference.program.codes import at_codes, at_means, by_datum, code_sites
from ppvae.inference.program.prepared import Prepared, prepared
from ppvae.inference.program.streams import own_generators
from ppvae.inference.program.traces import Site, evaluating, is_auxiliary, is_point_mass, latent_sites, support_of
from ppvae.inference.program.weights import joint_trace, log_joint
from ppvae.progress import track

ROWS = 512
"""Data whose modes are searched for at once. It bounds the memory."""


@dataclass(frozen=True)
class Laplace(Answer):
    """N(loc, L L') for every datum: a mode of p(z | x), and the inverse curvature of log p(x, z) there."""

    loc: Tensor  # (batch, latent), laid out as `encode` has them
    scale_tril: Tensor  # L: (batch, latent, latent)

    def summary(self) -> dict[str, Any]:
        """How wide the Normals are."""
        deviation = self.scale_tril.norm(dim=-1)
        return {"data": len(self.loc), "latent": self.loc.shape[-1], "mean_deviation": deviation.mean().item()}

    def columns(self) -> dict[str, Sequence[Any]]:
        """A row for each datum and dimension of its code."""
        rows, size = self.loc.shape
        return {
            "datum": [datum for datum in range(rows) for _ in range(size)],
            "dimension": list(range(size)) * rows,
            "mode": self.loc.flatten().tolist(),
            "deviation": self.scale_tril.norm(dim=-1).flatten().tolist(),
        }


def laplace(story: Story, data: Batch | Prepared, *, newton_steps: int = 8, progress: bool = True) -> Laplace:
    """The mode of p(z | x) that lies uphill of the guide's mean, and the Normal of the same curvature there.

    log p(x, z) = log p(x, m) - 1/2 (z - m)' H (z - m) + ..., so that p(z | x) is about N(m, H^-1). From the code m is
    searched for by Newton's method, on the absolute curvature, which no saddle attracts (Dauphin et al. 2014,
    https://arxiv.org/abs/1406.2572); a step is shortened until it goes uphill. MacKay 2003, chapter 27,
    https://www.inference.org.uk/mackay/itila/

    Args:
        story: any object with `model` and `guide` whose code is real numbers, unbounded.
        data: `(batch, features)`, or a tuple of tensors of equal length.
        newton_steps: of Newton's method, at most.
        progress: whether to show a bar.

    Raises:
        ValueError: a code that is not of unbounded real numbers; no finite density, or curvature, at a code; a program
            that cannot be differentiated twice in z.
    """
    if newton_steps < 0:
        raise ValueError(f"steps should not be negative, got {newton_steps}")
    task = prepared(story, data)
    check_code(story, task.first)
    with task.running():
        try:
            chunks = track(task.chunks(ROWS), "modes of p(z | x)", show=progress)
            found = [_of_rows(story, some.batch, newton_steps) for some in chunks]
        except RuntimeError as error:
            said = " ".join(str(error).split())
            raise ValueError(f"log p(x, z) should have two derivatives in z, but: {said}") from error
    return Laplace(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def held_sites(guide: Trace) -> list[Site]:
    """Latents that are no code."""
    codes = {site["name"] for site in code_sites(guide)}
    return [site for site in latent_sites(guide) if site["name"] not in codes]


def _of_rows(story: Story, batch: tuple[Tensor, ...], steps: int) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        trace = at_means(story, batch)
        start = torch.cat([by_datum(site["fn"], site["value"]) for site in code_sites(trace)], dim=-1)

    def log_p(z: Tensor) -> Tensor:
        return log_joint(story, batch, at_codes(trace, z.unsqueeze(0)), particles=1)[0]

    z = climb(log_p, start, steps)  # (batch, latent)
    return z, triangle(curvature(log_p, z)[1])


def check_code(story: Story, datum: tuple[Tensor, ...]) -> None:
    """Refuse a code that has no room around it: names, places on a sphere, shares that sum to one."""
    with torch.no_grad(), own_generators(), hot_loop():
        guide = at_means(story, datum)
        sites = list(latent_sites(guide))
        if any(is_auxiliary(site) for site in sites):
            raise ValueError("the Laplace approximation needs latents with a density of their own, not auxiliary ones")
        with evaluating(story):
            model = joint_trace(story, datum, {site["name"]: site["value"] for site in sites}, particles=1)
    codes = [site["name"] for site in code_sites(guide)]
    if not codes:
        raise ValueError("the Laplace approximation needs a code, and this story has none")
    for site in sites:
        name, support = site["name"], support_of(model.nodes[site["name"]]["fn"])
        if name not in codes and not is_point_mass(site["fn"]):
            raise ValueError(f"latent site '{name}' is no code: the Laplace approximation needs a point mass for it")
        if name in codes and support not in (None, constraints.real):
            raise ValueError(
                f"the Laplace approximation needs a code of unbounded real numbers; latent site '{name}' has the "
                f"support {support}: use importance, with a guide for it"
            )
