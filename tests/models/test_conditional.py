"""The conditional story: log p(x | y), exact in a linear-Gaussian one."""

import math
import re

import pyro.distributions as dist
import pytest
import torch

import ppvae
from ppvae.inference import importance, log_weights
from ppvae.inference.program.codes import encode, reconstruct, sample
from ppvae.models import Conditional, encoders, likelihoods, priors
from ppvae.models.conditional import Moved
from ppvae.selfcheck.analytic import LinearGaussian, affine

CLASSES = 3


class Shifted:
    """x ~ N(W z + b + V y, c I): the linear-Gaussian story, moved by its label."""

    def __init__(self, widen=1.0):
        self.known = LinearGaussian()
        self.v = 2 * torch.randn(5, CLASSES, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        plain = self.known.story(widen)
        network = plain.encoder.network
        zeros = torch.zeros(2, CLASSES, dtype=torch.float64)
        moved = torch.cat([-self.known.gain @ self.v, zeros])  # q(z | x, y) = q(z | x - V y)
        likelihood = likelihoods.Normal(affine(torch.cat([self.known.weight, self.v], dim=1), self.known.bias)).double()
        likelihood.log_scale.data.fill_(0.5 * math.log(self.known.variance))
        encoder = encoders.DiagonalNormal(affine(torch.cat([network.weight.data, moved], dim=1), network.bias.data))
        self.story = Conditional(plain.prior, likelihood, encoder, CLASSES)

    def log_p(self, x):
        """log p(x | y) for every y: `(batch, classes)`."""
        return self.known.marginal().log_prob(x.unsqueeze(1) - self.v.T)


def test_every_log_weight_of_the_exact_guide_is_log_p_of_x_given_y():
    shifted = Shifted()
    x, labels = shifted.known.data(6), torch.tensor([0, 2, 1, 1, 0, 2])
    expected = shifted.log_p(x)[torch.arange(6), labels]
    log_w = log_weights(shifted.story, (x, labels), particles=4)
    torch.testing.assert_close(log_w, expected.expand(4, 6), rtol=0, atol=1e-9)
    one_hot = torch.eye(CLASSES)[labels]
    torch.testing.assert_close(log_weights(shifted.story, (x, one_hot)), expected.expand(1, 6), rtol=0, atol=1e-9)


def test_covariates_go_in_as_they_are():
    shifted = Shifted()
    x, y = shifted.known.data(6), torch.randn(6, CLASSES).double()
    expected = shifted.known.marginal().log_prob(x - y @ shifted.v.T)
    torch.testing.assert_close(log_weights(shifted.story, (x, y))[0], expected, rtol=0, atol=1e-9)


def test_importance_finds_log_p_with_a_guide_that_is_off():
    shifted = Shifted(widen=1.5)
    x, labels = shifted.known.data(6), torch.tensor([0, 2, 1, 1, 0, 2])
    evidence = importance(shifted.story, (x, labels), particles=4000, progress=False)
    error = evidence.estimate - shifted.log_p(x)[torch.arange(6), labels]
    assert (error.abs() < 4 * evidence.standard_error).all()
    assert (evidence.standard_error > 1e-3).all()


def test_what_is_generated_and_reconstructed_follows_the_label():
    shifted = Shifted()
    labels = torch.arange(CLASSES).repeat_interleave(4000)
    given = (torch.zeros(len(labels), 5).double(), labels)
    drawn = sample(shifted.story, given, means=True).reshape(CLASSES, 4000, 5)
    expected = shifted.known.bias + shifted.v.T
    assert ((drawn.mean(1) - expected).abs() < 4 * drawn.std(1) / 4000**0.5).all()
    x = shifted.known.data(3)
    labels = torch.arange(3)
    z = shifted.known.posterior_mean(x - shifted.v.T)
    torch.testing.assert_close(encode(shifted.story, (x, labels)), z)
    torch.testing.assert_close(
        reconstruct(shifted.story, (x, labels)), z @ shifted.known.weight.T + shifted.known.bias + shifted.v.T
    )


def test_a_moved_prior_is_the_prior_moved_and_scaled():
    moved = Moved(priors.StandardNormal(2), CLASSES, latent=2)
    z, y = torch.randn(4, CLASSES, 2), torch.eye(CLASSES)
    torch.testing.assert_close(moved(y).log_prob(z), priors.StandardNormal(2)().log_prob(z))  # where it starts
    torch.nn.init.normal_(moved.move.weight)
    loc, log_scale = moved.move(y).chunk(2, dim=-1)
    torch.testing.assert_close(moved(y).log_prob(z), dist.Normal(loc, log_scale.exp()).to_event(1).log_prob(z))
    assert moved(y).rsample().requires_grad


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.tensor([0, 1, 2, 3, 0, 0]), "labels should be from 0 to 2, got 3$"),
        (torch.tensor([0, 1, 2, -1, 0, 0]), "labels should be from 0 to 2, got -1$"),
        (torch.zeros(6), r"real rows of 3; got shape \(\d,\) of float32"),
        (torch.zeros(6, 2), r"real rows of 3; got shape \(\d, 2\)"),
        (torch.zeros(6, 3).long(), r"whole numbers, one a datum, .* got shape \(\d, 3\) of int64"),
    ],
)
def test_labels_out_of_range_are_refused_in_one_line(labels, words):
    story, x = Shifted().story, torch.randn(6, 5).double()
    for call in (log_weights, lambda *arguments: ppvae.fit(*arguments, progress=False)):
        with pytest.raises(ValueError) as refusal:  # noqa: PT011, matched below
            call(story, (x, labels))
        assert re.search(words, str(refusal.value).splitlines()[0])  # Pyro adds the shapes of the trace below it


def test_labels_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"equal length, got lengths \[6, 5\]"):
        log_weights(Shifted().story, (torch.randn(6, 5).double(), torch.zeros(5).long()))
