"""Ladders: a linear-Gaussian one has exact answers down it too."""

import pyro.distributions as dist
import pytest
import torch
from hierarchies import TwoLayers
from torch import nn

from ppvae.inference import log_weights
from ppvae.models import Ladder, assemble, encoders, likelihoods, priors, stories
from ppvae.models.ladder import product


def test_every_log_weight_of_the_exact_guide_is_log_p():
    """The product of the message with p(z1 | z2) is the posterior of z1 given z2 and x."""
    known = TwoLayers()
    x = known.data(6)
    story = Ladder(*known.parts(), [nn.Identity(), nn.Identity()], known.messages())
    log_w = log_weights(story, x, particles=5)
    torch.testing.assert_close(log_w, known.marginal().log_prob(x).expand(5, 6), rtol=0, atol=1e-9)


def test_a_product_of_normals_has_their_precisions_added_and_their_means_weighted():
    found = product(
        dist.Normal(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1e-3])).to_event(1),
        dist.Normal(torch.tensor([3.0, 5.0]), torch.tensor([0.5, 1e3])).to_event(1),
    )
    precision = 1 / 2.0**2 + 1 / 0.5**2
    mean = (1 / 2.0**2 + 3 / 0.5**2) / precision
    torch.testing.assert_close(found.mean, torch.tensor([mean, 5e-12]), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.stddev, torch.tensor([precision**-0.5, 1e-3]), rtol=1e-6, atol=0)


def test_layers_that_do_not_meet_are_refused():
    known = TwoLayers()
    with pytest.raises(ValueError, match="one network a message, got 1 and 2"):
        Ladder(*known.parts(), [nn.Identity()], known.messages())
    with pytest.raises(ValueError, match="a conditional between every two; got 1 and 1"):
        Ladder(*known.parts(), [nn.Identity()], known.messages()[:1])
    with pytest.raises(ValueError, match="between should hold at least 1 layer"):
        stories.ladder(None, None, None, None, between=[])


def test_a_ladder_of_other_messages_is_refused():
    parts = (priors.StandardNormal, likelihoods.Normal, encoders.PointMass)
    story = assemble(*parts, shape=(3,), latent=2, story=stories.ladder)
    with pytest.raises(ValueError, match="a ladder joins diagonal Normals, such as DiagonalNormal gives; got Delta"):
        log_weights(story, torch.zeros(2, 3))
