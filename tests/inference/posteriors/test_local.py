"""A Normal of its own for every datum."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from correlated import correlated
from stories import Written
from torch import nn

from ppvae.inference.posteriors import local
from ppvae.inference.posteriors.local import fit_normals
from ppvae.models import VAE, Autoencoder, assemble, encoders, likelihoods, priors
from ppvae.selfcheck.analytic import LinearGaussian


def test_it_is_the_posterior_where_that_is_normal():
    story, x, mean, precision = correlated()
    found = fit_normals(story, x, num_steps=400, particles=64, progress=False)
    q = torch.distributions.MultivariateNormal(found.loc, scale_tril=found.scale_tril)
    posterior = torch.distributions.MultivariateNormal(mean, precision_matrix=precision)
    # 0.001 on average over seeds, a weighted chi-squared of some four degrees: seven times that is below 1e-5
    assert torch.distributions.kl_divergence(q, posterior).max() < 0.007  # a scale that is 5 % off is 0.0075
    start = torch.distributions.MultivariateNormal(story.encoder(x).mean, torch.diag_embed(story.encoder(x).variance))
    assert torch.distributions.kl_divergence(start, posterior).min() > 0.5
    assert (found.scale_tril.triu(1) == 0).all()
    assert (found.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()


def test_a_diagonal_one_has_the_precisions_of_the_posterior():
    """argmin KL(q || p) over diagonal q: 1 / variance is the precision's diagonal, narrower than the marginals."""
    story, x, mean, precision = correlated()
    found = fit_normals(story, x, num_steps=600, particles=32, covariance="diagonal", progress=False)
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
    found = fit_normals(story, x, num_steps=300, progress=False)
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
    found = fit_normals(Written(model, guide), x, num_steps=5, progress=False)  # it begins at the mode
    y = x * 2 / 2.01
    assert (found.loc - torch.cat([y / 2, y], dim=1)).abs().max() < 0.1
    assert (found.scale_tril.triu(1) == 0).all()


def test_no_datum_depends_on_the_others(monkeypatch):
    known = LinearGaussian()
    x, story = known.data(7), known.story(widen=1.4, shift=0.3)
    whole = fit_normals(story, x, num_steps=20, progress=False)
    torch.randn(3)
    backwards = fit_normals(story, x.flip(0), num_steps=20, progress=False)
    monkeypatch.setattr(local, "ROWS", 3)
    parts = fit_normals(story, x, num_steps=20, progress=False)
    for found in (parts, [part.flip(0) for part in backwards]):
        for one, other in zip(found, whole, strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=0)
    assert not torch.allclose(fit_normals(story, x, num_steps=20, seed=1, progress=False).loc, whole.loc, atol=1e-3)


def test_what_cannot_be_refined_is_refused():
    discrete = assemble(priors.OneHot, likelihoods.Normal, encoders.OneHotCategorical, shape=(5,), latent=3)
    sphere = assemble(priors.HypersphericalUniform, likelihoods.Normal, encoders.VonMisesFisher, shape=(5,), latent=3)
    x = torch.zeros(3, 5)
    with pytest.raises(ValueError, match="local inference moves latents by gradients; latent site 'z'"):
        fit_normals(discrete, x, progress=False)
    with pytest.raises(ValueError, match="lies in Sphere, from which there is no map"):
        fit_normals(sphere, x, progress=False)
    flat = VAE(priors.Flat(2), likelihoods.Normal(nn.Linear(2, 5)), encoders.DiagonalNormal(nn.Linear(5, 4)))
    with pytest.raises(ValueError, match="needs a proper prior"):
        fit_normals(flat, x, progress=False)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"num_steps": 0}, "num_steps should be at least 1, got 0"),
        ({"covariance": "round"}, "covariance should be full or diagonal, got round"),
        ({"particles": 0}, "particles should be at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(option, message):
    known = LinearGaussian()
    with pytest.raises(ValueError, match=message):
        fit_normals(known.story(), known.data(2), progress=False, **option)
