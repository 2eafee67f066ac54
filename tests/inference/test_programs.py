"""What is read off a story's programs."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from known import LinearGaussian
from torch import nn

from ppvae.inference.programs import codes, evaluating, generate, reconstruct


def test_codes_are_the_guides_means():
    known = LinearGaussian()
    x = known.data(6)
    torch.testing.assert_close(codes(known.story(), x), known.posterior_mean(x))


def test_reconstruction_is_the_likelihoods_mean_at_the_code():
    known = LinearGaussian()
    x = known.data(6)
    expected = known.posterior_mean(x) @ known.weight.T + known.bias
    torch.testing.assert_close(reconstruct(known.story(), x), expected)


def test_generated_means_follow_the_prior_and_ignore_the_data():
    known = LinearGaussian()
    draws = generate(known.story(), torch.full((20_000, 5), 1e6).double())
    covariance = known.weight @ known.weight.T
    error = covariance.diagonal().sqrt() / 20_000**0.5
    assert ((draws.mean(0) - known.bias).abs() < 4 * error).all()
    spread = covariance.diagonal() * (2 / 20_000) ** 0.5
    assert ((draws.var(0) - covariance.diagonal()).abs() < 4 * spread).all()


class Hierarchy(nn.Module):
    """Two latents, the second given the first: the mean of the second is taken at the mean of the first."""

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            with pyro.plate("inner", 2, dim=-3):
                b = pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.factor("penalty", a)
            pyro.sample("x", dist.Normal(a + b.sum(-1).sum(-3), 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            a = pyro.sample("a", dist.Normal(2 * x, 1.0))
            with pyro.plate("inner", 2, dim=-3):
                pyro.sample("b", dist.Normal(torch.stack([a, -3 * a], -1), 1.0).to_event(1))


def test_a_users_hierarchy_has_codes_side_by_side():
    x = torch.tensor([1.0, 2.0])
    torch.testing.assert_close(codes(Hierarchy(), x), torch.stack([2 * x, *2 * [2 * x, -6 * x]], -1))
    torch.testing.assert_close(reconstruct(Hierarchy(), x), (2 * x + 2 * (2 * x - 6 * x)).unsqueeze(-1))


def test_modes_come_back_after_an_error():
    story = nn.Sequential(nn.Dropout(), nn.Linear(1, 1).eval())

    def fail():
        with evaluating(story):
            assert not story[0].training
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [module.training for module in story.modules()] == [True, True, False]
