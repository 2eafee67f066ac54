"""One transition of HMC: does it leave the density as it is?"""

import pytest
import torch

from ppvae.inference.posteriors.hmc import GRID, adapt, transition, value_and_gradient
from ppvae.inference.program.streams import Streams

CHAINS = 20_000
COVARIANCE = torch.tensor([[1.0, 0.8], [0.8, 1.5]], dtype=torch.float64)
MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
TARGET = torch.distributions.MultivariateNormal(MEAN, COVARIANCE)


def log_density(u):
    return TARGET.log_prob(u) + 3.0  # not normalised


def exact_draws(chains=CHAINS, data=2):
    torch.manual_seed(1)
    return TARGET.sample((chains, data))


def streams(data=2):
    return Streams([bytes([row]) for row in range(data)], "noise", torch.zeros(1).double())


def far_off(u):
    """The largest deviation of first, second and fourth moments and of the correlation, in standard errors."""
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(COVARIANCE), (u - MEAN).mT, upper=False).mT
    moments = [white, white.square() - 1, white.square().square() - 3, white[..., :1] * white[..., 1:]]
    every = torch.cat(moments, dim=-1)  # (chains, data, moments), each zero on average
    return (every.mean(0) / (every.std(0) / len(every) ** 0.5)).abs().max().item()


@pytest.mark.parametrize("step", [0.2, 0.9, 1.6])  # small, of an acceptance near 0.65, and far too large
def test_exact_draws_stay_exact_draws_whatever_the_step(step):
    u, noise = exact_draws(), streams()
    scale = torch.tensor([[1.0, 1.0], [0.5, 2.0]]).double()
    rates = []
    for _ in range(5):
        u, acceptance = transition(log_density, u, torch.full((2,), step).double(), scale, noise, leapfrog=3)
        assert ((acceptance >= 0) & (acceptance <= 1)).all()
        rates.append(acceptance.mean().item())
    assert far_off(u) < 4.5
    assert rates[0] > 0.9 if step == 0.2 else rates[0] < 0.9  # the step says how well energy is kept, and no more


def test_the_moments_would_tell():
    """Of a chain that accepts everything, at a step this large, they are far off."""
    u = exact_draws()
    noise = streams()
    for _ in range(5):
        u, _ = without_acceptance(u, noise)
    assert far_off(u) > 20


def without_acceptance(u, noise):
    noise.uniform = lambda particles: torch.full((particles, 2), -1.0).double()
    return transition(log_density, u, torch.full((2,), 0.9).double(), torch.ones(2, 2).double(), noise, leapfrog=3)


def test_a_trajectory_by_hand():
    """One leapfrog step: half a push, a move, half a push; accepted by the change of the energy."""
    u, step, scale = exact_draws(50), torch.tensor([0.5, 0.7]).double(), torch.tensor([[1.0, 2], [0.5, 1]]).double()
    moved, acceptance = transition(log_density, u, step, scale, streams(), leapfrog=1)
    noise = streams()
    momentum, uniform = noise.normal(50, 2), noise.uniform(50)
    stride, precision = step.unsqueeze(-1) * scale, torch.linalg.inv(COVARIANCE)
    half = momentum - stride / 2 * ((u - MEAN) @ precision)
    there = u + stride * half
    end = half - stride / 2 * ((there - MEAN) @ precision)
    energy = log_density(there) - end.square().sum(-1) / 2 - log_density(u) + momentum.square().sum(-1) / 2
    expected = energy.exp().clamp_max(1)
    torch.testing.assert_close(acceptance, expected)
    torch.testing.assert_close(moved, torch.where((uniform < expected).unsqueeze(-1), there, u))


def test_energy_is_kept_to_the_second_order_of_the_step():
    """Halving the step divides the error of the energy by four: a half-step that is missing gives two."""
    u = exact_draws(2000)
    errors = []
    for jumps in (8, 16):
        step = torch.full((2,), 1.2 / jumps).double()
        _, acceptance = transition(log_density, u, step, torch.ones(2, 2).double(), streams(), jumps)
        errors.append(acceptance.log().abs().mean().item())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("lost", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_never_moved_to(lost):
    def broken(u):
        return torch.where(u[..., 0] > 0.5, lost, log_density(u))

    u = exact_draws(500)
    u = torch.where(u[..., :1] > 0.5, -u, u)
    u[..., 0] = -u[..., 0].abs()
    for _ in range(5):
        u, acceptance = transition(broken, u, torch.full((2,), 0.8).double(), torch.ones(2, 2).double(), streams(), 3)
        assert acceptance.isfinite().all()
        assert (u[..., 0] <= 0.5).all()
    assert u.isfinite().all()


def test_one_half_of_a_normal_stays_that_half():
    """Where the density is cut off, what crosses is refused, and the rest stays as it was."""
    noise, u = streams(), torch.randn(CHAINS, 2, 1).double().abs()

    def half(u):
        return torch.where(u[..., 0] < 0, -torch.inf, -u[..., 0].square() / 2)

    for _ in range(5):
        u, _ = transition(half, u, torch.full((2,), 0.9).double(), torch.ones(2, 1).double(), noise, 2)
    z = (u.square().mean(0) - 1) / (2 / CHAINS) ** 0.5
    assert z.abs().max() < 4.5
    assert ((u.mean(0) - (2 / torch.pi) ** 0.5) / ((1 - 2 / torch.pi) / CHAINS) ** 0.5).abs().max() < 4.5


def test_gradients_by_the_closed_form():
    u = exact_draws(7)
    value, gradient = value_and_gradient(log_density, u)
    torch.testing.assert_close(gradient, -(u - MEAN) @ torch.linalg.inv(COVARIANCE))
    torch.testing.assert_close(value, log_density(u))
    assert not value.requires_grad
    assert (value_and_gradient(lambda u: u.sum(-1).log(), -u.abs())[1] == 1 / -u.abs().sum(-1, keepdim=True)).all()


def test_data_are_moved_apart():
    u, one = exact_draws(30, 3), torch.ones(3).double()
    together, _ = transition(log_density, u, 0.5 * one, torch.ones(3, 2).double(), streams(3), 3)
    names = [bytes([1])]
    alone, _ = transition(
        log_density, u[:, 1:2], 0.5 * one[1:2], torch.ones(1, 2).double(), Streams(names, "noise", u), 3
    )
    torch.testing.assert_close(together[:, 1:2], alone, atol=1e-12, rtol=0)


def test_steps_are_adapted_towards_the_target():
    acceptance = torch.tensor([[0.9, 0.2, 0.65], [0.8, 0.3, 0.65]]).double()
    step = adapt(torch.tensor([0.3, 0.3, 0.3]).double(), acceptance, 0.65)
    assert step[0] > 0.3 > step[1]
    off_the_grid = step.log() / GRID
    torch.testing.assert_close(off_the_grid, off_the_grid.round())
    assert abs(step[2].log() - torch.tensor(0.3).log()) <= GRID / 2
    assert adapt(torch.tensor([1e-6]).double(), torch.zeros(1, 1), 0.65) >= 1e-6
    assert adapt(torch.tensor([1e3]).double(), torch.ones(1, 1), 0.65) <= 1e3 * (1 + 1e-9)
    u, step, noise = exact_draws(100), torch.full((2,), 0.01).double(), streams()
    rates = []
    for _ in range(60):
        u, acceptance = transition(log_density, u, step, torch.ones(2, 2).double(), noise, 3)
        step = adapt(step, acceptance, 0.65)
        rates.append(acceptance.mean())
    assert torch.stack(rates[-10:]).mean().item() == pytest.approx(0.65, abs=0.1)
