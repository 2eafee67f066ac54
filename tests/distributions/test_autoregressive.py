"""Sequences drawn step by step: a linear-Gaussian one is a multivariate Normal, one of coins has masses to add up."""

import itertools

import pyro.distributions as dist
import pytest
import torch

from ppvae.distributions.autoregressive import Autoregressive

DECAY, SPREAD, STEPS = 0.7, 0.5, 4


def before(code, past, state):
    """The step before each that is asked for, `(..., number, 1)`: zero before the first."""
    if past is None:
        return torch.zeros_like(code)[..., None, :]
    return past if state is not None else torch.nn.functional.pad(past, (0, 0, 1, 0))


def walk(code, past, state):
    """x_t ~ N(0.7 x_t-1 + code, 0.5^2)."""
    return dist.Normal(DECAY * before(code, past, state) + code[..., None, :], SPREAD).to_event(1), True


def coins(code, past, state):
    """Of a coin the odds rise with the code, and with a one before it."""
    return dist.Bernoulli(logits=code[..., None, :] + 2 * before(code, past, state) - 0.5).to_event(1), True


def gaussian(code):
    """All steps of a walk at once: (I - 0.7 shift) x = code + 0.5 noise."""
    root = torch.linalg.inv(torch.eye(STEPS).double() - DECAY * torch.eye(STEPS).double().roll(1, 0).tril())
    mean = code.expand(*code.shape[:-1], STEPS) @ root.mT
    return torch.distributions.MultivariateNormal(mean, SPREAD**2 * root @ root.mT)


def test_the_density_is_that_of_all_steps_at_once():
    code, x = torch.randn(6, 1).double(), torch.randn(3, 6, STEPS).double()
    p = Autoregressive(walk, code, STEPS, 1)
    assert (p.batch_shape, p.event_shape) == ((6,), (STEPS,))
    torch.testing.assert_close(p.log_prob(x), gaussian(code).log_prob(x))


def test_draws_are_those_of_all_steps_at_once():
    code = torch.tensor([[0.3], [-1.0]]).double()
    joint, draws = gaussian(code), Autoregressive(walk, code, STEPS, 1).sample((5000,))
    root = torch.linalg.cholesky(joint.covariance_matrix)
    w = torch.linalg.solve_triangular(root, (draws - joint.mean).unsqueeze(-1), upper=False).squeeze(-1)
    assert (w.mean(0).abs() < 5 / 5000**0.5).all()
    second = torch.einsum("nbi,nbj->bij", w, w) / 5000 - torch.eye(STEPS)
    assert (second.abs() < 5 * (1 + torch.eye(STEPS)).sqrt() / 5000**0.5).all()


def test_the_row_of_means_is_rolled_out_step_by_step():
    """Of a linear walk it is the mean."""
    code = torch.randn(6, 1).double()
    torch.testing.assert_close(Autoregressive(walk, code, STEPS, 1).mean, gaussian(code).mean)


@pytest.mark.parametrize("junk", [0.0, 9.0, torch.nan])
def test_a_shorter_row_has_the_density_of_its_first_steps(junk):
    code = torch.randn(4, 1, dtype=torch.float64, requires_grad=True)
    lengths, x = torch.tensor([1, 2, 4, 3]), torch.randn(4, STEPS).double()
    valid = torch.arange(STEPS) < lengths[:, None]
    log_prob = Autoregressive(walk, code, STEPS, 1, lengths).log_prob(torch.where(valid, x, junk))
    for row, length in enumerate(lengths):
        joint = gaussian(code[row])
        part = torch.distributions.MultivariateNormal(joint.mean[:length], joint.covariance_matrix[:length, :length])
        torch.testing.assert_close(log_prob[row], part.log_prob(x[row, :length]))
    (slope,) = torch.autograd.grad(log_prob.sum(), code)
    assert slope.isfinite().all()


def test_behind_the_last_step_a_draw_and_a_mean_are_zero():
    lengths = torch.tensor([[1], [3]])
    p = Autoregressive(walk, 5 + torch.zeros(2, 1).double(), STEPS, 1, lengths)
    assert p.batch_shape == (2, 2)  # lengths broadcast with the codes
    for x in (p.sample((7,)), p.mean):
        there = (x != 0).expand(*x.shape)
        assert torch.equal(there, p.valid.expand_as(x))
    assert p.valid.sum(-1).tolist() == [[1, 1], [3, 3]]


def rows():
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))


def test_masses_sum_to_one_and_draws_come_as_often():
    p = Autoregressive(coins, torch.tensor([[0.4]]), 3, 1)
    masses = p.log_prob(rows()).exp()
    one = torch.tensor([0.4 - 0.5, 0.4 + 2 - 0.5, 0.4 - 0.5]).sigmoid()
    torch.testing.assert_close(masses[5], one[0] * (1 - one[1]) * one[2])  # of 1, 0, 1
    assert masses.sum().item() == pytest.approx(1, abs=1e-6)
    draws = p.sample((20_000,))[:, 0]
    shares = (draws @ torch.tensor([4.0, 2.0, 1.0])).long().bincount(minlength=8) / 20_000
    assert ((shares - masses).abs() < 5 * (masses * (1 - masses) / 20_000).sqrt()).all()


def test_a_row_of_modes_is_decoded_greedily():
    """The first step's odds are below even at a code of 0.4, so no one ever follows; above it, all are ones."""
    found = Autoregressive(coins, torch.tensor([[0.4], [0.6]]), 3, 1, point="mode").mean
    assert found.tolist() == [[0, 0, 0], [1, 1, 1]]


def test_the_support_is_that_of_every_step_there_is():
    p = Autoregressive(coins, torch.zeros(2, 1), 3, 1, torch.tensor([1, 3]))
    inside = p.support.base_constraint.check(torch.tensor([1.0, 0.5, 7.0]).expand(2, 3))
    assert inside.tolist() == [[True, True, True], [True, False, False]]
    assert p.support.is_discrete
    with pytest.raises(ValueError, match="within the support"):
        Autoregressive(coins, torch.zeros(2, 1), 3, 1, validate_args=True).log_prob(torch.full((2, 3), 0.5))


def test_shapes_expand():
    p = Autoregressive(walk, torch.randn(2, 1).double(), STEPS, 1, torch.tensor([2, 4]))
    wide, x = p.expand((3, 2)), torch.randn(2, STEPS).double()
    assert wide.sample((5,)).shape == (5, 3, 2, STEPS)
    torch.testing.assert_close(wide.log_prob(x), p.log_prob(x).expand(3, 2))


def test_steps_of_several_features_lie_side_by_side():
    """Two walks that share their code: the density is of both."""

    def pair(code, past, state):
        ones = [walk(code, None if past is None else past[..., i : i + 1], state)[0].base_dist for i in range(2)]
        loc, scale = (torch.cat([getattr(one, name) for one in ones], dim=-1) for name in ("loc", "scale"))
        return dist.Normal(loc, scale).to_event(1), True

    code, x = torch.randn(6, 1).double(), torch.randn(6, STEPS, 2).double()
    p = Autoregressive(pair, code, STEPS, 2)
    expected = gaussian(code).log_prob(x[..., 0]) + gaussian(code).log_prob(x[..., 1])
    torch.testing.assert_close(p.log_prob(x.flatten(-2)), expected)
    assert p.sample().shape == (6, 2 * STEPS)
