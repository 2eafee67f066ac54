"""Every likelihood: shapes, densities that sum or integrate to one, samples and means that match, extremes, gaps."""

import inspect
import itertools
import math
from functools import partial

import pytest
import torch
from cases import LIKELIHOODS
from torch import nn

from ppvae import networks
from ppvae.models import likelihoods
from ppvae.models.missing import observed

T = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000  # midpoints of cells of (0, 1)


def real_line():
    """x = tan: any tail that has a mean is integrated."""
    angle = math.pi * (T - 0.5)
    return angle.tan(), math.pi / angle.cos() ** 2 / len(T)


def interval(low, high):
    """x = t^4 / (t^4 + (1 - t)^4): so is any density that is infinite at an end."""
    u = T**4 / (T**4 + (1 - T) ** 4)
    width = 4 * (T * (1 - T)) ** 3 / (T**4 + (1 - T) ** 4) ** 2
    return low + (high - low) * u, (high - low) * width / len(T)


def whole(count):
    return torch.arange(count).double(), torch.ones(count).double()


AXES = {  # name: every value of an element, or a fine grid of them, and the widths of the cells; one for every column
    "Bernoulli": [whole(2)] * 2,
    "Binomial": [whole(5)] * 2,
    "BetaBinomial": [whole(5)] * 2,
    "Poisson": [whole(200)] * 2,
    "NegativeBinomial": [whole(200)] * 2,
    "ZeroInflatedNegativeBinomial": [whole(200)] * 2,
    "ContinuousBernoulli": [interval(0, 1)] * 2,
    "Beta": [interval(-1e-3, 1 + 1e-3)] * 2,
    "Categorical": [whole(4)] * 2,
    "DiscretizedLogistic": [whole(8)] * 2,
    "DiscretizedLogisticMixture": [whole(8)] * 2,
    "Heterogeneous": [real_line(), whole(3)],
}


def masses(p, axes):
    """For every column its values and their probabilities under p, batch_shape (): the others are held fixed."""
    for column, (axis, width) in enumerate(axes):
        x = torch.stack([other[0][:1].expand_as(axis) for other in axes], dim=-1)
        x[:, column] = axis
        yield axis, p.base_dist.log_prob(x)[:, column].exp() * width


@pytest.mark.parametrize("name", LIKELIHOODS)
class TestLikelihoods:
    def make(self, name, network=None):
        torch.manual_seed(0)
        build = LIKELIHOODS[name][0]
        if "features" in inspect.signature(build).parameters:
            build = partial(build, features=2)
        return build(network or networks.mlp(3, [4], 2 * build(nn.Identity()).outputs)).double().eval()

    def axes(self, name):
        return AXES.get(name.split()[0], [real_line()] * 2)

    @pytest.mark.parametrize("leading", [(), (5,), (4, 5)])
    def test_any_leading_dimensions(self, name, leading):
        likelihood = self.make(name)
        p = likelihood(torch.randn(*leading, 3).double())
        assert (p.batch_shape, p.event_shape) == (leading, (2,))
        assert p.log_prob(p.sample()).shape == leading
        assert p.mean.shape == p.sample().shape == (*leading, 2)
        assert p.mean.dtype == p.sample().dtype == torch.float64

    def test_its_elements_are_independent(self, name):
        p, x = self.make(name)(torch.randn(3).double()), LIKELIHOODS[name][1]().double()
        torch.testing.assert_close(p.log_prob(x), p.base_dist.log_prob(x).sum(-1))

    def test_an_expanded_one_is_the_same(self, name):
        p, x = self.make(name)(torch.randn(3).double()), LIKELIHOODS[name][1]().double()
        torch.testing.assert_close(p.expand((4, 6)).log_prob(x), p.log_prob(x).expand(4, 6))
        assert p.expand((4, 6)).sample().shape == p.expand((4, 6)).mean.shape == (4, 6, 2)

    def test_the_density_sums_to_one(self, name):
        p = self.make(name)(torch.randn(3).double())
        for axis, mass in masses(p, self.axes(name)):
            if len(axis) == 200:  # no more than a geometric tail is left out
                ratio = mass[100] / mass[99]
                assert mass[100:].sum() + mass[-1] * ratio / (1 - ratio) < 1e-9
            assert mass.sum().item() == pytest.approx(1, abs=1e-6)

    def test_samples_and_mean_match_the_density(self, name):
        p = self.make(name)(torch.randn(3).double())
        draws = p.sample((20_000,))
        for column, (axis, mass) in enumerate(masses(p, self.axes(name))):
            assert p.mean[column].item() == pytest.approx((mass * axis).sum().item(), abs=1e-6)
            for statistic in (lambda x: x, torch.cos, torch.sin):
                values = statistic(draws[:, column])
                error = values.std() / math.sqrt(len(values))
                assert (values.mean() - (mass * statistic(axis)).sum()).abs() < 4 * error

    def test_data_and_draws_lie_in_the_support(self, name):
        p = self.make(name)(torch.randn(3).double())
        assert p.support.check(LIKELIHOODS[name][1]().double()).all()
        assert p.support.check(p.sample((100,))).all()
        assert not p.support.check(torch.full((2,), torch.nan).double())
        assert p.support.is_discrete == all(len(axis) < 1000 for axis, _ in self.axes(name))

    @pytest.mark.parametrize("pattern", [(50, 50), (-50, -50), (50, -50), (-50, 50)])
    def test_extreme_outputs_leave_everything_finite(self, name, pattern):
        """In single precision, wherever the network has gone."""
        outputs = self.make(name).network[-1].out_features
        values = torch.tensor(list(itertools.islice(itertools.cycle(p for p in pattern for _ in range(2)), outputs)))
        constant = nn.Linear(3, outputs)
        constant.load_state_dict({"weight": torch.zeros(outputs, 3), "bias": values.float()})
        likelihood = self.make(name, constant).float()
        for x in LIKELIHOODS[name][1]():
            log_prob = likelihood(torch.zeros(3)).log_prob(x)
            likelihood.zero_grad()
            log_prob.backward()
            assert log_prob.isfinite()
            for parameter in likelihood.parameters():
                assert not parameter.requires_grad or parameter.grad.isfinite().all()

    def test_what_is_missing_never_matters(self, name):
        likelihood, x = self.make(name), LIKELIHOODS[name][1]().double()
        z = torch.randn(4, 6, 3).double()
        mask = torch.tensor([[True, True], [True, False], [False, True], [False, False], [True, True], [False, True]])
        expected = (likelihood(z).base_dist.log_prob(x) * mask).sum(-1)
        for junk in (torch.nan, torch.inf, -7.5, 0.0, 1.0):
            p = observed(likelihood(z), mask)
            likelihood.zero_grad()
            spoilt = torch.where(mask, x, junk)
            log_prob = p.log_prob(spoilt)
            log_prob.sum().backward()
            assert torch.equal(log_prob, expected)
            assert p.support.check(spoilt).all()
            for parameter in likelihood.parameters():
                assert not parameter.requires_grad or parameter.grad.isfinite().all()
        assert torch.equal(p.mean, likelihood(z).mean)
        assert p.sample().shape == (4, 6, 2)
        assert p.support.is_discrete == likelihood(z).support.is_discrete


def test_no_scale_lies_below_the_floor_that_is_asked_for():
    likelihood = likelihoods.HeteroscedasticNormal(nn.Identity(), floor=0.25)
    outputs = torch.tensor([1.0, 2.0, -60.0, 0.0])  # two means, then what two scales are made of
    torch.testing.assert_close(likelihood(outputs).stddev, torch.tensor([0.25, 0.25 + math.log(2)]))
    assert likelihoods.HeteroscedasticNormal(nn.Identity())(outputs).stddev[0] == pytest.approx(0.01)


def test_a_likelihood_of_two_outputs_starts_with_a_scale_of_its_own():
    """The mean of x for every element, and 0 for what the scales are made of."""
    x = torch.tensor([[1.0, 5.0], [3.0, 7.0]])
    assert likelihoods.HeteroscedasticNormal(nn.Identity()).output_bias(x).tolist() == [2, 6, 0, 0]
