"""The known answers, against quadrature, enumeration and draws: what all else is held against."""

import itertools
import math

import pytest
import torch

from ppvae.inference import log_mean_exp, log_weights
from ppvae.models.missing import masked
from ppvae.selfcheck.analytic import Enumerable, LinearGaussian, TwoLayers
from ppvae.selfcheck.objectives import mean_bound, tight_bound


def grid(low, high, points=4001):
    z = torch.linspace(low, high, points, dtype=torch.float64).unsqueeze(-1).unsqueeze(-1)  # (points, 1, 1)
    return z, math.log((high - low) / (points - 1))


def test_a_linear_gaussian_story_has_its_evidence_by_quadrature():
    known = LinearGaussian(latent=1, features=3)
    story, x = known.story(), known.data(4)
    z, step = grid(-9, 9)
    log_joint = story.prior().log_prob(z) + story.likelihood(z).log_prob(x)
    torch.testing.assert_close(torch.logsumexp(log_joint, 0) + step, known.log_evidence(x), atol=1e-9, rtol=0)
    p = log_joint.softmax(0).unsqueeze(-1)
    mean = (p * z).sum(0)
    torch.testing.assert_close(mean, known.posterior_mean(x))
    variance = (p * (z - mean).square()).sum(0)
    torch.testing.assert_close(variance, known.posterior_covariance.diagonal().expand(4, 1))


def test_part_of_the_features_has_the_marginal_of_that_part():
    known = LinearGaussian(latent=1, features=3)
    x = known.data(5)
    x[0, 1] = x[1, :2] = x[2, 2] = x[3] = torch.nan
    story, (filled, mask) = known.story(), masked(x)
    z, step = grid(-9, 9)
    normal = story.likelihood(z).base_dist
    log_joint = story.prior().log_prob(z) + (normal.log_prob(filled) * mask).sum(-1)
    torch.testing.assert_close(
        torch.logsumexp(log_joint, 0) + step, known.log_evidence(filled, mask), atol=1e-9, rtol=0
    )


def test_data_have_the_moments_of_the_marginal():
    for known in (LinearGaussian(), TwoLayers()):
        x = known.data(20_000)
        q = known.marginal()
        white = torch.linalg.solve_triangular(q.scale_tril, (x - q.loc).T, upper=False)
        assert (white.mean(1).abs() < 4.5 / 20_000**0.5).all()
        off = torch.cov(white) - torch.eye(len(white)).double()
        assert off.abs().max() < 4.5 * (2 / 20_000) ** 0.5
        assert torch.equal(known.data(3), known.data(3))
        assert not torch.equal(known.data(3), known.data(3, seed=2))


@pytest.mark.parametrize(("widen", "shift"), [(1.0, 0.0), (1.3, 0.2), (0.8, -0.1), (2.0, 0.5)])
def test_gaps_by_quadrature(widen, shift):
    known = LinearGaussian(latent=1, features=3)
    story, x = known.story(widen, shift), known.data(3)
    z, step = grid(-20, 20, 40_001)
    log_q = story.encoder(x).log_prob(z)
    log_w = story.prior().log_prob(z) + story.likelihood(z).log_prob(x) - log_q
    elbo = (log_q.exp() * log_w).sum(0) * math.exp(step)
    torch.testing.assert_close(elbo, known.log_evidence(x) - known.gap(widen, shift), atol=1e-8, rtol=0)
    if widen**2 > 0.5:
        cubo = 0.5 * (torch.logsumexp(log_q + 2 * log_w, 0) + step)
        torch.testing.assert_close(cubo, known.log_evidence(x) + known.moment_gap(widen, shift), atol=1e-8, rtol=0)


def test_gaps_of_several_latents_by_draws():
    known = LinearGaussian(latent=3)
    log_w = log_weights(known.story(1.3, 0.1), known.data(2), particles=200_000)
    elbo = known.log_evidence(known.data(2)) - known.gap(1.3, 0.1)
    assert ((log_w.mean(0) - elbo).abs() < 4 * log_w.std(0) / 200_000**0.5).all()
    w = (2 * (log_w - known.log_evidence(known.data(2)))).exp()
    assert ((w.mean(0) - math.exp(2 * known.moment_gap(1.3, 0.1))).abs() < 4 * w.std(0) / 200_000**0.5).all()


@pytest.mark.parametrize("bound", [mean_bound, tight_bound])
def test_expected_bounds_are_what_draws_give(bound):
    known = LinearGaussian(latent=1, features=3)
    story, x = known.story(1.4, 0.3), known.data(3)
    discrete, y = Enumerable(), torch.linspace(-1, 2, 4).double()
    for found, log_w in (
        (known.expected(story, x, bound), log_weights(story, x, particles=100_000)),
        (discrete.expected(y, bound), log_weights(discrete, y, particles=100_000)),
    ):
        drawn = bound(log_w.unflatten(0, (2, 50_000)))
        assert ((drawn.mean(0) - found).abs() < 4.5 * drawn.std(0) / 50_000**0.5).all()


def test_more_nodes_change_nothing():
    known = LinearGaussian(latent=1, features=3)
    story, x = known.story(1.4, 0.3), known.data(3)
    for few, many in (
        (known.expected(story, x, tight_bound), known.expected(story, x, tight_bound, nodes=48)),
        (known.awake(story, x), known.awake(story, x, nodes=48)),
    ):
        torch.testing.assert_close(few, many, atol=1e-3, rtol=0)


def test_an_enumerable_story_by_hand():
    story, y = Enumerable(), torch.tensor([0.3, -1.0]).double()
    p = story.logits.softmax(0)
    density = torch.stack([torch.distributions.Normal(loc, 1.0).log_prob(y).exp() for loc in story.loc])
    joint = p.unsqueeze(-1) * density
    torch.testing.assert_close(story.log_evidence(y), joint.sum(0).log())
    q = (y.unsqueeze(-1) * story.slope).softmax(-1).T
    pairs = itertools.product(range(3), repeat=2)
    by_hand = sum(q[a] * q[b] * ((joint[a] / q[a] + joint[b] / q[b]) / 2).log() for a, b in pairs)
    torch.testing.assert_close(story.expected(y, tight_bound), by_hand)


@pytest.mark.parametrize("known", [LinearGaussian(), LinearGaussian(latent=4, features=7, variance=0.05), TwoLayers()])
def test_the_exact_guide_makes_every_weight_the_evidence(known):
    x = known.data(5)
    story = known if isinstance(known, TwoLayers) else known.story()
    log_w = log_weights(story, x, particles=50)
    torch.testing.assert_close(log_w, known.log_evidence(x).expand(50, 5), atol=1e-9, rtol=0)


def test_two_layers_with_a_wider_guide_average_to_the_evidence():
    two = TwoLayers(widen=1.3)
    x = two.data(3)
    log_w = log_weights(two, x, particles=100_000)
    w = (log_w - two.log_evidence(x)).exp()
    assert ((w.mean(0) - 1).abs() < 4 * w.std(0) / 100_000**0.5).all()
    assert (log_mean_exp(log_w) - two.log_evidence(x)).abs().max() < 0.05


def test_another_seed_is_another_story():
    for make in (LinearGaussian, TwoLayers):
        one, again, other = make(seed=0), make(seed=0), make(seed=1)
        for name in ("weight", "bias"):
            assert torch.equal(getattr(one, name), getattr(again, name))
            assert not torch.equal(getattr(one, name), getattr(other, name))
