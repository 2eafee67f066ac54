"""Importance sampling from a Normal that is refined for every datum."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from correlated import correlated
from stories import Written, gamma_story, off_from_one, two_modes

from ppvae.inference import importance, refined_sampling
from ppvae.inference.evidence.exact import exact
from ppvae.models import assemble, encoders, likelihoods, priors
from ppvae.models.missing import masked
from ppvae.selfcheck.analytic import LinearGaussian, TwoLayers


def test_a_point_mass_on_positive_numbers_begins_in_unbounded_space():
    story, x, truth = gamma_story()
    point = Written(story.within[0], lambda x: pyro.sample("z", dist.Delta(x.clamp_min(0.1))))
    evidence = refined_sampling(point, x, particles=4000, num_steps=60, progress=False)
    assert ((evidence.estimate - truth).abs() < 4 * evidence.standard_error).all()
    assert evidence.standard_error.max() < 0.03


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
    sphere = assemble(priors.HypersphericalUniform, likelihoods.Normal, encoders.VonMisesFisher, shape=(5,), latent=3)
    with pytest.raises(ValueError, match="lies in Sphere, from which there is no map"):
        refined_sampling(sphere, torch.zeros(3, 5), progress=False)
    flat = assemble(priors.Flat, likelihoods.Normal, encoders.DiagonalNormal, shape=(5,), latent=2)
    with pytest.raises(ValueError, match="needs a proper prior"):
        refined_sampling(flat, torch.zeros(3, 5), progress=False)


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
