"""Priors made of an encoder or of codes: the VampPrior, and densities fitted after the fact."""

import copy
import math

import pytest
import torch
from cases import ENCODERS

from ppvae import networks
from ppvae.inference import importance
from ppvae.inference.program.codes import encode
from ppvae.models import VAE, encoders, likelihoods, priors
from ppvae.models.sizes import Sizes

# --- the VampPrior and its encoder


def vamp(x=None, encoder=encoders.DiagonalNormal, **options):
    sizes = Sizes(shape=(3,), latent=2, network=networks.MLP([4]), x=x)
    guide = sizes.encoder(encoder)
    prior = priors.VampPrior(2, guide, 3, x=x, components=4, **options)
    return VAE(prior, sizes.likelihood(likelihoods.Normal), guide)


def test_a_vamp_prior_is_the_mixture_of_the_encoder_at_its_inputs():
    story, z = vamp(learned_weights=True), torch.randn(6, 2)
    with torch.no_grad():
        story.prior.logits += torch.randn(4)
    parts = [story.encoder(u).log_prob(z) for u in story.prior.inputs]
    weights = story.prior.logits.log_softmax(0)
    expected = torch.stack([part + weight for part, weight in zip(parts, weights, strict=True)]).logsumexp(0)
    torch.testing.assert_close(story.prior().log_prob(z), expected)


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "PointMass"])
def test_a_vamp_prior_takes_any_encoder_with_a_density(name):
    prior, encoder = (story := vamp(encoder=ENCODERS[name])).prior, story.encoder
    z = prior().expand([2, 6]).sample()
    expected = torch.stack([encoder(u).log_prob(z) for u in prior.inputs]).logsumexp(0) - math.log(4)
    torch.testing.assert_close(prior().expand([2, 6]).log_prob(z), expected)


def test_a_vamp_prior_starts_at_rows_of_the_data():
    x = torch.arange(30.0).reshape(10, 3)
    inputs = vamp(x).prior.inputs
    assert all((row == x).all(-1).any() for row in inputs)
    assert inputs.requires_grad
    assert inputs.data_ptr() != x.data_ptr()


def test_a_vamp_prior_trains_its_encoder_which_is_saved_once():
    story = vamp()
    story.prior().log_prob(torch.randn(2)).backward()
    assert story.prior.inputs.grad.abs().sum() > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in story.encoder.parameters())
    assert [name for name in story.state_dict() if name.startswith("prior")] == ["prior.inputs", "prior.logits"]
    assert len(list(story.prior.modules())) == 1


def test_a_copied_vamp_prior_has_the_copied_encoder():
    story = vamp()
    again = copy.deepcopy(story).double()
    assert again.prior().sample().dtype == torch.float64
    z = torch.randn(2)
    before = story.prior().log_prob(z)
    with torch.no_grad():
        again.encoder.network[0].weight.mul_(3)
    assert torch.equal(story.prior().log_prob(z), before)
    assert not torch.allclose(again.prior().log_prob(z.double()).float(), before)


def test_a_vamp_prior_of_a_point_mass_is_refused():
    with pytest.raises(ValueError, match="a VampPrior should have an encoder with a density"):
        vamp(encoder=encoders.PointMass).prior()


# --- densities fitted to codes


def test_one_gaussian_has_the_mean_and_covariance_of_the_codes():
    codes = torch.randn(50, 3, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64) * 1e-3 + 5
    gaussian = priors.ex_post(codes, components=1)()
    torch.testing.assert_close(gaussian.mean, codes.mean(0))
    covariance = gaussian.component_distribution.covariance_matrix[0]
    torch.testing.assert_close(covariance, codes.T.cov(correction=0), rtol=1e-4, atol=1e-11)


def test_a_mixture_finds_the_groups_of_the_codes_in_any_units():
    centres = torch.tensor([[-4.0, 0.0], [4.0, 1.0]])
    codes = centres[torch.arange(400) % 2] + 0.5 * torch.randn(400, 2)
    prior = priors.ex_post(codes, components=2)
    order = prior.loc[:, 0].argsort()
    assert (prior.loc[order] - centres).abs().max() < 4 * 0.5 / math.sqrt(200)
    assert prior.weights.tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    scaled = priors.ex_post(1000 * codes, components=2)
    expected = prior().log_prob(codes) - 2 * math.log(1000)
    torch.testing.assert_close(scaled().log_prob(1000 * codes), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("constant", "scale"), [(0.0, 1e-3), (0.1, 1e-4), (-1e6, 1e3)])
def test_a_dimension_without_variation_gets_a_narrow_gaussian(constant, scale):
    codes = torch.cat([torch.randn(97, 1), constant * (1 + 1e-7 * torch.randn(97, 1))], -1)  # to rounding
    prior = priors.ex_post(codes, components=3)
    assert prior.scale_tril[:, 1].norm(dim=-1).tolist() == pytest.approx(3 * [scale], rel=1e-3)
    assert prior().log_prob(codes).isfinite().all()
    assert (prior().sample((50,))[:, 1] - constant).abs().max() < 6 * scale


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (torch.zeros(5), r"codes should be finite and of shape \(rows, latent\), got shape \(5,\)"),
        (torch.full((5, 2), torch.nan), "codes should be finite"),
        (torch.zeros(5, 2), "at least as many different rows as components, 3, got 1"),
    ],
)
def test_codes_that_no_mixture_fits_are_refused(codes, words):
    with pytest.raises(ValueError, match=words):
        priors.ex_post(codes, components=3)


def test_a_fitted_prior_takes_the_place_of_a_storys_own():
    story, x = vamp(), torch.randn(40, 3)
    story.prior = priors.ex_post(encode(story, x), components=2)
    assert {"prior.weights", "prior.loc", "prior.scale_tril"} <= story.state_dict().keys()
    assert importance(story, x[:3], particles=50).estimate.isfinite().all()
    again = priors.ExPost(2, components=2)
    again.load_state_dict(story.prior.state_dict())
    assert torch.equal(again().log_prob(torch.ones(2)), story.prior().log_prob(torch.ones(2)))


def test_a_vamp_prior_starts_at_late_rows_of_the_data_too():
    """Sorted data have clusters that the first rows know nothing of."""
    torch.manual_seed(0)
    x = torch.arange(1000.0).unsqueeze(-1)
    inputs = priors.VampPrior(2, encoders.DiagonalNormal(torch.nn.Linear(1, 4)), 1, x=x, components=100).inputs
    for quarter in range(4):  # one is missed by chance once in 10^12
        assert ((inputs >= 250 * quarter) & (inputs < 250 * (quarter + 1))).any()


def test_the_seed_of_a_fitted_prior_is_that_of_its_fit():
    """Without groups in the codes, a fit ends where its start leads it."""
    codes = torch.rand(60, 2, dtype=torch.float64)
    fits = [priors.ex_post(codes, components=8, seed=seed).loc for seed in (0, 1, 2, 3, 0)]
    assert torch.equal(fits[0], fits[-1])
    assert not all(torch.allclose(fits[0], other, atol=1e-3) for other in fits[1:-1])


def test_the_weights_of_a_vamp_prior_are_learned_only_where_they_are_asked_for():
    assert [vamp(learned_weights=learned).prior.logits.requires_grad for learned in (False, True)] == [False, True]
