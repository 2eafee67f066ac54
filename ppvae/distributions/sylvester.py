"""Sylvester's transform: a flow with a cheap Jacobian, and an inverse by bisection."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, constraints


class TriangularSylvester(Transform):
    """f(y) = y + R tanh(S y + b), R and S upper triangular, with |diag R|, |diag S| < 1 so that f is one-to-one.

    log |det df/dy| = sum_i log(1 + r_i s_i tanh'(S y + b)_i). With `flip`, y and f(y) are read from last to first, so
    that in a chain of these every dimension comes to depend on every other. The inverse, for the density of points
    that are not its own draws, is by bisection from the last dimension to the first, to all digits; it passes a
    gradient. Van den Berg et al. 2018 (T-SNF), https://arxiv.org/abs/1803.05649

    Args:
        matrix: R above the diagonal, S (transposed) below it, `(..., dim, dim)`.
        r, s: their diagonals, `(..., dim)`, within (-1, 1).
        b: `(..., dim)`.
        flip: whether dimensions are taken in reverse.

    >>> f = TriangularSylvester(torch.randn(2, 2), *torch.full((3, 2), 0.5))
    >>> y = torch.randn(5, 2)
    >>> torch.allclose(f.inv(f(y)), y, atol=1e-5)
    True
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, matrix: Tensor, r: Tensor, s: Tensor, b: Tensor, flip: bool = False):
        super().__init__()
        self.R = matrix.triu(1) + torch.diag_embed(r)
        self.S = matrix.mT.triu(1) + torch.diag_embed(s)
        self.diagonal, self.b, self.flip = r * s, b, flip

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(x) and its log-determinant in one pass, as zuko's flows ask for them."""
        y = self._order(x)
        h = torch.tanh(_apply(self.S, y) + self.b)
        return self._order(y + _apply(self.R, h)), torch.log1p(self.diagonal * (1 - h.square())).sum(-1)

    def _call(self, x: Tensor) -> Tensor:
        return self.call_and_ladj(x)[0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self.call_and_ladj(x)[1]

    def _inverse(self, y: Tensor) -> Tensor:
        """The root, and one step of Newton's from it: nothing to the value, but it passes the gradient."""
        target = self._order(y)
        with torch.no_grad():
            root = self._bisect(target)
            h = torch.tanh(_apply(self.S, root) + self.b)
            slope = (1 - h.square()).unsqueeze(-1) * self.S
            jacobian = torch.eye(root.shape[-1]).to(root) + self.R @ slope  # upper triangular
        error = root + _apply(self.R, torch.tanh(_apply(self.S, root) + self.b)) - target
        jacobian = jacobian.expand(*error.shape, -1)
        step = torch.linalg.solve_triangular(jacobian, error.unsqueeze(-1), upper=True).squeeze(-1)
        return self._order(root - step)

    def _bisect(self, target: Tensor, steps: int = 60) -> Tensor:
        shape = torch.broadcast_shapes(target.shape, self.b.shape)
        root = torch.zeros(shape, dtype=target.dtype, device=target.device)
        h = torch.zeros_like(root)
        for i in reversed(range(shape[-1])):  # what a row holds right of the diagonal is known
            left = target[..., i] - (self.R[..., i, :] * h).sum(-1)
            offset = (self.S[..., i, :] * root).sum(-1) + self.b[..., i]
            r, s = self.R[..., i, i], self.S[..., i, i]
            low, high = left - r.abs(), left + r.abs()
            for _ in range(steps):
                middle = (low + high) / 2
                above = middle + r * torch.tanh(s * middle + offset) > left
                low, high = torch.where(above, low, middle), torch.where(above, middle, high)
            root[..., i] = (low + high) / 2
            h[..., i] = torch.tanh(s * root[..., i] + offset)
        return root

    def _order(self, y: Tensor) -> Tensor:
        return y.flip(-1) if self.flip else y


def _apply(matrix: Tensor, vector: Tensor) -> Any:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
