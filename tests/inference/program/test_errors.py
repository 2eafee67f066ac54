"""What a program cannot be asked for: one error, whoever asks, that a caller may tell from a wrong argument."""

import pytest
import torch

from ppvae.inference import importance, laplace_sampling, prior_sampling, refined_sampling
from ppvae.inference.program.errors import NoDensity
from ppvae.models import assemble, encoders, likelihoods, priors


def story(prior, encoder):
    return assemble(prior, likelihoods.Normal, encoder, shape=(3,), latent=2)


def test_a_point_mass_and_a_flat_prior_have_no_density():
    x = torch.zeros(2, 3)
    with pytest.raises(NoDensity):
        importance(story(priors.StandardNormal, encoders.PointMass), x, progress=False)
    for estimator in (importance, prior_sampling, laplace_sampling, refined_sampling):
        with pytest.raises(NoDensity):
            estimator(story(priors.Flat, encoders.DiagonalNormal), x, progress=False)


def test_it_is_a_value_error_and_a_wrong_argument_is_not_one_of_it():
    assert issubclass(NoDensity, ValueError)
    with pytest.raises(ValueError, match="particles should be at least 1") as wrong:
        importance(story(priors.StandardNormal, encoders.DiagonalNormal), torch.zeros(2, 3), particles=0)
    assert not isinstance(wrong.value, NoDensity)
