"""R-hat and effective draws of chains, against an independent library and processes whose answer is known."""

import math

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats

from ppvae.inference import effective_draws, r_hat


def autoregressive(correlation, *shape):
    """x_t = correlation x_{t-1} + noise, stationary from the first draw: `(chains, draws, ...)`."""
    noise = torch.randn(*shape).double()
    draws = torch.empty_like(noise)
    draws[:, 0] = noise[:, 0] / math.sqrt(1 - correlation**2)
    for t in range(1, shape[1]):
        draws[:, t] = correlation * draws[:, t - 1] + noise[:, t]
    return draws


@pytest.mark.parametrize("correlation", [-0.6, 0.0, 0.5, 0.95])
@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 5, 5), (3, 7, 5), (4, 50, 5), (4, 51, 5), (4, 400, 5)])
def test_both_agree_with_arviz(correlation, shape):
    draws = autoregressive(correlation, *shape)
    columns = [column.numpy() for column in draws.unbind(-1)]
    expected = [array_stats.rhat(column, method="split") for column in columns]
    np.testing.assert_allclose(r_hat(draws).numpy(), expected, rtol=1e-9)
    expected = [array_stats.ess(column, method="mean") for column in columns]
    np.testing.assert_allclose(effective_draws(draws).numpy(), expected, rtol=1e-6)  # ArviZ nudges correlations of 0


def test_both_agree_with_arviz_on_chains_that_have_not_met():
    draws = autoregressive(0.5, 4, 100, 3) + 3 * torch.arange(4).reshape(4, 1, 1)
    columns = [column.numpy() for column in draws.unbind(-1)]
    expected = [array_stats.ess(column, method="mean") for column in columns]
    np.testing.assert_allclose(effective_draws(draws).numpy(), expected, rtol=1e-9)
    expected = [array_stats.rhat(column, method="split") for column in columns]
    np.testing.assert_allclose(r_hat(draws).numpy(), expected, rtol=1e-9)


def test_r_hat_is_near_one_for_chains_that_agree_and_far_for_one_that_lies_elsewhere():
    draws = torch.randn(4, 1000, 20)
    assert (r_hat(draws) - 1).abs().max() < 0.01
    draws[0] += 4
    assert r_hat(draws).min() > 1.5
    assert effective_draws(draws).max() < 10


def test_r_hat_sees_chains_that_drift_together():
    assert r_hat(torch.randn(4, 1000, 5) + torch.linspace(0, 4, 1000).reshape(1, -1, 1)).min() > 1.1


@pytest.mark.parametrize("correlation", [-0.4, 0.0, 0.8])
def test_effective_draws_are_the_closed_form_of_an_autoregression(correlation):
    """tau = (1 + a) / (1 - a); each column's own estimate is within some percent, and their mean closer."""
    found = effective_draws(autoregressive(correlation, 4, 5000, 20)) * (1 + correlation) / (1 - correlation) / 20_000
    assert abs(found.mean().item() - 1) < 0.05
    assert (found - 1).abs().max() < 0.25


def test_any_shape_behind_the_draws_is_kept():
    draws = torch.randn(2, 100, 3, 4)
    for measure in (r_hat, effective_draws):
        assert measure(draws).shape == (3, 4)
        torch.testing.assert_close(measure(draws)[1, 2], measure(draws[:, :, 1, 2]))


def test_a_quantity_that_never_moved_says_nothing():
    still = torch.ones(2, 8)
    assert r_hat(still).isnan()
    assert effective_draws(still).isnan()
    assert r_hat(torch.tensor([[1.0], [2.0]]).expand(2, 8)) == torch.inf


@pytest.mark.parametrize("measure", [r_hat, effective_draws])
@pytest.mark.parametrize("shape", [(1, 100), (2, 3), (8,)])
def test_too_few_chains_or_draws_are_refused(measure, shape):
    with pytest.raises(ValueError, match=r"at least 2 of 4 draws; got \(" + str(shape[0])):
        measure(torch.randn(*shape))
