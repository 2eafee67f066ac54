"""The modified Bessel function against scipy's, and its derivatives against finite differences."""

import numpy as np
import pytest
import torch
from scipy import special

from ppvae.distributions.bessel import bessel_ratio, log_bessel


@pytest.mark.parametrize("order", [0, 0.5, 1, 3.5, 15.5, 31, 200])
def test_it_is_scipys_wherever_scipys_does_not_underflow(order):
    k = torch.logspace(-6, 5, 300, dtype=torch.float64)
    scaled, above = special.ive(order, k.numpy()), special.ive(order + 1, k.numpy())
    fine = above > 1e-290
    assert fine.sum() > 75
    expected = np.log(scaled[fine]) - order * np.log(k.numpy()[fine])
    np.testing.assert_allclose(log_bessel(order, k).numpy()[fine], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(bessel_ratio(order, k).numpy()[fine], above[fine] / scaled[fine], rtol=1e-12)


@pytest.mark.parametrize("order", [0, 0.5, 3.5, 200])
def test_at_zero_it_is_the_first_term_of_its_series(order):
    k = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value = log_bessel(order, k)
    assert value.item() == pytest.approx(-order * np.log(2) - special.gammaln(order + 1), abs=1e-11)
    assert bessel_ratio(order, k) == 0
    (slope,) = torch.autograd.grad(bessel_ratio(order, k), k)
    assert slope.item() == pytest.approx(1 / (2 * order + 2), rel=1e-12)


@pytest.mark.parametrize("order", [0, 0.5, 3.5, 31])
def test_derivatives_are_those_of_finite_differences(order):
    k = torch.tensor([1e-3, 0.7, 30.0, 1e3], dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda k: log_bessel(order, k), k)
    torch.autograd.gradcheck(lambda k: bessel_ratio(order, k), k)
    torch.autograd.gradgradcheck(lambda k: log_bessel(order, k), k)


@pytest.mark.parametrize("k", [1e-6, 1.0, 1e5])
def test_float32_has_all_its_digits(k):
    k = torch.tensor(k, requires_grad=True)
    value = log_bessel(1.5, k)
    value.backward()
    exact = torch.tensor(k.item(), dtype=torch.float64, requires_grad=True)
    log_bessel(1.5, exact).backward()
    assert value.dtype == k.grad.dtype == torch.float32
    torch.testing.assert_close(value.item(), log_bessel(1.5, exact).item(), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(k.grad.item(), exact.grad.item(), rtol=1e-6, atol=0)
