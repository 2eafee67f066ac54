"""Sylvester's transform: its Jacobian against autograd's, its inverse, and its inverse's gradient."""

import pytest
import torch

from ppvae.distributions.sylvester import TriangularSylvester


def transform(dim=3, flip=False, size=5):
    generator = torch.Generator().manual_seed(0)
    shapes = [(size, dim, dim), (size, dim), (size, dim), (size, dim)]
    matrix, r, s, b = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return matrix, r.tanh(), s.tanh(), b, flip


@pytest.mark.parametrize("flip", [False, True])
def test_the_log_determinant_is_that_of_autograds_jacobian(flip):
    f = TriangularSylvester(*transform(flip=flip))
    x = torch.randn(5, 3).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: f(x).sum(0), x).movedim(1, 0)  # (batch, out, in)
    y, log_det = f.call_and_ladj(x)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobian).logabsdet)
    torch.testing.assert_close(f.log_abs_det_jacobian(x, y), log_det)
    below = jacobian.tril(-1) if not flip else jacobian.triu(1)
    assert below.abs().max() == 0


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("leading", [(), (4,)])
def test_the_inverse_comes_back_and_its_gradient_is_right(flip, leading):
    given = transform(flip=flip)
    x = 3 * torch.randn(*leading, 5, 3).double()
    f = TriangularSylvester(*given)
    torch.testing.assert_close(f.inv(f(x)), x, atol=1e-11, rtol=0)
    given = [part.detach().requires_grad_() for part in given[:4]]
    torch.autograd.gradcheck(lambda y, *given: TriangularSylvester(*given, flip).inv(y), (x.requires_grad_(), *given))
