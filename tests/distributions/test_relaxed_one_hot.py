"""One-hot vectors relaxed to the simplex: Pyro's density, draws off the boundary, and a mean."""

import math

import pyro.distributions as dist
import pytest
import torch

from ppvae.distributions.relaxed_one_hot import RelaxedOneHot

LOGITS = torch.tensor([[3.0, 0.0, -1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.2, 0.5, 2.0])
def test_density_and_draws_are_pyros_and_the_mean_is_the_draws(temperature):
    temperature = torch.tensor(temperature).double()
    ours, theirs = RelaxedOneHot(temperature, logits=LOGITS), dist.RelaxedOneHotCategorical(temperature, logits=LOGITS)
    torch.manual_seed(0)
    draws = ours.sample((20_000,))
    torch.testing.assert_close(ours.log_prob(draws), theirs.log_prob(draws))
    torch.manual_seed(0)
    torch.testing.assert_close(draws, theirs.sample((20_000,)))
    error = draws.std(0) * math.sqrt(1 / 256 + 1 / 20_000)  # the mean is that of 256 fixed draws
    assert ((ours.mean - draws.mean(0)).abs() < 4 * error).all()
    assert (error < 0.03).all()


def test_the_mean_leaves_the_generator_alone_and_has_a_gradient():
    logits = LOGITS.clone().requires_grad_()
    state = torch.get_rng_state()
    mean = RelaxedOneHot(torch.tensor(0.5).double(), logits=logits).mean
    assert torch.equal(torch.get_rng_state(), state)
    mean[..., 0].sum().backward()
    assert logits.grad.abs().min() > 0


def test_shapes_expand():
    wide = RelaxedOneHot(torch.tensor(0.5).double(), logits=LOGITS).expand((4, 2))
    assert isinstance(wide, RelaxedOneHot)
    assert wide.rsample().shape == wide.mean.shape == (4, 2, 3)
