"""Objectives against one another and against what is written out by hand: the same draws, the same gradients."""

from contextlib import nullcontext
from functools import partial

import pyro.distributions as dist
import pytest
import torch
from objective_stories import Discrete, binary, gradients, story_of_two_layers, vae
from torch import nn

from ppvae import networks
from ppvae.inference import (
    ciwae,
    dreg,
    elbo,
    free_bits,
    iwae,
    maximum_a_posteriori,
    mean_field_elbo,
    miwae,
    piwae,
    renyi,
    sticking_the_landing,
    vimco,
)
from ppvae.inference.objectives import pathwise
from ppvae.inference.objectives.terms import weigh_terms
from ppvae.models import Autoencoder, encoders, likelihoods, priors


def penalised():
    torch.manual_seed(0)
    return Autoencoder(priors.StandardNormal(2), likelihoods.Bernoulli(nn.Linear(2, 5)), nn.Linear(5, 2)).double()


SAME = {  # what is the same estimator, draw by draw
    "piwae of one bound is iwae": (partial(piwae, outer=1, particles=4), partial(iwae, particles=4)),
    "miwae of one bound is iwae": (partial(miwae, outer=1, particles=4), partial(iwae, particles=4)),
    "piwae of one draw is iwae": (partial(piwae, outer=1, particles=1), partial(iwae, particles=1)),
    "ciwae without elbo is iwae": (partial(ciwae, particles=4, beta=0.0), partial(iwae, particles=4)),
    "ciwae without iwae is renyi at 1": (partial(ciwae, particles=4, beta=1.0), partial(renyi, particles=4, alpha=1.0)),
    "renyi at 0 is iwae": (partial(renyi, particles=4, alpha=0.0), partial(iwae, particles=4)),
}
PATHS = {
    "dreg of one draw sticks the landing": (partial(dreg, particles=1), sticking_the_landing),
    "renyi at 1 is the elbo": (partial(renyi, particles=4, alpha=1.0), partial(elbo, particles=4)),
    "vimco without a discrete latent is iwae": (partial(vimco, particles=4), partial(iwae, particles=4)),
}


@pytest.mark.parametrize("name", [*SAME, *PATHS])
@pytest.mark.parametrize("kind", ["vae", "two layers", "discrete"])
def test_the_same_estimator_has_the_same_value_and_gradient(name, kind):
    if kind == "discrete" and name in PATHS:
        pytest.skip("of reparameterised stories")
    stories = {
        "vae": lambda: (vae().double(), binary().double()),
        "two layers": story_of_two_layers,
        "discrete": lambda: (Discrete().double(), torch.randn(6).double()),
    }
    story, x = stories[kind]()
    found = []
    for objective in (SAME | PATHS)[name]:
        torch.manual_seed(3)
        loss = objective(story, x)
        found.append([loss.detach(), *gradients(story, loss).values()])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_a_path_is_what_backpropagation_through_the_draws_gives():
    """Without log q both are the same: of a penalty and log p(x, z), through two draws, the second given the first."""
    story, x = story_of_two_layers()
    found = []
    for leaves in (pathwise.Leaves(), nullcontext()):
        torch.manual_seed(3)
        with leaves:
            terms = weigh_terms(story, x, 3)
        target = (terms.log_joint.sin() - terms.factors).sum()
        surrogate = target if leaves.__class__ is nullcontext else target + leaves.path(target)
        found.append(gradients(story, surrogate))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("beta", [0.0, 0.5, 4.0])
def test_beta_weighs_the_divergence_and_may_be_a_tensor(beta):
    story, x = vae(), binary()
    q = story.encoder(x).base_dist
    for objective in (elbo, mean_field_elbo, partial(free_bits, nats=0.0)):
        story.prior = priors.StandardNormal(2)
        losses = []
        for weight in (beta, torch.tensor(beta), 1.0):
            torch.manual_seed(3)
            losses.append(objective(story, x, particles=2, beta=weight))
        torch.testing.assert_close(losses[0], losses[1])
        if objective is mean_field_elbo:
            kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(-1).mean()
            torch.testing.assert_close(losses[0] - losses[2], (beta - 1) * kl)


def test_free_bits_leave_a_dimension_alone_until_its_divergence_is_spent():
    """KL of each dimension by hand, averaged over the batch before it is compared with what is free."""
    story, x = vae(prior=priors.StandardNormal(2)), binary()
    with torch.no_grad():
        story.encoder.network[-1].weight.mul_(2)
        story.encoder.network[-1].bias.copy_(torch.tensor([2.0, 0.0, 0.0, -0.1]))
    q = story.encoder(x).base_dist
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(0)
    nats = kl.detach().mean().item()
    assert kl[1] < nats < kl[0]
    torch.manual_seed(3)
    lost = free_bits(story, x, nats=1e6) - 2e6
    torch.manual_seed(3)
    torch.testing.assert_close(free_bits(story, x, nats=nats), lost + kl[0] + nats, rtol=0, atol=0.2)  # float32 of 2e6
    torch.manual_seed(3)
    plain = mean_field_elbo(story, x)
    torch.manual_seed(3)
    torch.testing.assert_close(free_bits(story, x, nats=nats), plain - kl[1] + nats)
    torch.manual_seed(3)
    mine = gradients(story, free_bits(story, x, nats=nats))
    torch.manual_seed(3)
    expected = gradients(story, mean_field_elbo(story, x, beta=0.0) + kl[0])
    torch.testing.assert_close(mine, expected)


def test_free_bits_of_a_guide_that_is_no_product_are_of_the_site():
    story, x = vae(encoder=encoders.FullNormal(networks.mlp(5, [7], 5))), binary()
    torch.manual_seed(3)
    plain = elbo(story, x, beta=0.0)
    torch.manual_seed(3)
    torch.testing.assert_close(free_bits(story, x, nats=50.0), plain + 50)


def test_maximum_a_posteriori_is_the_density_at_the_mean():
    story, x = vae(prior=priors.StandardNormal(2)), binary()
    z = story.encoder(x).mean
    expected = -(story.prior().log_prob(z) + story.likelihood(z).log_prob(x)).mean()
    torch.testing.assert_close(maximum_a_posteriori(story, x), expected)
    mine = gradients(story, maximum_a_posteriori(story, x))
    torch.testing.assert_close(mine, gradients(story, expected))
    point = penalised()
    torch.testing.assert_close(maximum_a_posteriori(point, x.double()), elbo(point, x.double()))
    chain, y = story_of_two_layers()
    u = chain.up * y
    v = chain.across * u.sin() + y
    log_p = dist.Normal(chain.a, 1.0).log_prob(u) + dist.Normal(chain.b * u, 0.8).log_prob(v)
    expected = 0.1 * (u * v * chain.up) ** 2 - log_p - dist.Normal(chain.c * v + u, 0.5).log_prob(y)
    torch.testing.assert_close(maximum_a_posteriori(chain, y), expected.mean())
