"""The Beta on a wider interval, against scipy's."""

import math

import pytest
import scipy.stats
import torch

from ppvae.distributions.stretched_beta import StretchedBeta

SHAPES = [(0.5, 0.5), (3.0, 1.5), (0.2, 7.0)]


def made(a, b, margin, **options):
    return StretchedBeta(torch.tensor(a).double(), torch.tensor(b).double(), margin, **options)


@pytest.mark.parametrize("margin", [0.0, 1e-3, 0.2])
@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_density_and_mean_are_scipys_with_a_place_and_a_scale(a, b, margin):
    oracle = scipy.stats.beta(a, b, -margin, 1 + 2 * margin)
    x = torch.linspace(0, 1, 9, dtype=torch.float64)
    x = x if margin else x[1:-1]  # where the interval is no wider, its ends have no density
    torch.testing.assert_close(made(a, b, margin).log_prob(x), torch.tensor(oracle.logpdf(x.numpy())))
    assert made(a, b, margin).mean.item() == pytest.approx(oracle.mean())


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_draws_lie_in_the_support_and_have_its_moments(a, b):
    p, oracle = made(a, b, 0.2), scipy.stats.beta(a, b, -0.2, 1.4)
    draws = p.sample((20_000,))
    assert p.support.check(draws).all()
    assert draws.min() < 0  # it is wider than [0, 1]
    for moment in (1, 2):
        powers = draws**moment
        assert abs(powers.mean() - oracle.moment(moment)) < 5 * powers.std() / 20_000**0.5


def test_the_gradient_of_draws_is_that_of_the_mean():
    a, b = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (3.0, 1.5))
    expected = torch.autograd.grad(StretchedBeta(a, b, 0.2).mean, (a, b))
    many = a.expand(20_000), b.expand(20_000)
    found = torch.autograd.grad(StretchedBeta(*many, 0.2).rsample().sum(), many)
    for slopes, slope in zip(found, expected, strict=True):
        assert (slopes.mean() - slope).abs() < 5 * slopes.std() / math.sqrt(20_000)


def test_the_ends_of_the_unit_interval_have_a_finite_density_and_gradient():
    a, b = (torch.tensor(value, requires_grad=True) for value in (1e-3, 1e3))
    log_prob = StretchedBeta(a, b).log_prob(torch.tensor([0.0, 1.0]))
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert a.grad.isfinite()
    assert b.grad.isfinite()


def test_shapes_expand_and_what_lies_outside_is_refused():
    p = StretchedBeta(torch.ones(2), torch.ones(2), 0.1).expand((3, 2))
    assert p.batch_shape == p.mean.shape == p.sample().shape == (3, 2)
    torch.testing.assert_close(p.log_prob(torch.tensor(0.3)), torch.full((3, 2), -math.log(1.2)))
    with pytest.raises(ValueError, match="within the support"):
        made(1.0, 1.0, 0.1, validate_args=True).log_prob(torch.tensor(-0.2).double())
