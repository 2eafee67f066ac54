"""A Normal whose variance is fitted to what it scores, against scipy's at the variance that is best."""

import pyro.distributions as dist
import pytest
import scipy.stats
import torch

from ppvae.distributions.optimal_normal import OptimalNormal


def mean_square(square, mask):
    return square.mean() if mask is None else (square * mask).sum() / mask.expand_as(square).sum()


def fitted(loc, **options):
    return OptimalNormal(loc, torch.tensor(0.25, dtype=loc.dtype), fit=mean_square, **options)


def test_its_variance_is_the_one_of_highest_likelihood():
    loc, x = torch.randn(6, 3).double(), torch.randn(6, 3).double()
    found = fitted(loc).log_prob(x)
    best = ((x - loc).square().mean() ** 0.5).item()
    expected = scipy.stats.norm(loc.numpy(), best).logpdf(x.numpy())
    torch.testing.assert_close(found, torch.tensor(expected))
    for scale in (0.99 * best, 1.01 * best):
        assert scipy.stats.norm(loc.numpy(), scale).logpdf(x.numpy()).sum() < found.sum()


def test_its_gradient_is_that_of_the_logarithm_of_the_mean_square():
    """-n/2 (log 2 pi c + 1) at the best c, which is the mean square: the fit itself passes none."""
    loc, x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True), torch.randn(6, 3).double()
    found = torch.autograd.grad(fitted(loc).log_prob(x).sum(), loc)
    expected = torch.autograd.grad(-18 / 2 * (x - loc).square().mean().log(), loc)
    torch.testing.assert_close(found, expected)


def test_only_what_is_observed_has_a_part_in_the_variance():
    x, mask = torch.tensor([[2.0, 100.0], [-4.0, 50.0]]).double(), torch.tensor([True, False])
    for p in (fitted(torch.zeros(2, 2).double(), mask=mask), fitted(torch.zeros(2, 2).double()).observed(mask)):
        expected = dist.Normal(0.0, 10**0.5).log_prob(x[:, 0])  # of 4 and 16
        torch.testing.assert_close(p.log_prob(x)[:, 0], expected)
        torch.testing.assert_close(p.expand((3, 2, 2)).log_prob(x)[1, :, 0], expected)


def test_without_a_fit_it_is_the_normal_of_the_variance_that_is_given():
    loc, x = torch.tensor([0.5, -1.0]).double(), torch.tensor([1.0, 3.0]).double()
    p = OptimalNormal(loc, torch.tensor(0.25).double())
    torch.testing.assert_close(p.log_prob(x), torch.tensor(scipy.stats.norm(loc.numpy(), 0.5).logpdf(x.numpy())))


def test_moments_and_draws_are_of_the_variance_that_is_given():
    loc = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
    p = fitted(loc)
    assert torch.equal(p.mean, loc)
    assert p.variance.tolist() == [0.25, 0.25]
    draws = p.rsample((10_000,))
    w = ((draws - loc) / 0.5).detach()
    assert (w.mean(0).abs() < 5 / 10_000**0.5).all()
    assert ((w.square().mean(0) - 1).abs() < 5 * (2 / 10_000) ** 0.5).all()
    (slope,) = torch.autograd.grad(draws.mean(0).sum(), loc)
    torch.testing.assert_close(slope, torch.ones(2).double())
    assert p.expand((3, 2)).sample((4,)).shape == (4, 3, 2)


def test_a_value_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="within the support"):
        OptimalNormal(torch.zeros(2), torch.tensor(1.0), validate_args=True).log_prob(torch.tensor([0.0, torch.nan]))
