"""A Normal of its own for every datum, and importance sampling from it."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from correlated import correlated
from stories import Written, gamma_story, off_from_one, two_modes
from torch import nn

from ppvae.inference import importance, local_normal, refined_sampling
from ppvae.inference.evidence.exact import exact
from ppvae.inference.posteriors import local
from ppvae.models import VAE, Autoencoder, assemble, encoders, likelihoods, priors
from ppvae.models.missing import masked
from ppvae.selfcheck.analytic import LinearGaussian, TwoLayers


def test_it_is_the_posterior_where_that_is_normal():
    story, x, mean, precision = correlated()
    found = local_normal(story, x, num_steps=400, particles=128, progress=False)
    q = torch.distributions.MultivariateNormal(found.loc, scale_tril=found.scale_tril)
    posterior = torch.distributions.MultivariateNormal(mean, precision_matrix=precision)
    # 0.0006 on average over seeds, a weighted chi-squared of some four degrees: ten times that has a chance below 1e-6
    assert torch.distributions.kl_divergence(q, posterior).max() < 0.006  # a scale that is 5 % off is 0.0075
    start = torch.distributions.MultivariateNormal(story.encoder(x).mean, torch.diag_embed(story.encoder(x).variance))
    assert torch.distributions.kl_divergence(start, posterior).min() > 0.5
    assert (found.scale_tril.triu(1) == 0).all()
    assert (found.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()


def test_a_diagonal_one_has_the_precisions_of_the_posterior():
    """argmin KL(q || p) over diagonal q: 1 / variance is the precision's diagonal, narrower than the marginals."""
    story, x, mean, precision = correlated()
    found = local_normal(story, x, num_steps=600, particles=32, covariance="diagonal", progress=False)
    variance = found.scale_tril.diagonal(dim1=-2, dim2=-1).square()
    torch.testing.assert_close(variance * precision.diagonal(), torch.ones(200, 3).double(), atol=0.1, rtol=0)
    assert (torch.linalg.inv(precision).diagonal() > 1.3 * variance.mean(0)).any()
    assert ((found.loc - mean) * precision.diagonal().sqrt()).abs().max() < 0.1
    assert (found.scale_tril.tril(-1) == 0).all()


def test_from_a_point_mass_it_finds_the_posterior_too():
    known = LinearGaussian()
    exact_story = known.story()
    torch.manual_seed(0)
    story = Autoencoder(exact_story.prior, exact_story.likelihood, nn.Linear(5, 2)).double()
    x = known.data(6)
    found = local_normal(story, x, num_steps=300, progress=False)
    assert ((found.loc - known.posterior_mean(x)) / known.posterior_covariance.diagonal().sqrt()).abs().max() < 0.1
    covariance = found.scale_tril @ found.scale_tril.mT
    torch.testing.assert_close(covariance, known.posterior_covariance.expand(6, 2, 2), atol=0.01, rtol=0.1)


def test_a_point_mass_of_several_sites_in_another_order_than_the_models():
    """z ~ N(0, 1), y ~ N(z, 1), x ~ N(y, 0.01): y is near x, z near x / 2."""

    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros(1).double(), 1.0).to_event(1))
        y = pyro.sample("y", dist.Normal(z, 1.0).to_event(1))
        pyro.sample("x", dist.Normal(y, 0.1).to_event(1), obs=x)

    def guide(x):
        pyro.sample("y", dist.Delta(0.1 * x, event_dim=1))
        pyro.sample("z", dist.Delta(-x, event_dim=1))

    x = torch.tensor([[3.0], [-8.0]]).double()
    found = local_normal(Written(model, guide), x, num_steps=5, progress=False)  # it begins at the mode
    y = x * 2 / 2.01
    assert (found.loc - torch.cat([y / 2, y], dim=1)).abs().max() < 0.1
    assert (found.scale_tril.triu(1) == 0).all()


def test_a_point_mass_on_positive_numbers_begins_in_unbounded_space():
    story, x, truth = gamma_story()
    point = Written(story.within[0], lambda x: pyro.sample("z", dist.Delta(x.clamp_min(0.1))))
    evidence = refined_sampling(point, x, particles=4000, num_steps=60, progress=False)
    assert ((evidence.estimate - truth).abs() < 4 * evidence.standard_error).all()
    assert evidence.standard_error.max() < 0.03


def test_no_datum_depends_on_the_others(monkeypatch):
    known = LinearGaussian()
    x, story = known.data(7), known.story(widen=1.4, shift=0.3)
    whole = local_normal(story, x, num_steps=20, progress=False)
    torch.randn(3)
    backwards = local_normal(story, x.flip(0), num_steps=20, progress=False)
    monkeypatch.setattr(local, "ROWS", 3)
    parts = local_normal(story, x, num_steps=20, progress=False)
    for found in (parts, [part.flip(0) for part in backwards]):
        for one, other in zip(found, whole, strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=0)
    assert not torch.allclose(local_normal(story, x, num_steps=20, seed=1, progress=False).loc, whole.loc, atol=1e-3)


@pytest.mark.parametrize(
    "how", [{}, {"covariance": "diagonal", "widening": 2.0}, {"guide_share": 0.3}, {"widening": 0.9}], ids=str
)
def test_sampling_from_it_is_unbiased(how):
    story, x, _, _ = correlated()
    evidence = refined_sampling(story, x, particles=100, num_steps=40, progress=False, **how)
    log_ratio = evidence.estimate - exact(story, x, progress=False).estimate
    assert abs(off_from_one(log_ratio)) < 4
    assert log_ratio.expm1().std() / 200**0.5 < 0.03  # the tolerance means something
    assert evidence.bound == "stochastic lower bound"


def test_it_is_a_better_proposal_than_the_guide_that_it_came_from():
    known = LinearGaussian()
    x, story = known.data(20), known.story(widen=0.3, shift=0.5)
    refined = refined_sampling(story, x, particles=1000, num_steps=150, progress=False)
    plain = importance(story, x, particles=1000, progress=False)
    assert refined.unreliable() == 0
    assert plain.unreliable() > 0.5
    assert ((refined.estimate - known.log_evidence(x)).abs() < 4 * refined.standard_error).all()
    assert refined.standard_error.max() < 0.05


def test_a_share_of_the_guides_draws_keeps_a_mode_that_the_normal_leaves():
    story, x, truth = two_modes()

    def both(x):
        root = x.clamp_min(0.1).sqrt()
        normals = dist.Normal(torch.stack([-root, root], dim=-1), 0.2)
        pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(torch.ones(2).double()), normals))

    story = Written(story.within[0], both)
    evidence = refined_sampling(story, x, particles=4000, num_steps=100, guide_share=0.4, progress=False)
    assert ((evidence.estimate - truth).abs() < 4 * evidence.standard_error).all()
    assert evidence.standard_error.max() < 0.05
    assert "for a share of 0.4, from the guide" in evidence.method


def test_two_layers_masked_data_and_a_target():
    two = TwoLayers(widen=1.3)
    x = two.data(60)
    log_ratio = refined_sampling(two, x, particles=100, num_steps=40, progress=False).estimate - two.log_evidence(x)
    assert abs(off_from_one(log_ratio)) < 4
    known = LinearGaussian()
    hidden = known.data(60)
    hidden[torch.rand(hidden.shape) < 0.3] = torch.nan
    batch = masked(hidden)
    evidence = refined_sampling(known.story(2.0), batch, particles=100, num_steps=40, target_error=0.02, progress=False)
    assert abs(off_from_one(evidence.estimate - known.log_evidence(*batch))) < 4
    assert (evidence.standard_error <= 0.02).double().mean() > 0.8
    assert evidence.standard_error.max() < 1.3 * 0.02  # and the rest are not far off
    assert evidence.particles.max() >= 4 * evidence.particles.min()  # powers of 2


def test_what_cannot_be_refined_is_refused():
    discrete = assemble(priors.OneHot, likelihoods.Normal, encoders.OneHotCategorical, shape=(5,), latent=3)
    sphere = assemble(priors.HypersphericalUniform, likelihoods.Normal, encoders.VonMisesFisher, shape=(5,), latent=3)
    x = torch.zeros(3, 5)
    for estimator in (local_normal, refined_sampling):
        with pytest.raises(ValueError, match="local inference moves latents by gradients; latent site 'z'"):
            estimator(discrete, x, progress=False)
        with pytest.raises(ValueError, match="lies in Sphere, from which there is no map"):
            estimator(sphere, x, progress=False)
    flat = VAE(priors.Flat(2), likelihoods.Normal(nn.Linear(2, 5)), encoders.DiagonalNormal(nn.Linear(5, 4)))
    for estimator in (local_normal, refined_sampling):
        with pytest.raises(ValueError, match="needs a proper prior"):
            estimator(flat, x, progress=False)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"num_steps": 0}, "num_steps should be at least 1, got 0"),
        ({"covariance": "round"}, "covariance should be full or diagonal, got round"),
        ({"widening": 0.0}, "widening should be positive, got 0"),
        ({"widening": math.nan}, "widening should be positive, got nan"),
        ({"guide_share": 1.0}, "guide_share should be a share from 0 to below 1, got 1"),
        ({"particles": 0}, "particles should be at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(option, message):
    known = LinearGaussian()
    with pytest.raises(ValueError, match=message):
        refined_sampling(known.story(), known.data(2), progress=False, **option)
    with pytest.raises(ValueError, match="particles should be at least 1, got 0"):
        local_normal(known.story(), known.data(2), particles=0, progress=False)
