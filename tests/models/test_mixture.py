"""The mixture story against the VAE whose prior is the same mixture, and against sums by hand."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from torch import nn

from ppvae import networks
from ppvae.inference import elbo, enumerated_elbo, importance, log_weights, prior_sampling
from ppvae.inference.program.codes import encode
from ppvae.inference.program.traces import run
from ppvae.models import VAE, Mixture, encoders, likelihoods, priors


def parts(prior=None):
    """Parts with parameters away from where they start, in float64."""
    torch.manual_seed(0)
    encoder = encoders.DiagonalNormal(networks.mlp(4, [8], 4))
    prior = prior(encoder) if prior else priors.GaussianMixture(2, components=3)
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    likelihood = likelihoods.Normal(networks.mlp(2, [8], 4), variance=0.5)
    return prior.double(), likelihood.double(), encoder.double()


def data():
    torch.manual_seed(1)
    return torch.randn(6, 4).double()


@pytest.mark.parametrize("prior", [None, lambda encoder: priors.VampPrior(2, encoder, features=4, components=3)])
def test_every_log_weight_is_that_of_the_vae_with_the_mixture_for_a_prior(prior):
    """The component is drawn from p(c | z), which leaves nothing of it in the weight."""
    made, x = parts(prior), data()
    torch.manual_seed(2)
    expected = log_weights(VAE(*made), x, particles=5)
    torch.manual_seed(2)
    torch.testing.assert_close(log_weights(Mixture(*made), x, particles=5), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("estimate", [partial(importance, defensive=0.5), prior_sampling])
def test_the_evidence_is_that_of_the_vae(estimate):
    """By weights that are bounded: a guide that nobody has fitted may be too narrow, and its errors then mislead.

    Over 24 seeds the largest of 6 was 3.1 errors off, and most errors about 0.05.
    """
    made, x = parts(), data()
    mine = estimate(Mixture(*made), x, particles=4000, progress=False)
    theirs = importance(VAE(*made), x, particles=4000, seed=1, defensive=0.5, progress=False)
    error = (mine.standard_error**2 + theirs.standard_error**2).sqrt()
    assert ((mine.estimate - theirs.estimate).abs() < 5 * error).all()  # 6 of them: less than once in 10^5 runs
    assert error.median() < 0.2


def by_hand(story, x, z):
    """sum_c r_c (log pi_c + log N(z; m_c, s_c) + log p(x | z) - log q(z | x) - log r_c), r = p(c | z): `(batch,)`."""
    prior, terms = story.prior, []
    for c, log_pi in enumerate(torch.log_softmax(prior.logits, dim=0)):
        terms.append(log_pi + dist.Normal(prior.loc[c], prior.log_scale[c].exp()).log_prob(z).sum(-1))
    log_joint = torch.stack(terms, dim=-1)
    log_r = log_joint - log_joint.logsumexp(-1, keepdim=True)
    rest = story.likelihood(z).log_prob(x) - story.encoder(x).log_prob(z)
    return (log_r.exp() * (log_joint - log_r)).sum(-1) + rest


def test_the_enumerated_elbo_is_the_sum_over_components_by_hand():
    made, x = parts(), data()
    story = Mixture(*made)
    torch.manual_seed(2)
    loss = enumerated_elbo(story, x)
    loss.backward()
    found = [parameter.grad.clone() for parameter in story.parameters() if parameter.requires_grad]
    story.zero_grad()
    torch.manual_seed(2)
    hand = -by_hand(story, x, story.encoder(x).rsample()).mean()
    hand.backward()
    assert loss.item() == pytest.approx(hand.item(), abs=1e-9)
    expected = [parameter.grad for parameter in story.parameters() if parameter.requires_grad]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    torch.manual_seed(2)
    pyros = TraceEnum_ELBO(max_plate_nesting=1).loss(story.model, story.guide, x) / len(x)
    assert pyros == pytest.approx(loss.item(), abs=1e-9)
    torch.manual_seed(2)
    assert elbo(story, x).item() == pytest.approx(loss.item(), abs=1e-9)  # c drops out of every weight


class Inner(nn.Module):
    """A user's story: a switch that only the model has, one for each of two measurements in a plate of their own."""

    def model(self, x):  # x: (batch, 2)
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            with pyro.plate("measurements", 2, dim=-3):
                on = pyro.sample("on", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
                pyro.sample("x", dist.Normal(z * on, 1.0), obs=x.T.unsqueeze(1))

    def guide(self, x):
        self.z = nn.Parameter(torch.zeros(len(x)))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Delta(self.z + 0.5))


@pytest.mark.parametrize("particles", [1, 3])
def test_sites_of_the_model_alone_are_summed_out_of_it_in_plates_of_any_depth(particles):
    x = torch.randn(5, 2)
    on, off = (dist.Normal(0.5 * switch, 1.0).log_prob(x).exp() for switch in (1, 0))
    expected = (0.3 * on + 0.7 * off).log().sum(-1) + dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.5))
    loss = enumerated_elbo(Inner(), x, particles=particles, nesting=3)
    assert loss.item() == pytest.approx(-expected.mean().item(), abs=1e-5)


def test_where_no_site_asks_it_is_the_elbo():
    story, x = VAE(*parts()), data()
    torch.manual_seed(2)
    loss = enumerated_elbo(story, x, particles=3)
    torch.manual_seed(2)
    assert loss.item() == pytest.approx(elbo(story, x, particles=3).item(), abs=1e-9)


@pytest.mark.parametrize("option", ["particles", "nesting"])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(ValueError, match=f"{option} should be at least 1, got 0"):
        enumerated_elbo(VAE(*parts()), data(), **{option: 0})


def test_components_are_drawn_as_often_as_they_are_likely():
    story = Mixture(*parts())
    trace = run(story.model, (data(),), particles=4000)
    c = trace.nodes["c"]["value"].reshape(-1, 3)
    share = torch.softmax(story.prior.logits, dim=0)
    assert ((c.mean(0) - share).abs() < 4 * (share * (1 - share) / len(c)).sqrt()).all()
    z = trace.nodes["z"]["value"].reshape(-1, 2)
    for k in range(3):
        drawn = z[c[:, k] == 1]
        error = drawn.std(0) / len(drawn) ** 0.5
        assert ((drawn.mean(0) - story.prior.loc[k]).abs() < 4 * error).all()


def test_a_prediction_is_the_component_of_the_code():
    story = Mixture(*parts())
    x = data()
    z = story.encoder(x).mean
    gaussians = dist.Normal(story.prior.loc, story.prior.log_scale.exp()).to_event(1)
    joint = torch.softmax(story.prior.logits, 0) * gaussians.log_prob(z.unsqueeze(1)).exp()
    expected = joint / joint.sum(-1, keepdim=True)
    torch.testing.assert_close(story.predict(x), expected)
    torch.testing.assert_close(encode(story, x), torch.cat([z, expected], dim=-1))


def test_components_far_apart_keep_every_number_finite():
    story, x = Mixture(*parts()).float(), data().float()
    story.prior.loc.data.mul_(1e4)
    story.prior.log_scale.data.fill_(math.log(1e-3))
    loss = enumerated_elbo(story, x)
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in story.parameters() if parameter.requires_grad)


def test_a_prior_that_is_no_mixture_is_refused():
    _, *others = parts()
    with pytest.raises(ValueError, match=r"should be a mixture of Normals \(GaussianMixture\), got Independent"):
        Mixture(priors.StandardNormal(2), *others)
