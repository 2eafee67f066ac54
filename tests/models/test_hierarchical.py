"""Hierarchies: a linear-Gaussian one has exact answers."""

import math

import pytest
import torch
from hierarchies import TwoLayers
from torch import nn

from ppvae import networks
from ppvae.inference import importance, log_weights
from ppvae.inference.program.codes import encode
from ppvae.models import Hierarchical, assemble, encoders, likelihoods, priors, stories
from ppvae.models.hierarchical import LayerNormal


def test_every_log_weight_of_the_exact_guide_is_log_p():
    known = TwoLayers()
    x = known.data(6)
    log_w = log_weights(Hierarchical(*known.parts(), known.bottom_up()), x, particles=5)
    torch.testing.assert_close(log_w, known.marginal().log_prob(x).expand(5, 6), rtol=0, atol=1e-9)


def test_importance_finds_log_p_with_a_guide_that_is_off():
    known = TwoLayers()
    story, x = Hierarchical(*known.parts(), known.bottom_up(widen=1.3)), known.data(6)
    evidence = importance(story, x, particles=4000, progress=False)
    assert ((evidence.estimate - known.marginal().log_prob(x)).abs() < 4 * evidence.standard_error).all()
    assert (evidence.standard_error > 1e-3).all()
    gap = known.marginal().log_prob(x) - evidence.elbo
    expected = 4 * ((1.3**2 - 1) / 2 - math.log(1.3))  # KL of four Normals, each 1.3 times too wide
    assert ((gap - expected).abs() < 4 * evidence.elbo_standard_error).all()


def test_codes_are_the_means_of_all_layers_side_by_side():
    known = TwoLayers()
    x, (first, second) = known.data(6), known.bottom_up()
    z1 = first(x).mean
    found = encode(Hierarchical(*known.parts(), [first, second]), x)
    torch.testing.assert_close(found, torch.cat([z1, second(z1).mean], dim=-1))


def test_a_layer_keeps_a_finite_scale_where_an_exponential_would_overflow():
    p = LayerNormal(nn.Identity())(torch.tensor([[0.0, 0.0, 200.0, -200.0]]))
    torch.testing.assert_close(p.stddev, torch.tensor([[200.0001, 0.0001]]))
    assert LayerNormal(nn.Identity())(torch.zeros(1, 2)).stddev.item() == pytest.approx(math.log(2) + 1e-4)


def sizes_of(network):
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    return [layers[0].in_features, *(layer.out_features for layer in layers)]


def test_the_two_layers_of_burda_et_al():
    parts = (priors.StandardNormal, likelihoods.Bernoulli, encoders.DiagonalNormal)

    def story(*parts):
        return stories.hierarchical(*parts, above=[50], between=[100, 100])

    network = networks.MLP([200, 200], activation="tanh")
    story = assemble(*parts, shape=(1, 28, 28), latent=100, story=story, network=network)
    assert [sizes_of(encoder) for encoder in story.encoders] == [[784, 200, 200, 200], [100, 100, 100, 100]]
    assert [sizes_of(conditional) for conditional in story.conditionals] == [[50, 100, 100, 200]]
    assert sizes_of(story.likelihood) == [100, 200, 200, 784]
    assert story.prior().event_shape == (50,)
    activations = {type(m) for m in story.modules() if not list(m.children()) and not isinstance(m, nn.Linear)}
    assert activations == {nn.Tanh, priors.StandardNormal}


def test_layers_that_do_not_meet_are_refused():
    known = TwoLayers()
    prior, conditionals, likelihood = known.parts()
    with pytest.raises(ValueError, match="a conditional between every two; got 1 and 1"):
        Hierarchical(prior, conditionals, likelihood, known.bottom_up()[:1])
    with pytest.raises(ValueError, match="at least 1 layer"):
        Hierarchical(prior, [], likelihood, [])
