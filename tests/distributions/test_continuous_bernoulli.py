"""The continuous Bernoulli against scipy's truncated exponential, at any logit."""

import math

import pytest
import scipy.stats
import torch

from ppvae.distributions.continuous_bernoulli import ContinuousBernoulli

LOGITS = (-50.0, -20.0, -5.0, -0.11, -0.09, -1e-4, 0.0, 1e-4, 0.09, 0.11, 5.0, 20.0, 50.0)


@pytest.mark.parametrize("logit", [value for value in LOGITS if abs(value) > 1e-3])
def test_it_is_a_truncated_exponential(logit):
    """Which scipy has, falling on [0, 1]: a positive logit is its mirror."""
    p, oracle = (
        ContinuousBernoulli(torch.tensor(logit).double()),
        scipy.stats.truncexpon(abs(logit), 0, 1 / abs(logit)),
    )
    x = torch.linspace(0, 1, 7, dtype=torch.float64)
    expected = torch.tensor(oracle.logpdf((1 - x if logit > 0 else x).clamp(0, 1 - 1e-15).numpy()))
    torch.testing.assert_close(p.log_prob(x), expected, rtol=1e-6, atol=1e-7)
    mean = oracle.mean() if logit < 0 else 1 - oracle.mean()
    assert p.mean.item() == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logit", LOGITS)
def test_its_gradient_is_the_datum_less_the_mean(logit, dtype):
    """As of any exponential family: at 0, near it and far from it."""
    logits = torch.tensor(logit, dtype=dtype, requires_grad=True)
    p = ContinuousBernoulli(logits)
    p.log_prob(torch.tensor(0.25, dtype=dtype)).backward()
    assert logits.grad.item() == pytest.approx(0.25 - p.mean.item(), abs=2e-6)


def test_single_precision_keeps_its_mass():
    """PyTorch's own has a mass of 0.80 at a logit of 20."""
    x = (torch.arange(100_000) + 0.5) / 100_000
    for logit in LOGITS:
        mass = ContinuousBernoulli(torch.tensor(logit)).log_prob(x).exp().double().mean()
        assert mass.item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("logit", [-5.0, 0.0, 5e-4, 5.0])
def test_draws_pass_the_gradient_of_their_mean(logit):
    logits = torch.tensor(logit, dtype=torch.float64, requires_grad=True)
    p = ContinuousBernoulli(logits)
    expected = torch.autograd.grad(p.mean, logits)[0]
    many = logits.expand(100_000)
    slopes = torch.autograd.grad(ContinuousBernoulli(many).rsample().sum(), many)[0]
    assert (slopes.mean() - expected).abs() < 4 * slopes.std() / math.sqrt(len(slopes))


@pytest.mark.parametrize("logit", [-20.0, -1.0, -1e-4, 0.0, 1e-4, 1.0, 20.0])
def test_draws_have_its_distribution_function(logit):
    """u = F(x) = (e^(l x) - 1) / (e^l - 1) is uniform: its first two moments within 5 standard errors."""
    x = ContinuousBernoulli(torch.tensor(logit).double()).sample((20_000,))
    u = torch.expm1(logit * x) / math.expm1(logit) if logit else x
    assert abs(u.mean() - 1 / 2) < 5 * (1 / 12 / 20_000) ** 0.5
    assert abs(u.square().mean() - 1 / 3) < 5 * (4 / 45 / 20_000) ** 0.5


def test_shapes_expand():
    one = ContinuousBernoulli(torch.tensor([-1.0, 2.0]))
    p, x = one.expand((3, 2)), torch.tensor(0.3)
    assert p.batch_shape == p.mean.shape == p.sample().shape == (3, 2)
    assert p.rsample((4,)).shape == (4, 3, 2)
    torch.testing.assert_close(p.log_prob(x), one.log_prob(x).expand(3, 2))


def test_a_value_outside_the_unit_interval_is_refused():
    with pytest.raises(ValueError, match="within the support"):
        ContinuousBernoulli(torch.zeros(2), validate_args=True).log_prob(torch.tensor([0.5, 1.1]))
