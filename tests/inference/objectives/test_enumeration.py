"""Sums over the values of discrete latents, by hand and by quadrature."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from objective_oracles import Mixed, agree, flat, mean
from objective_stories import Discrete, gradients
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import nn

from ppvae.inference import enumerated_elbo


class Impossible(nn.Module):
    """A latent of three values, the last of which neither program ever draws: it costs infinitely much."""

    def __init__(self):
        super().__init__()
        self.prior, self.logits = nn.Parameter(torch.tensor([0.3, -0.2])), nn.Parameter(torch.tensor([0.5, 0.1]))
        self.double()

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            k = pyro.sample("k", dist.Categorical(logits=nn.functional.pad(self.prior, (0, 1), value=-math.inf)))
            pyro.sample("x", dist.Normal(k.double(), 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("k", dist.Categorical(logits=nn.functional.pad(self.logits, (0, 1), value=-math.inf)))


def test_a_value_of_no_probability_costs_nothing():
    story, x = Impossible(), torch.tensor([0.7, -0.2]).double()
    log_q, k = story.logits.log_softmax(0), torch.arange(2.0).double().unsqueeze(-1)
    log_w = dist.Normal(k, 1.0).log_prob(x).mean(-1) + story.prior.log_softmax(0) - log_q
    exact = -(log_q.exp() * log_w).sum()
    found = enumerated_elbo(story, x)
    torch.testing.assert_close(found, exact)
    torch.testing.assert_close(flat(story, found), flat(story, exact))


def test_a_gradient_beside_a_drawn_latent_is_the_exact_one_on_average():
    story = Mixed()
    exact = story.expected(mean)
    agree(story, story.x, enumerated_elbo, exact, flat(story, exact), rough=0.1)


@pytest.mark.parametrize("particles", [1, 3])
def test_it_is_pyros_own_estimator(particles):
    """From the same draws of the latent that is drawn, beside the one that is summed over."""
    story, x = Discrete().double(), torch.randn(6).double()
    torch.manual_seed(3)
    loss = enumerated_elbo(story, x, particles=particles)
    mine = gradients(story, loss)
    pyros = TraceEnum_ELBO(num_particles=particles, vectorize_particles=True, max_plate_nesting=1)
    torch.manual_seed(3)
    guide = config_enumerate(story.guide, default="parallel")
    reference = pyros.differentiable_loss(story.model, guide, x) / len(x)
    torch.testing.assert_close(loss, reference)
    torch.testing.assert_close(mine, gradients(story, reference))


class Summed(nn.Module):
    """A latent of the model alone, which asks to be summed out: x is a mixture, and no guide has a part in it."""

    def __init__(self):
        super().__init__()
        self.logits, self.loc = nn.Parameter(torch.tensor([0.3, -0.2, 0.1])), nn.Parameter(torch.tensor([-1.0, 0.5, 2]))
        self.double()

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            k = pyro.sample("k", dist.Categorical(logits=self.logits), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(self.loc[k], 0.7), obs=x)

    def guide(self, x):
        pass


def test_a_latent_of_the_model_alone_is_summed_out():
    story, x = Summed(), torch.tensor([0.7, -0.2, 3.0]).double()
    exact = -(story.logits.log_softmax(0) + dist.Normal(story.loc, 0.7).log_prob(x[:, None])).logsumexp(-1).mean()
    found = enumerated_elbo(story, x)
    torch.testing.assert_close(found, exact)
    torch.testing.assert_close(flat(story, found), flat(story, exact))


class Nested(nn.Module):
    """A coin for each of two places of an inner plate, at dim -3."""

    def __init__(self):
        super().__init__()
        self.logit, self.guess = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(-0.4))
        self.double()

    def model(self, x):  # x: (batch, 2)
        with pyro.plate("data", len(x), dim=-1), pyro.plate("places", 2, dim=-3):
            k = pyro.sample("k", dist.Bernoulli(logits=self.logit))
            pyro.sample("x", dist.Normal(k, 1.0), obs=x.T.unsqueeze(-2))

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("places", 2, dim=-3):
            pyro.sample("k", dist.Bernoulli(logits=self.guess))


def test_a_plate_within_the_datas_is_summed_over_place_by_place():
    story, x = Nested(), torch.tensor([[0.3, 1.2], [-0.5, 0.1], [2.0, 0.9]]).double()
    k = torch.tensor([0.0, 1.0]).double()
    q, p = dist.Bernoulli(logits=story.guess), dist.Bernoulli(logits=story.logit)
    log_w = dist.Normal(k, 1.0).log_prob(x[..., None]) + p.log_prob(k) - q.log_prob(k)  # (batch, places, values)
    exact = -(q.log_prob(k).exp() * log_w).sum((-1, -2)).mean()
    found = enumerated_elbo(story, x, nesting=3)
    torch.testing.assert_close(found, exact)
    torch.testing.assert_close(flat(story, found), flat(story, exact))


def test_a_nesting_below_one_is_refused():
    with pytest.raises(ValueError, match="nesting should be at least 1, got 0"):
        enumerated_elbo(Summed(), torch.zeros(2).double(), nesting=0)
