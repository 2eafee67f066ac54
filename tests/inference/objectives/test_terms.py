"""The terms of a log-weight, and the rules that objectives have in common."""

import math
from functools import partial

import pyro.distributions as dist
import pytest
import torch
from objective_stories import Discrete, story_of_two_layers

from ppvae.inference import dreg, free_bits, log_weights, mean_field_elbo, sticking_the_landing
from ppvae.inference.objectives.terms import a_share, at_least, not_negative, weigh_terms, with_score


@pytest.mark.parametrize("objective", [mean_field_elbo, free_bits, sticking_the_landing, dreg])
def test_a_latent_that_passes_no_gradient_is_refused_by_name(objective):
    with pytest.raises(ValueError, match=r"site 'k' \(Categorical\) does not: enumerated_elbo .* vimco"):
        objective(Discrete(), torch.randn(6))


def test_the_terms_are_those_of_the_densities_and_add_up_to_the_log_weight():
    story, x = Discrete().double(), torch.randn(6).double()
    torch.manual_seed(3)
    terms = weigh_terms(story, x, particles=4)
    k, z = (terms.guide.nodes[name]["value"] for name in ("k", "z"))  # (particles, batch)
    out = story.encode(x.unsqueeze(-1))
    coin = dist.Categorical(logits=out[..., :3]).log_prob(k)
    log_q = coin + dist.Normal(out[..., 3], out[..., 4].exp()).log_prob(z)
    log_prior = dist.Categorical(logits=story.logits).log_prob(k) + dist.Normal(story.loc[k], 1.0).log_prob(z)
    torch.testing.assert_close(terms.log_likelihood, dist.Normal(z, 0.5).log_prob(x))
    torch.testing.assert_close(terms.log_prior, log_prior)
    torch.testing.assert_close(terms.log_q, log_q)
    torch.testing.assert_close(terms.log_score, coin)  # z passes its gradient
    torch.testing.assert_close(terms.factors, torch.zeros(4, 6).double())
    torch.manual_seed(3)
    torch.testing.assert_close(terms.log_w, log_weights(story, x, particles=4))
    torch.testing.assert_close(terms.log_joint, terms.log_w + log_q)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_factor_of_the_guide_is_no_part_of_its_density(scaled):
    story, x = story_of_two_layers()
    terms = weigh_terms(story, x, particles=3, scaled=scaled)
    u, v = (terms.guide.nodes[name]["value"] for name in ("top", "z"))
    scale = story.scale.exp()
    log_q = dist.Normal(story.up * x, scale).log_prob(u)
    log_q = log_q + dist.Normal(story.across * u.sin() + x, scale * (1 + u**2)).log_prob(v)
    torch.testing.assert_close(terms.log_q, log_q)
    torch.testing.assert_close(terms.factors, 0.1 * (u * v * story.up) ** 2)
    assert terms.log_score is None


def test_a_bound_with_a_score_has_its_value_and_the_gradient_of_both():
    logit = torch.tensor(0.3, requires_grad=True)
    bound, log_score = logit.square(), 5 * logit
    found = with_score(bound, log_score)
    assert found == bound
    (slope,) = torch.autograd.grad(found, logit)
    torch.testing.assert_close(slope, 2 * logit + bound * 5)
    assert with_score(bound, None) is bound


@pytest.mark.parametrize(
    ("check", "taken", "refused"),
    [
        (partial(at_least, 2), (2, 3), (1, -4)),
        (not_negative, (0.0, 1e9), (-1e-9, math.inf, math.nan)),
        (a_share, (0.0, 0.5, 1.0), (-1e-9, 1.1, math.nan)),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(check, taken, refused):
    for value in taken:
        check(weight=value)
    for value in refused:
        with pytest.raises(ValueError, match=rf"weight should be .*, got {value}"):
            check(weight=value)


def test_a_number_that_is_a_tensor_is_not_read():
    """A compiled step has no value to look at: a wrong one is the caller's to see."""
    not_negative(beta=torch.tensor(-1.0))
