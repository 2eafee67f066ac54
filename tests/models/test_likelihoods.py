"""Likelihoods: shapes, densities that sum or integrate to one, samples and means that match."""

import math

import pytest
import torch
from cases import LIKELIHOODS
from torch import nn

from ppvae import networks


@pytest.mark.parametrize("name", LIKELIHOODS)
class TestLikelihoods:
    def make(self, name):
        torch.manual_seed(0)
        build = LIKELIHOODS[name][0]
        return build(networks.mlp(3, [4], 2 * build(nn.Identity()).outputs)).double()

    @pytest.mark.parametrize("leading", [(), (5,), (4, 5)])
    def test_any_leading_dimensions(self, name, leading):
        likelihood = self.make(name)(torch.randn(*leading, 3).double())
        assert (likelihood.batch_shape, likelihood.event_shape) == (leading, (2,))

    def points(self, name):
        """All values of one element, or a fine grid of them, and the width of a cell."""
        if name.startswith("Normal"):
            axis = torch.linspace(-6, 6, 601, dtype=torch.float64)
            return axis, axis[1] - axis[0]
        return torch.arange({"Bernoulli": 2, "Binomial": 5}[name]).double(), 1.0

    def test_the_density_sums_to_one(self, name):
        axis, width = self.points(name)
        likelihood = self.make(name)(torch.randn(3).double())
        mass = likelihood.log_prob(torch.cartesian_prod(axis, axis)).exp() * width**2
        assert mass.sum().item() == pytest.approx(1, abs=1e-6)

    def test_samples_and_mean_match_the_density(self, name):
        axis, width = self.points(name)
        likelihood = self.make(name)(torch.randn(3).double())
        grid = torch.cartesian_prod(axis, axis)
        mass = likelihood.log_prob(grid).exp().unsqueeze(-1) * width**2
        torch.testing.assert_close((mass * grid).sum(0), likelihood.mean, atol=1e-6, rtol=0)
        draws = likelihood.sample((20_000,))
        for power in (1, 2):
            error = (draws**power).std(0) / math.sqrt(len(draws))
            difference = (draws**power).mean(0) - (mass * grid**power).sum(0)
            assert (difference.abs() < 4 * error).all()
