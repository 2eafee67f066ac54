"""Priors: shapes, densities that integrate to one, samples that match their density."""

import math

import pytest
import torch
from cases import PRIORS


@pytest.mark.parametrize("make", PRIORS.values(), ids=PRIORS)
class TestPriors:
    def test_shapes(self, make):
        prior = make(5)()
        assert (prior.batch_shape, prior.event_shape) == ((), (5,))
        assert prior.log_prob(torch.zeros(4, 3, 5)).shape == (4, 3)

    def test_the_density_integrates_to_one(self, make):
        axis = torch.linspace(-9, 9, 401, dtype=torch.float64)
        grid = torch.cartesian_prod(axis, axis)
        total = make(2).double()().log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2
        assert total.item() == pytest.approx(1, abs=1e-6)

    def test_samples_match_the_density(self, make):
        prior = make(2).double()()
        axis = torch.linspace(-9, 9, 401, dtype=torch.float64)
        grid = torch.cartesian_prod(axis, axis)
        mass = prior.log_prob(grid).exp() * (axis[1] - axis[0]) ** 2
        draws = prior.sample((20_000,))
        for power in (1, 2):
            expected = (mass.unsqueeze(-1) * grid**power).sum(0)
            error = (draws**power).std(0) / math.sqrt(len(draws))
            assert ((draws**power).mean(0) - expected).abs().max() < 4 * error.max()

    def test_bad_sizes_are_refused(self, make):
        with pytest.raises(ValueError, match="latent should be at least 1, got 0"):
            make(0)
