"""Levels cut from logistics, alone and mixed, against scipy's."""

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats
import torch

from ppvae.distributions.discretized_logistic import DiscretizedLogistic, DiscretizedLogisticMixture


def test_it_is_the_difference_of_two_logistics():
    p = DiscretizedLogistic(torch.tensor(0.2).double(), torch.tensor(0.3).double(), levels=5)
    cut = scipy.stats.logistic(0.2, 0.3).cdf([-0.75, -0.25, 0.25, 0.75])  # between the levels -1, -1/2, ... 1
    expected = torch.tensor([cut[0], *(cut[1:] - cut[:-1]), 1 - cut[-1]])
    torch.testing.assert_close(p.log_prob(torch.arange(5.0)), expected.log())


@pytest.mark.parametrize("log_scale", [-40.0, -20.0, -7.0, 0.0, 20.0, 40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_scale_loses_mass_or_gradient(log_scale, dtype):
    loc = torch.tensor(0.3, dtype=dtype, requires_grad=True)
    log_scale = torch.tensor(log_scale, dtype=dtype, requires_grad=True)
    log_mass = DiscretizedLogistic(loc, log_scale.exp(), levels=256).log_prob(torch.arange(256, dtype=dtype))
    assert log_mass.exp().sum().item() == pytest.approx(1, abs=1e-4 if dtype == torch.float32 else 1e-9)
    log_mass.sum().backward()
    assert log_mass.isfinite().all()
    assert loc.grad.isfinite()
    assert log_scale.grad.isfinite()


def cut(loc, scale, levels):
    """Masses by scipy: differences of the distribution function at the edges, the tails with the outer levels."""
    edges = (np.arange(1, levels) - 0.5) * 2 / (levels - 1) - 1
    below = np.concatenate([[0.0], scipy.stats.logistic(loc, scale).cdf(edges), [1.0]])
    return torch.tensor(np.diff(below))


@pytest.mark.parametrize(("loc", "scale"), [(0.2, 0.3), (-1.5, 0.1), (0.9, 2.0)])
def test_its_mean_and_draws_are_those_of_its_masses(loc, scale):
    p, masses = DiscretizedLogistic(torch.tensor(loc).double(), torch.tensor(scale).double(), 6), cut(loc, scale, 6)
    torch.testing.assert_close(p.mean, masses @ torch.arange(6.0).double())
    shares = p.sample((20_000,)).long().bincount(minlength=6) / 20_000
    assert ((shares - masses).abs() <= 5 * (masses * (1 - masses) / 20_000).sqrt() + 1 / 20_000).all()


def mixed():
    logits = torch.tensor([0.3, -0.5], dtype=torch.float64)
    parts = DiscretizedLogistic(torch.tensor([-0.6, 0.7]).double(), torch.tensor([0.1, 0.4]).double(), 6)
    masses = logits.softmax(0) @ torch.stack([cut(-0.6, 0.1, 6), cut(0.7, 0.4, 6)])
    return DiscretizedLogisticMixture(dist.Categorical(logits=logits), parts), masses


def test_a_mixture_has_the_masses_of_its_parts_by_their_weights():
    p, masses = mixed()
    levels = torch.arange(6.0).double()
    torch.testing.assert_close(p.log_prob(levels).exp(), masses)
    torch.testing.assert_close(p.mean, masses @ levels)
    assert p.support.is_discrete
    assert p.support.check(levels).all()
    assert not p.support.check(torch.tensor([-1.0, 0.5, 6.0])).any()
    shares = p.sample((20_000,)).long().bincount(minlength=6) / 20_000
    assert ((shares - masses).abs() < 5 * (masses * (1 - masses) / 20_000).sqrt()).all()


def test_shapes_expand():
    one, (many, _) = DiscretizedLogistic(torch.zeros(2), torch.ones(2), 6).expand((3, 2)), mixed()
    many = many.expand((3, 2))
    for p in (one, many):
        assert p.batch_shape == p.mean.shape == p.sample().shape == (3, 2)
        assert p.log_prob(p.sample((4,))).shape == (4, 3, 2)
    assert isinstance(many, DiscretizedLogisticMixture)


def test_a_level_that_is_none_is_refused():
    p = DiscretizedLogistic(torch.zeros(2), torch.ones(2), 6, validate_args=True)
    for value in (0.5, 6.0):
        with pytest.raises(ValueError, match="within the support"):
            p.log_prob(torch.tensor([0.0, value]))
