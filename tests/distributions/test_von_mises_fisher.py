"""Distributions on the sphere against quadrature, scipy and each other."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from ppvae.distributions.von_mises_fisher import SphereUniform, VonMisesFisher, _angle_slope, _draw_angle, log_surface

CONCENTRATIONS = [0.0, 0.5, 5.0, 300.0]


def unit(*values):
    loc = torch.tensor(values, dtype=torch.float64)
    return loc / loc.norm()


def circle(size=4001):
    angle = torch.arange(size, dtype=torch.float64) * 2 * math.pi / size
    return torch.stack([angle.cos(), angle.sin()], -1), 2 * math.pi / size  # points, weight of each


def sphere(size=201, rings=1200):
    """The sphere in R^3: Gauss-Legendre along its axis, evenly around it."""
    height, weight = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(rings))
    around, step = circle(size)
    points = (1 - height**2).sqrt()[:, None, None] * around
    points = torch.cat([points, height[:, None, None].expand(-1, size, 1)], -1)
    return points.reshape(-1, 3), (weight[:, None] * step).expand(-1, size).reshape(-1)


GRIDS = {2: circle(), 3: sphere()}
LOCS = {2: unit(0.6, -0.8), 3: unit(0.3, -2.0, 0.5)}


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("k", CONCENTRATIONS)
class TestAgainstQuadrature:
    def test_the_density_integrates_to_one_and_has_this_mean_and_entropy(self, dim, k):
        points, weight = GRIDS[dim]
        q = VonMisesFisher(LOCS[dim], k)
        mass = q.log_prob(points).exp() * weight
        assert mass.sum().item() == pytest.approx(1, abs=1e-9)
        mean = mass @ points
        torch.testing.assert_close(q.mean, mean, atol=1e-9, rtol=0)
        torch.testing.assert_close(q.entropy(), -(mass * q.log_prob(points)).sum(), atol=1e-8, rtol=0)

    def test_samples_have_the_moments_of_the_density(self, dim, k):
        torch.manual_seed(0)
        points, weight = GRIDS[dim]
        q = VonMisesFisher(LOCS[dim], k)
        draws = q.sample((20_000,))
        mass = q.log_prob(points).exp() * weight
        for moment in (lambda z: z, lambda z: z[:, :1] * z, lambda z: (z @ LOCS[dim])[:, None] ** 4):
            values = moment(draws)
            error = values.std(0) / math.sqrt(len(values))
            assert ((values.mean(0) - mass @ moment(points)).abs() < 4 * error + 1e-12).all()

    def test_the_gradient_of_an_expectation_is_that_of_the_quadrature(self, dim, k):
        """With respect to the concentration and, across the sphere, to loc."""
        torch.manual_seed(0)
        points, weight = GRIDS[dim]
        given = (LOCS[dim].clone().requires_grad_(), torch.tensor(k, dtype=torch.float64, requires_grad=True))

        def f(z):
            return (1.5 * z[..., 0] + z[..., 1] ** 3 - z[..., -1]).exp()

        def unit_loc(loc):
            return loc / loc.norm(dim=-1, keepdim=True)

        q = VonMisesFisher(unit_loc(given[0]), given[1])
        exact = torch.autograd.grad((f(points) * q.log_prob(points).exp() * weight).sum(), given)
        rows = [part.detach().expand(20_000, *part.shape).clone().requires_grad_() for part in given]
        draws = VonMisesFisher(unit_loc(rows[0]), rows[1]).rsample()
        for estimate, value in zip(torch.autograd.grad(f(draws).sum(), rows), exact, strict=True):
            error = estimate.std(0) / math.sqrt(len(estimate))
            assert ((estimate.mean(0) - value).abs() < 4 * error + 1e-12).all()


@pytest.mark.parametrize("dim", [2, 3, 10, 500])
@pytest.mark.parametrize("k", [0.0, 3.0, 2e3, 1e5])
def test_the_slope_of_a_draw_is_that_of_its_quantile(dim, k):
    """dt/dk along a quantile, from scipy's integrals of the density's derivative."""
    torch.manual_seed(0)
    angle = _draw_angle(torch.full((4,), k).double(), dim)
    slope = _angle_slope(angle, torch.full((4,), k).double(), dim)
    peak = angle[0].item()  # any point of the bulk, so that nothing overflows

    def log_p(t):
        return k * (math.cos(t) - math.cos(peak)) + (dim - 2) * math.log(math.sin(t) / math.sin(peak))

    def integral(f, a, b):
        return sum(integrate.quad(f, *ends, limit=200, epsabs=0)[0] for ends in pairwise(np.linspace(a, b, 9)))

    spread = 12 / math.sqrt(max(k + dim - 2, 0.5))
    low, high = max(1e-12, peak - spread), min(math.pi - 1e-12, peak + spread)
    total = integral(lambda t: math.exp(log_p(t)), low, high)
    mean = integral(lambda t: math.cos(t) * math.exp(log_p(t)), low, high) / total
    for t, got in zip(angle.tolist(), slope.tolist(), strict=True):
        part = integral(lambda s: (math.cos(s) - mean) * math.exp(log_p(s) - log_p(t)), low, t)  # noqa: B023
        assert got == pytest.approx(-part, rel=1e-6, abs=1e-12)


def test_it_is_scipys():
    generator = np.random.default_rng(0)
    for dim, k in [(2, 1.0), (5, 20.0), (50, 100.0)]:
        loc = generator.normal(size=dim)
        loc /= np.linalg.norm(loc)
        theirs = stats.vonmises_fisher(loc, k)
        z = theirs.rvs(6, random_state=generator).reshape(6, dim)
        ours = VonMisesFisher(torch.from_numpy(loc), k)
        np.testing.assert_allclose(ours.log_prob(torch.from_numpy(z)).numpy(), theirs.logpdf(z), rtol=1e-10)
        assert ours.entropy().item() == pytest.approx(theirs.entropy(), rel=1e-10)


@pytest.mark.parametrize("dim", [2, 3, 30])
def test_without_concentration_it_is_uniform(dim):
    uniform = SphereUniform(dim, like=torch.zeros((), dtype=torch.float64))
    z = uniform.sample((5,))
    nothing = VonMisesFisher(z[0], 0.0)
    torch.testing.assert_close(nothing.log_prob(z), uniform.log_prob(z))
    torch.testing.assert_close(nothing.entropy(), uniform.entropy())
    assert nothing.mean.eq(0).all()


def test_the_uniform_density_is_one_over_the_surface_and_its_samples_have_these_moments():
    assert math.exp(log_surface(2)) == pytest.approx(2 * math.pi)
    assert math.exp(log_surface(3)) == pytest.approx(4 * math.pi)
    assert math.exp(log_surface(4)) == pytest.approx(2 * math.pi**2)
    torch.manual_seed(0)
    draws = SphereUniform(3).expand((7,)).sample((20_000,)).reshape(-1, 3)
    error = 1 / math.sqrt(len(draws))
    assert (draws.mean(0).abs() < 4 * error / math.sqrt(3)).all()
    assert ((draws**2).mean(0) - 1 / 3).abs().max() < 4 * error * math.sqrt(1 / 5 - 1 / 9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [0.0, 1.0, 1e5])
def test_draws_lie_in_the_support_in_any_precision(dtype, k):
    torch.manual_seed(0)
    for dim in (2, 3, 50):
        loc = SphereUniform(dim, like=torch.zeros((), dtype=dtype)).expand((2000,)).sample()
        draws = VonMisesFisher(loc, k).sample()
        assert draws.dtype == dtype
        assert VonMisesFisher.support.check(draws).all()
        assert VonMisesFisher(loc, k).log_prob(draws).isfinite().all()


def test_log_density_and_gradient_keep_their_digits_at_a_high_concentration_in_float32():
    torch.manual_seed(0)
    loc = torch.nn.functional.normalize(torch.randn(100, 5), dim=-1)
    k = torch.full((100,), 1e5, requires_grad=True)
    z = VonMisesFisher(loc, k).sample()
    value = VonMisesFisher(loc, k).log_prob(z)
    exact = VonMisesFisher(*(torch.nn.functional.normalize(loc.double(), dim=-1), k.double())).log_prob(
        torch.nn.functional.normalize(z.double(), dim=-1)
    )
    torch.testing.assert_close(value.double(), exact, atol=2e-3, rtol=0)


def test_shapes_broadcast_and_expand():
    loc = torch.nn.functional.normalize(torch.randn(4, 1, 3), dim=-1)
    q = VonMisesFisher(loc, torch.rand(5))
    assert (q.batch_shape, q.event_shape, q.sample().shape) == ((4, 5), (3,), (4, 5, 3))
    wide = q.expand((2, 4, 5))
    draws = wide.rsample()
    assert draws.shape == (2, 4, 5, 3)
    assert not torch.equal(draws[0], draws[1])
    torch.testing.assert_close(wide.log_prob(draws)[1], q.log_prob(draws[1]))
    assert SphereUniform(3).expand((4,)).log_prob(draws[0].movedim(1, 0)).shape == (5, 4)
    assert SphereUniform(3).expand((4,)).mean.shape == (4, 3)


def test_a_concentration_that_is_not_a_number_gives_draws_that_are_not():
    """A fit that went astray ends with a message; it does not hang."""
    loc = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    draws = VonMisesFisher(loc, torch.tensor([math.nan, 1.0]), validate_args=False).sample()
    assert draws.isnan().all(-1).tolist() == [True, False]


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="dim of a sphere should be at least 2, got 1"):
        SphereUniform(1)
    with pytest.raises(ValueError, match="dim of a sphere should be at least 2, got 1"):
        VonMisesFisher(torch.ones(1), 1.0)
    with pytest.raises(ValueError, match="loc"):
        VonMisesFisher(torch.ones(3), 1.0)
    with pytest.raises(ValueError, match="concentration"):
        VonMisesFisher(unit(1, 0), -1.0)
    with pytest.raises(ValueError, match="support"):
        VonMisesFisher(unit(1, 0), 1.0).log_prob(torch.ones(2).double())
