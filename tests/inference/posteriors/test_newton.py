"""Newton's method uphill, the curvature at the top, and the triangle that it is kept as."""

import pytest
import torch

from ppvae.inference.posteriors.newton import climb, curvature, triangle


def quadratic(seed=0, size=4, scales=(1.0, 1.0, 1.0, 1.0)):
    """log p(z) = -1/2 (z - m)' P (z - m) in coordinates of such scales; with it m and P."""
    torch.manual_seed(seed)
    root = torch.randn(size, size).double() / torch.tensor(scales).double()
    m, precision = torch.randn(size).double(), root.mT @ root

    def log_p(z):
        off = z - m
        return -0.5 * (off @ precision * off).sum(-1)

    return log_p, m, precision


def test_newton_steps_go_uphill_and_a_saddle_is_left():
    def log_p(z):  # two hills, at -1 and at 1, and a saddle between them
        return -((z[:, 0] ** 2 - 1) ** 2) - z[:, 1] ** 2

    z = climb(log_p, torch.tensor([[0.01, 0.5], [-3.0, -2.0], [1.0, 0.0]]).double(), steps=30)
    torch.testing.assert_close(z, torch.tensor([[1.0, 0], [-1, 0], [1, 0]]).double(), atol=1e-6, rtol=0)
    _, root = curvature(log_p, torch.tensor([[0.0, 0.0]]).double())
    torch.testing.assert_close(root @ root.mT, torch.tensor([[[1 / 4, 0], [0, 1 / 2]]]).double())


def test_a_step_that_goes_too_far_is_shortened():
    """log p = -(sqrt(1 + z^2)): a whole Newton step from z = 2 leads to -8, and on to -512."""
    z = climb(lambda z: -(1 + z.square()).sqrt().sum(-1), torch.tensor([[2.0]]).double(), steps=20)
    torch.testing.assert_close(z, torch.zeros(1, 1).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scales", [(1.0, 1.0, 1.0, 1.0), (1e-3, 1.0, 3.0, 10.0), (1e-8, 1.0, 1e4, 1e8)])
def test_one_step_climbs_a_quadratic_and_its_curvature_is_the_precision(scales):
    log_p, m, precision = quadratic(scales=scales)
    start = m + torch.randn(6, 4).double() * torch.tensor(scales).double()
    z = climb(log_p, start, steps=1)
    torch.testing.assert_close((z - m) / torch.tensor(scales).double(), torch.zeros(6, 4).double(), atol=1e-7, rtol=0)
    gradient, root = curvature(log_p, start)
    torch.testing.assert_close(gradient, (m - start) @ precision)
    whitened = root.mT @ precision @ root
    torch.testing.assert_close(whitened, torch.eye(4).double().expand(6, 4, 4), atol=1e-6, rtol=0)


def test_no_datum_stops_another():
    """One begins at its mode, one below a cliff that no step may cross, and one has a way to go."""

    def log_p(z):
        return torch.where(z[:, 0] > 5, -torch.inf, -0.5 * z[:, 0].square())

    z = climb(log_p, torch.tensor([[0.0], [4.9], [-3.0]]).double(), steps=3)
    torch.testing.assert_close(z, torch.zeros(3, 1).double(), atol=1e-9, rtol=0)


def test_a_direction_that_says_nothing_is_wide_and_not_infinite():
    """Of log p = -z_1^2 / 2 + 3 z_2 the second has no curvature: a millionth of the largest stands for it."""
    gradient, root = curvature(lambda z: -z[:, 0].square() / 2 + 3 * z[:, 1], torch.tensor([[2.0, 7.0]]).double())
    assert gradient.tolist() == [[-2.0, 3.0]]
    torch.testing.assert_close(root @ root.mT, torch.diag(torch.tensor([1.0, 1e6]).double()).unsqueeze(0))


def test_a_density_that_is_not_smooth_is_refused():
    with pytest.raises(ValueError, match="finite and smooth at a code; it is not for 1 of the data"):
        curvature(lambda z: z[:, 0].sqrt(), torch.tensor([[1.0], [0.0]]).double())


def test_a_triangle_has_the_same_square_and_a_positive_diagonal():
    torch.manual_seed(0)
    root = torch.randn(5, 3, 3).double()
    lower = triangle(root)
    torch.testing.assert_close(lower, torch.linalg.cholesky(root @ root.mT))
