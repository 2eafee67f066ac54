"""The fit of the weights' tail, against known tails and an independent library."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from arviz_stats.base import array_stats

from ppvae.inference import pareto_k
from ppvae.inference.evidence.tail import fit_tail


@pytest.mark.parametrize("scale", [0.3, 0.5, 0.7, 0.9])
def test_pareto_k_of_a_narrow_normal_proposal_is_one_minus_its_variance(scale):
    """w = p / q for q = N(0, s^2), p = N(0, 1) has a regularly varying tail with index 1 - s^2."""
    torch.manual_seed(0)
    repeats, particles = 50, 40_000
    z = scale * torch.randn(particles, repeats).double()
    log_w = dist.Normal(0.0, 1.0).log_prob(z) - dist.Normal(0.0, scale).log_prob(z)
    k = pareto_k(log_w)
    # a slowly varying factor (log w)^-1/2 biases the fit at any finite sample: a stated 0.07, beside 4 standard errors
    tolerance, truth = 0.07 + 4 * k.std().item() / math.sqrt(repeats), 1 - scale**2
    assert abs(k.mean().item() - truth) < tolerance
    assert (k.mean() > 0.7).item() == (truth > 0.7) or abs(truth - 0.7) < tolerance  # 0.75 is too near to tell


def test_pareto_k_agrees_with_arviz():
    torch.manual_seed(0)
    for scale, particles in [(0.5, 100), (1.0, 1000), (3.0, 5000)]:
        log_w = scale * torch.randn(particles, 20).double()
        _, expected = array_stats.psislw(-log_w.T.numpy(), axis=-1)  # takes negated log-weights
        np.testing.assert_allclose(pareto_k(log_w).numpy(), expected, atol=1e-9)


def test_pareto_k_of_weights_without_a_tail():
    assert pareto_k(torch.zeros(100, 2)).eq(-torch.inf).all()
    assert pareto_k(1e-5 * torch.randn(100, 2)).eq(-torch.inf).all()
    assert pareto_k(torch.randn(10, 2)).isnan().all()
    bounded = torch.cat([torch.zeros(50, 1), -10 * torch.ones(50, 1)])
    assert pareto_k(bounded).item() == -torch.inf


def test_pareto_k_of_weights_of_two_values():
    """A discrete latent: the tail is bounded where its largest weight comes again and again."""
    often = torch.where(torch.rand(1000, 1) < 0.45, 0.0, -3.0)
    assert pareto_k(often).item() == -torch.inf
    rare = torch.full((1000, 1), -9.0)
    rare[:2] = 0.0
    assert pareto_k(rare).item() == torch.inf


def test_pareto_k_of_one_weight_that_dwarfs_the_rest_is_large_and_no_tie():
    """Small weights that differ are a tail, however small they are beside the largest."""
    log_w = 20 * torch.randn(1000, 3).double()
    k = pareto_k(log_w)
    assert k.isfinite().all()
    assert (k > 0.7).all()


@pytest.mark.parametrize("offset", [0.0, -700.0])
def test_the_tail_that_is_drawn_is_the_one_that_arviz_fits(offset):
    log_w = 1.5 * torch.randn(1000, 4).double() + offset
    tail = fit_tail(log_w)
    assert torch.equal(tail.k, pareto_k(log_w))
    for datum in range(4):
        ascending = log_w[:, datum].sort().values
        weights = (ascending - offset).exp().numpy()
        k, scale = array_stats._gpdfit(weights[-94:] - weights[-95])  # 3 sqrt 1000
        np.testing.assert_allclose(tail.k[datum], k, atol=1e-9)
        np.testing.assert_allclose(tail.log_scale[datum] - offset, math.log(scale), atol=1e-9)
        assert tail.log_cutoff[datum].item() == pytest.approx(ascending[-95].item(), abs=1e-12)
    assert tail.share.eq(0.094).all()


def test_the_fit_finds_the_scale_and_the_shape_of_a_generalised_pareto_tail():
    """w = scale / k ((1 - u)^-k - 1) has the same shape above every cut-off, and scale + k times the cut-off."""
    k, scale, repeats = 0.4, 3.0, 200
    u = torch.rand(20_000, repeats).double()
    tail = fit_tail((scale / k * ((1 - u) ** -k - 1)).log())
    assert abs(tail.k.mean().item() - k) < 0.01 + 4 * tail.k.std().item() / math.sqrt(repeats)  # drawn to 0.5
    ratio = tail.log_scale - (scale + k * tail.log_cutoff.exp()).log()
    assert abs(ratio.mean().item()) < 0.02 + 4 * ratio.std().item() / math.sqrt(repeats)


def test_where_no_curve_can_be_fitted_there_is_no_scale():
    few, constant = fit_tail(torch.randn(10, 2)), fit_tail(torch.zeros(100, 2))
    assert all(part.isnan().all() for part in few[:3])
    assert few.share.eq(0).all()
    assert constant.log_scale.isnan().all()
    assert constant.log_cutoff.eq(0).all()
