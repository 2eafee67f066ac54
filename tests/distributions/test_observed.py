"""A distribution of which only some elements are scored: what is not observed has no part in value or gradient."""

import pyro.distributions as dist
import pytest
import torch

from ppvae.distributions.observed import Observed

MASK = torch.tensor([[True, False, True], [False, False, True]])
FAMILIES = {  # each with three elements, and values that it can score
    "Normal": (lambda a: dist.Normal(a, 0.7), torch.tensor([0.3, -2.0, 1.0])),
    "Bernoulli": (lambda a: dist.Bernoulli(logits=a), torch.tensor([0.0, 1.0, 1.0])),
    "Poisson": (lambda a: dist.Poisson(a.exp()), torch.tensor([0.0, 3.0, 1.0])),
    "Exponential": (lambda a: dist.Exponential(a.exp()), torch.tensor([0.1, 3.0, 1.0])),
    "Beta": (lambda a: dist.Beta(a.exp(), 0.5 * torch.ones(())), torch.tensor([0.1, 0.9, 0.5])),
}


@pytest.mark.parametrize("junk", [torch.nan, torch.inf, -1.0, 0.0, 1.0])
@pytest.mark.parametrize("name", FAMILIES)
def test_only_what_is_observed_is_scored_whatever_stands_elsewhere(name, junk):
    make, x = FAMILIES[name]
    a = torch.tensor([0.2, -0.4, 0.9], requires_grad=True)
    expected = torch.where(MASK, make(a).log_prob(x), 0)
    log_prob = Observed(make(a), MASK).log_prob(torch.where(MASK, x, junk))
    torch.testing.assert_close(log_prob, expected)
    found, slope = (torch.autograd.grad(value.sum(), a)[0] for value in (log_prob, expected))
    torch.testing.assert_close(found, slope)


def test_nothing_passes_a_gradient_to_a_value_that_is_not_observed():
    x = torch.tensor([0.5, torch.nan], requires_grad=True)
    Observed(dist.Normal(torch.zeros(2), 1.0), torch.tensor([True, False])).log_prob(x).sum().backward()
    assert x.grad.tolist() == [-0.5, 0.0]


@pytest.mark.parametrize("name", FAMILIES)
def test_draws_and_moments_are_of_every_element(name):
    make, _ = FAMILIES[name]
    p = make(torch.tensor([0.2, -0.4, 0.9]))
    q = Observed(p, MASK)
    assert q.has_rsample == p.has_rsample
    torch.testing.assert_close(q.mean, p.mean.expand(2, 3))
    torch.testing.assert_close(q.variance, p.variance.expand(2, 3))
    torch.manual_seed(1)
    draws = q.sample((4,))
    torch.manual_seed(1)
    assert torch.equal(draws, p.expand((2, 3)).sample((4,)))


def test_the_support_is_free_where_nothing_is_observed():
    q = Observed(dist.Poisson(torch.ones(3)), MASK)
    assert q.support.is_discrete
    assert torch.equal(q.support.check(torch.full((2, 3), 0.5)), ~MASK)
    assert q.support.check(torch.ones(2, 3)).all()


def test_shapes_are_those_of_both():
    p = Observed(dist.Normal(torch.zeros(4, 1), 1.0), MASK[0])
    assert p.batch_shape == p.log_prob(torch.zeros(3)).shape == (4, 3)
    wide = p.expand((2, 4, 3))
    assert wide.batch_shape == wide.sample().shape == (2, 4, 3)
    torch.testing.assert_close(wide.log_prob(torch.ones(3)), p.log_prob(torch.ones(3)).expand(2, 4, 3))
    event = p.to_event(1)
    torch.testing.assert_close(event.log_prob(torch.ones(3)), 2 * dist.Normal(0.0, 1.0).log_prob(torch.ones(4)))
