"""Which density and which proposal a story is scored with."""

from functools import partial

import pyro
import pytest
import torch
from torch import nn

from ppvae.evaluation.scoring import give_density, score
from ppvae.inference import importance, refined_sampling
from ppvae.inference.program.codes import encode
from ppvae.models import Autoencoder, assemble, encoders, likelihoods, priors, stories
from ppvae.selfcheck.analytic import LinearGaussian


def deterministic(prior, latent=2):
    torch.manual_seed(0)
    return Autoencoder(prior, likelihoods.Normal(nn.Linear(latent, 5)), nn.Linear(5, latent))


def same(found, expected):
    return torch.equal(found.estimate, expected.estimate) and found.method == expected.method


def test_half_of_the_draws_are_the_guides_and_half_a_refined_normals():
    known = LinearGaussian()
    x, story = known.data(5), known.story(widen=0.2, shift=0.3)
    found = score(story, (x,), particles=1000, seed=3)
    assert same(found, refined_sampling(story, x, particles=1000, seed=3, guide_share=0.5))
    assert torch.equal(found.elbo, importance(story, x, particles=1000, seed=3).elbo)
    assert importance(story, x, particles=1000).unreliable() > found.unreliable() == 0
    exact = known.log_evidence(x)
    assert ((found.estimate - exact).abs() < 4 * found.standard_error).all()


class TwoModes(nn.Module):
    """z ~ N(0, 4), x ~ N(|z|, 0.1): a posterior of two modes, which the guide has and no Normal."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()).double())

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(1).double(), 2.0).to_event(1))
            pyro.sample("x", pyro.distributions.Normal(z.abs(), 0.1).to_event(1), obs=x)

    def guide(self, x):
        loc = torch.stack([x, -x], dim=-2) + self.shift  # (batch, 2, 1)
        components = pyro.distributions.Normal(loc, 0.1).to_event(1)
        with pyro.plate("data", len(x), dim=-1):
            half = pyro.distributions.Categorical(torch.ones(2).double())
            pyro.sample("z", pyro.distributions.MixtureSameFamily(half, components))


def test_a_mode_that_the_guide_knows_of_is_not_lost():
    x, story = torch.tensor([[1.0], [2.5]]).double(), TwoModes()
    z = torch.linspace(-9, 9, 200_001).double()
    prior = pyro.distributions.Normal(0.0, 2.0).log_prob(z)
    exact = (prior + pyro.distributions.Normal(z.abs(), 0.1).log_prob(x)).logsumexp(-1) + (z[1] - z[0]).log()
    found = score(story, (x,), particles=2000)
    assert ((found.estimate - exact).abs() < 4 * found.standard_error).all()
    assert found.standard_error.max() < 0.05


def test_a_prior_that_depends_on_labels_stays():
    torch.manual_seed(0)
    parts = (priors.StandardNormal, likelihoods.Normal, encoders.PointMass)
    story = assemble(
        *parts, shape=(5,), latent=2, classes=3, story=partial(stories.conditional, prior_given_labels=True)
    )
    data = (torch.randn(9, 5), torch.arange(9) % 3)
    assert not give_density(story, data)
    assert score(story, data, particles=50).estimate.isfinite().all()


def test_latents_that_no_normal_covers_are_left_to_the_guide():
    x = torch.zeros(3, 5)
    sphere = assemble(priors.HypersphericalUniform, likelihoods.Normal, encoders.VonMisesFisher, shape=(5,), latent=3)
    one_hot = assemble(priors.OneHot, likelihoods.Normal, encoders.OneHotCategorical, shape=(5,), latent=3)
    relaxed = assemble(priors.RelaxedOneHot, likelihoods.Normal, encoders.GumbelSoftmax, shape=(5,), latent=3)
    for story in (sphere, one_hot, relaxed):  # in float32 a relaxed draw may be a vertex
        assert same(score(story, (x,), particles=100), importance(story, x, particles=100))


def test_a_point_mass_has_no_elbo():
    story = deterministic(priors.StandardNormal(2))
    found = score(story, (torch.randn(4, 5),), particles=100)
    assert found.elbo.isnan().all()
    assert "ELBO                none" in str(found)
    with pytest.raises(ValueError, match="proper prior"):
        score(deterministic(priors.Flat(2)), (torch.randn(4, 5),), particles=100)


def test_a_density_is_given_to_a_point_mass_alone():
    known, x = LinearGaussian(), torch.randn(200, 5)
    story = known.story()
    assert not give_density(story, (x.double(),))
    assert isinstance(story.prior, priors.StandardNormal)
    for prior in (priors.Flat(2), priors.StandardNormal(2)):
        story = deterministic(prior)
        assert give_density(story, (x,))
        expected = priors.ex_post(encode(story, x), components=10)
        torch.testing.assert_close(story.prior.loc, expected.loc)
        assert not give_density(story, (x,))  # it has one


@pytest.mark.parametrize(("rows", "components"), [(99, 9), (25, 2), (9, 1), (1, 1)])
def test_few_codes_have_few_gaussians(rows, components):
    story = deterministic(priors.Flat(2))
    give_density(story, (torch.randn(rows, 5),))
    assert len(story.prior.weights) == components


def test_a_dead_code_has_one_gaussian():
    story = deterministic(priors.Flat(2))
    nn.init.zeros_(story.encoder.network.weight)
    give_density(story, (torch.randn(100, 5),))
    assert len(story.prior.weights) == 1
    assert score(story, (torch.randn(3, 5),), particles=100).estimate.isfinite().all()


@pytest.mark.parametrize("data", [150, pytest.param(1000, marks=pytest.mark.soak)])
def test_the_estimate_is_unbiased_and_depends_on_its_datum_alone(data):
    """Over many equal data the mean of p-hat / p is 1 within five errors, as each has streams of its own."""
    known = LinearGaussian()
    x = known.data(1).expand(data, -1).contiguous()
    story = known.story(widen=0.7, shift=0.05)
    ratio = (score(story, (x,), particles=50).estimate - known.log_evidence(x)).exp()
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / data**0.5
    assert ratio.std() < 0.3
    rows = known.data(6)
    apart = torch.cat([score(story, (row,), particles=100).estimate for row in rows.split(1)])
    torch.testing.assert_close(score(story, (rows,), particles=100).estimate, apart, atol=1e-9, rtol=0)
