"""What is read off a story's programs."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from ppvae.inference.program import traces
from ppvae.inference.program.codes import drawn_codes, encode, reconstruct, sample
from ppvae.inference.program.traces import evaluating
from ppvae.models import Sizes, assemble, encoders, likelihoods, priors, stories
from ppvae.selfcheck.analytic import LinearGaussian


def test_codes_are_the_guides_means():
    known = LinearGaussian()
    x = known.data(6)
    torch.testing.assert_close(encode(known.story(), x), known.posterior_mean(x))


def test_reconstruction_is_the_likelihoods_mean_at_the_code():
    known = LinearGaussian()
    x = known.data(6)
    expected = known.posterior_mean(x) @ known.weight.T + known.bias
    torch.testing.assert_close(reconstruct(known.story(), x), expected)


def test_generated_means_follow_the_prior_and_ignore_the_data():
    known = LinearGaussian()
    draws = sample(known.story(), torch.full((20_000, 5), 1e6).double(), means=True)
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
    torch.testing.assert_close(encode(Hierarchy(), x), torch.stack([2 * x, *2 * [2 * x, -6 * x]], -1))
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


class TakesLabels:
    def model(self, x, labels, mask=None): ...

    def guide(self, x, labels, mask=None): ...


def test_a_batch_is_what_the_model_names():
    x, labels, mask = torch.zeros(3, 2), torch.arange(3), torch.ones(3, 2, dtype=torch.bool)
    known = LinearGaussian().story()
    assert len(traces.batch_for(known, x, labels=labels, library=x)) == 1
    assert traces.batch_for(TakesLabels(), x, labels=labels)[1] is labels
    assert traces.batch_for(TakesLabels(), x, mask=mask, labels=labels)[2] is mask
    with pytest.raises(ValueError, match="TakesLabels needs labels, which these data do not have"):
        traces.batch_for(TakesLabels(), x, labels=None)
    with pytest.raises(ValueError, match="takes no mask, so it cannot score data with missing values"):
        traces.batch_for(stories.ppca(None, None, None, Sizes((2,), 1)), x, mask=mask)


def test_a_library_size_goes_behind_a_mask_of_ones():
    parts = (priors.StandardNormal, partial(likelihoods.Poisson, library=True), encoders.DiagonalNormal)
    story, x = assemble(*parts, shape=(2,), latent=1), torch.ones(3, 2)
    batch = traces.batch_for(story, x, labels=None, mask=None, library=x.sum(-1, keepdim=True))
    assert [tuple(part.shape) for part in batch] == [(3, 2), (3, 2), (3, 1)]
    assert batch[1].all()
    assert traces.scored(story) == "p(x | library size)"
    assert traces.scored(LinearGaussian().story()) == ""


def test_drawn_codes_have_the_moments_of_the_guide():
    known = LinearGaussian()
    story, x = known.story(), known.data(3)
    torch.manual_seed(0)
    drawn = drawn_codes(story, x, draws=4000).reshape(4000, 3, -1)
    spread = known.posterior_covariance.diagonal().sqrt()
    assert ((drawn.mean(0) - known.posterior_mean(x)).abs() < 4 * spread / 4000**0.5).all()
    assert ((drawn.std(0) / spread - 1).abs() < 4 / (2 * 4000) ** 0.5).all()
