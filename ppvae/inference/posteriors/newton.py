"""Newton's method uphill to the mode of every datum's density, and its curvature there."""

from collections.abc import Callable

import torch
from torch import Tensor

BALANCED = 8
"""Rounds by which rows and columns of a curvature come to one length: each takes the root of what is left to do."""


def triangle(root: Tensor) -> Tensor:
    """The lower triangle L with L L' = root root' and a positive diagonal."""
    lower = torch.linalg.qr(root.mT).R.mT
    return lower * lower.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)


def climb(log_p: Callable[[Tensor], Tensor], z: Tensor, steps: int) -> Tensor:
    """Newton steps uphill from z, `(batch, latent)`, each datum by itself; log_p is `(batch, latent)` to `(batch,)`."""
    best = log_p(z).detach()
    for _ in range(steps):
        gradient, root = curvature(log_p, z)
        step = (root @ (root.mT @ gradient.unsqueeze(-1))).squeeze(-1)
        climbed = torch.zeros_like(best, dtype=torch.bool)
        for shorter in (1.0, 0.5, 0.2, 0.05):
            tried = z + shorter * step
            with torch.no_grad():
                value = log_p(tried)
            better = (value > best) & ~climbed
            z, best = torch.where(better.unsqueeze(-1), tried, z), torch.where(better, value, best)
            climbed |= better
        if not climbed.any():
            break
    return z


def curvature(log_p: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of log_p at z, `(batch, latent)`, and R with R R' = |H|^-1, `(batch, latent, latent)`.

    |H| has the Hessian's eigenvectors and the absolute values of its eigenvalues, on a scale on which no dimension is
    curved more than another: codes may differ in size by many orders. There an eigenvalue is at least a millionth of
    the largest: a flat direction has a wide proposal, not an infinite one.
    """
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(log_p(z).sum(), z, create_graph=True)
        rows = [_derivative(column.sum(), z) for column in gradient.unbind(-1)]
    hessian, gradient = torch.stack(rows, dim=-2), gradient.detach()
    lost = ~(hessian.isfinite().all(-1).all(-1) & gradient.isfinite().all(-1))
    if lost.any():
        raise ValueError(
            f"log p(x, z) should be finite and smooth at a code; it is not for {int(lost.sum())} of the data"
        )
    scaled, scale = (hessian + hessian.mT) / 2, torch.ones_like(z)  # (batch, latent, latent), (batch, latent)
    for _ in range(BALANCED):
        length = scaled.norm(dim=-1)
        factor = torch.where(length > 0, length, 1).rsqrt()
        scaled, scale = factor.unsqueeze(-1) * scaled * factor.unsqueeze(-2), factor * scale
    values, axes = torch.linalg.eigh(scaled)
    values = values.abs()
    values = values.clamp_min(1e-6 * values.amax(-1, keepdim=True)).clamp_min(torch.finfo(z.dtype).tiny)
    return gradient, scale.unsqueeze(-1) * axes * values.rsqrt().unsqueeze(-2)


def _derivative(value: Tensor, z: Tensor) -> Tensor:
    if not value.requires_grad:  # log_p is linear in z
        return torch.zeros_like(z)
    (gradient,) = torch.autograd.grad(value, z, retain_graph=True, allow_unused=True, materialize_grads=True)
    return gradient
