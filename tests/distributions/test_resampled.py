"""Draws accepted or rejected by their value: their density, exactly, and what an estimate of log Z does to it."""

import math

import pyro.distributions as dist
import pytest
import torch

from ppvae.distributions.resampled import Resampled
from ppvae.models import priors

pytestmark = pytest.mark.usefixtures("double")


def grid(points=400, end=8.0):
    axis = torch.linspace(-end, end, points)
    return torch.cartesian_prod(axis, axis), (axis[1] - axis[0]) ** 2


def log_acceptance(z):
    """A spot, off the centre: few draws are accepted."""
    return -2 * (z - torch.tensor([1.0, -0.5])).square().sum(-1)


def standard():
    return dist.Normal(torch.zeros(2), 1.0).to_event(1)


def spot(truncation):
    """The spot with its log Z by quadrature; it is known too, 1 / 5 exp(-2/5 |c|^2)."""
    z, area = grid()
    rate = ((standard().log_prob(z) + log_acceptance(z)).exp() * area).sum()
    assert rate.item() == pytest.approx(math.exp(-2 / 5 * 1.25) / 5, rel=1e-9)
    return Resampled(standard(), log_acceptance, rate.log(), truncation)


@pytest.mark.parametrize("truncation", [2, 3, 10, 100, None])
class TestResampled:
    def test_the_density_integrates_to_one(self, truncation):
        z, area = grid()
        assert (spot(truncation).log_prob(z).exp() * area).sum().item() == pytest.approx(1, abs=1e-9)

    def test_the_density_is_that_of_the_procedure(self, truncation):
        """sum_t of the chance to stop at draw t, times the density there."""
        z, _ = grid(20, 3.0)
        a, proposal, rate = log_acceptance(z).exp(), standard().log_prob(z).exp(), spot(truncation).log_rate.exp()
        last = truncation or 2000
        density = sum(proposal * a * (1 - rate) ** t for t in range(last - 1)) + proposal * (1 - rate) ** (last - 1)
        torch.testing.assert_close(spot(truncation).log_prob(z), density.log())

    def test_draws_match_the_density(self, truncation):
        resampled, (z, area) = spot(truncation), grid()
        mass = resampled.log_prob(z).exp() * area
        draws = resampled.sample((40_000,))
        for power in (1, 2):
            expected = (mass.unsqueeze(-1) * z**power).sum(0)
            error = (draws**power).std(0) / math.sqrt(len(draws))
            assert ((draws**power).mean(0) - expected).abs().lt(4 * error).all()

    def test_it_takes_plates(self, truncation):
        resampled = spot(truncation).expand([3, 1])
        assert resampled.sample((5,)).shape == (5, 3, 1, 2)
        assert resampled.log_prob(torch.zeros(3, 4, 2)).shape == (3, 4)
        assert not resampled.has_rsample

    def test_an_error_of_log_z_is_one_of_the_density(self, truncation):
        """With all but no truncation the integral is Z over its estimate; with some it is nearer to one."""
        exact, (z, area) = spot(truncation), grid()
        off = Resampled(standard(), log_acceptance, exact.log_rate + 0.1, truncation)
        log_total = (off.log_prob(z).exp() * area).sum().log().item()
        if truncation is None:
            assert log_total == pytest.approx(-0.1, abs=1e-9)
        else:
            assert -0.1 <= log_total < 0


def test_everything_accepted_or_nothing():
    z = torch.randn(5, 2)
    for log_a in (0.0, -200.0):
        resampled = Resampled(standard(), lambda z, a=log_a: torch.full(z.shape[:-1], a), torch.tensor(log_a), 10)
        torch.testing.assert_close(resampled.log_prob(z), standard().log_prob(z))
        assert resampled.sample((5,)).shape == (5, 2)


def test_the_gradient_is_finite_where_everything_is_accepted():
    log_rate = torch.tensor(0.0, requires_grad=True)
    Resampled(standard(), lambda z: log_rate.expand(z.shape[:-1]), log_rate, 10).log_prob(torch.zeros(2)).backward()
    assert log_rate.grad.isfinite()


def test_draws_without_end_are_refused():
    nothing = Resampled(standard(), lambda z: torch.full(z.shape[:-1], -torch.inf), torch.tensor(-torch.inf), None)
    with pytest.raises(ValueError, match="draws should be accepted at some rate, got log Z = -inf"):
        nothing.sample()


# --- the learned one


def learned(**options):
    prior = priors.LARS(2, hidden=[16], **options).double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += torch.randn_like(parameter)
    return prior.eval()


def log_rate_of(prior):
    z, area = grid()
    return ((standard().log_prob(z) + prior.log_acceptance(z)).exp() * area).sum().log().detach()


def test_log_z_is_within_its_error_of_the_truth():
    """The z-scores of many estimates have mean 0 and spread 1."""
    prior = learned(draws=500).train()
    truth = log_rate_of(prior)
    pairs = torch.stack([torch.stack(prior.log_rate()).detach() for _ in range(1000)])
    scores = (pairs[:, 0] - truth) / pairs[:, 1]
    assert scores.mean().abs() < 4 / math.sqrt(1000) + 0.05  # log of a mean: below the truth by error^2 / 2
    assert (scores.std() - 1).abs() < 4 / math.sqrt(2000)


def test_evaluation_is_deterministic_and_training_is_not():
    prior, z = learned(), torch.randn(3, 2)
    assert torch.equal(prior().log_prob(z), prior().log_prob(z))
    log_rate, error = prior.log_rate()
    assert (log_rate - log_rate_of(prior)).abs() < 4 * error
    assert error < 0.05
    prior.train()
    assert not torch.equal(prior().log_prob(z), prior().log_prob(z))


def test_a_learned_prior_integrates_to_one_up_to_the_error_of_log_z():
    prior, (z, area) = learned(), grid()
    total = (prior().log_prob(z).exp() * area).sum().log()
    assert total.abs() < 4 * prior.log_rate()[1]


def test_it_learns_a_ring_that_a_gaussian_cannot():
    """Fitted by maximum likelihood it comes near the ring's own log-density."""
    torch.manual_seed(3)
    angle, radius = 2 * math.pi * torch.rand(512), 1.5 + 0.15 * torch.randn(512)
    ring = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    truth = dist.Normal(1.5, 0.15).log_prob(radius) - (2 * math.pi * radius).log()
    prior = priors.LARS(2, hidden=[32, 32], draws=512).double()
    adam = torch.optim.Adam(prior.parameters(), lr=1e-2)
    for _ in range(300):
        adam.zero_grad()
        (-prior().log_prob(ring).mean()).backward()
        adam.step()
    prior.eval()
    fitted = prior().log_prob(ring).mean() + 4 * prior.log_rate()[1]
    assert standard().log_prob(ring).mean() + 0.5 < fitted < truth.mean() + 0.1
