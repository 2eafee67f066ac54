"""Proposals made of a guide: widened about its mean, or mixed with the prior."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from stories import Written, gamma_story, number, off_from_one, one_latent, two_modes
from torch import nn

from ppvae.inference import importance, prior_sampling
from ppvae.inference.program.proposals import defensive_log_weights, guide_log_density, widen, widened_log_weights
from ppvae.models import VAE, encoders, likelihoods, priors
from ppvae.selfcheck.analytic import Enumerable, LinearGaussian, TwoLayers


@pytest.mark.parametrize("how", [{"widening": 1.5}, {"defensive": 0.2}], ids=str)
def test_a_safer_proposal_is_unbiased_where_the_guide_is_narrow(how):
    known = LinearGaussian()
    x = known.data(400)
    evidence = importance(known.story(widen=0.7, shift=0.1), x, particles=200, progress=False, **how)
    log_ratio = evidence.estimate - known.log_evidence(x)
    assert abs(off_from_one(log_ratio)) < 4
    assert log_ratio.expm1().std() / 400**0.5 < 0.01  # the tolerance means something
    plain = importance(known.story(widen=0.7, shift=0.1), x, particles=200, progress=False)
    assert evidence.standard_error.mean() < 0.8 * plain.standard_error.mean()


@pytest.mark.parametrize("how", [{"widening": 1.4}, {"defensive": 0.3}], ids=str)
def test_a_safer_proposal_is_unbiased_for_two_layers(how):
    two = TwoLayers(widen=0.8)
    x = two.data(300)
    log_ratio = importance(two, x, particles=200, progress=False, **how).estimate - two.log_evidence(x)
    assert abs(off_from_one(log_ratio)) < 4
    assert log_ratio.expm1().std() / 300**0.5 < 0.02


def test_a_defensive_share_is_unbiased_for_a_discrete_latent():
    story, x = Enumerable(), torch.linspace(-2, 3, 200).double()
    log_ratio = (
        importance(story, x, particles=100, defensive=0.25, progress=False).estimate - story.log_evidence(x).detach()
    )
    assert abs(off_from_one(log_ratio)) < 4


def test_widened_normals_have_the_density_of_wider_normals():
    loc, scale, z = torch.randn(4, 3).double(), torch.rand(4, 3).double() + 0.1, torch.randn(4, 3).double()
    for factor in (0.5, 1.0, 2.5):
        wide = widen(dist.Normal(loc, scale).to_event(1), factor)
        torch.testing.assert_close(wide.log_prob(z), dist.Normal(loc, factor * scale).to_event(1).log_prob(z))
    tril = torch.tensor([[1.0, 0, 0], [0.5, 2, 0], [-1, 0.3, 0.7]]).double()
    wide = widen(dist.MultivariateNormal(loc, scale_tril=tril), 1.7)
    torch.testing.assert_close(wide.log_prob(z), dist.MultivariateNormal(loc, scale_tril=1.7 * tril).log_prob(z))


def test_widened_weights_by_hand():
    known = LinearGaussian()
    x, story = known.data(3), known.story()
    torch.manual_seed(3)
    found = widened_log_weights(story, x, 7, widening=2.0)
    torch.manual_seed(3)
    q = story.encoder(x)
    z = q.mean + 2 * (q.expand((7, 3)).sample() - q.mean)
    wide = torch.distributions.Normal(q.mean, 2 * q.stddev).log_prob(z).sum(-1)
    expected = story.prior().log_prob(z) + story.likelihood(z).log_prob(x) - wide
    torch.testing.assert_close(found, expected.detach())


def test_defensive_weights_by_hand():
    known = LinearGaussian()
    x, story, share = known.data(3), known.story(widen=0.5), 0.3
    seen = {}
    likelihood = story.likelihood.forward
    story.likelihood.forward = lambda z: (seen.update(z=z), likelihood(z))[1]  # the last z is what is weighed
    found = defensive_log_weights(story, x, 5000, share)
    z = seen["z"]
    log_q, log_prior = story.encoder(x).log_prob(z), story.prior().log_prob(z)
    mixture = torch.log((1 - share) * log_q.exp() + share * log_prior.exp())
    torch.testing.assert_close(found, (log_prior + likelihood(z).log_prob(x) - mixture).detach())
    # z is from that mixture: its square on average is the mixture's
    scale = 0.5 * known.posterior_covariance.diagonal().sqrt()
    second = (1 - share) * (known.posterior_mean(x).square() + scale.square()) + share
    squares = z.square()
    assert ((squares.mean(0) - second).abs() < 4 * squares.std(0) / 5000**0.5).all()


def test_defensive_weights_are_at_most_the_likelihood_over_the_share():
    """A posterior as wide as this is met often by draws from the prior: over 100 seeds z is 0 +- 1, at most 3.6.

    k-hat, -0.4 +- 0.4, is above 0.7 for a datum in 2000, and for three of 20 once in millions of runs; that of plain
    weights is below for one in 50.
    """
    known = LinearGaussian(variance=4.0)
    x, story = known.data(20), known.story(widen=0.05, shift=0.5)
    log_w = defensive_log_weights(story, x, 2000, share=0.1)
    top = story.likelihood(torch.zeros(2).double()).base_dist.scale.log().neg().sum() - 2.5 * math.log(2 * math.pi)
    assert (log_w <= top - math.log(0.1) + 1e-9).all()
    evidence = importance(story, x, particles=4000, defensive=0.3, progress=False)
    assert evidence.unreliable() <= 0.1
    assert importance(story, x, particles=4000, progress=False).unreliable() > 0.5
    z = (evidence.estimate - known.log_evidence(x)) / evidence.standard_error
    assert z.abs().max() < 5.2  # 20 normal figures: once in 250,000 runs
    assert abs(z.mean()) < 4.5 / 20**0.5


def test_a_defensive_share_finds_the_mode_that_the_guide_misses():
    story, x, truth = two_modes()
    blind = importance(story, x, particles=4000, progress=False)
    assert ((blind.estimate - truth).abs() - math.log(2)).abs().max() < 0.1  # half of it is missed, without a sign
    evidence = importance(story, x, particles=20_000, defensive=0.3, progress=False)
    assert ((evidence.estimate - truth).abs() < 4 * evidence.standard_error).all()
    assert evidence.standard_error.max() < 0.1


def test_widening_leaves_a_latent_on_another_support_alone():
    class Mixed(nn.Module):
        def model(self, x):
            with pyro.plate("data", len(x), dim=-1):
                s = pyro.sample("s", dist.Gamma(number(2.0), number(1.0)))
                c = pyro.sample("c", dist.Categorical(torch.ones(2).double()))
                m = pyro.sample("m", dist.Normal(c.double(), 1.0))
                pyro.sample("x", dist.Normal(m, s + 0.1), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("s", dist.Gamma(2 + 0 * x, number(1.0)))
                pyro.sample("c", dist.Categorical(torch.ones(2).double()))
                pyro.sample("m", dist.Normal(x, 0.5))

    story, x = Mixed(), torch.linspace(-1, 2, 5).double()
    wide = importance(story, x, particles=30_000, widening=2.0, progress=False)
    plain = prior_sampling(story, x, particles=100_000, progress=False)
    error = torch.hypot(wide.standard_error, plain.standard_error)
    assert ((wide.estimate - plain.estimate).abs() < 4 * error).all()
    assert "2 times as wide" in wide.method


def test_a_guide_with_nothing_to_widen_is_refused():
    story, x, _ = gamma_story()  # a log-normal guide
    with pytest.raises(ValueError, match="widening needs a latent over unbounded reals, and this guide draws none"):
        importance(story, x, particles=50, widening=2.0)
    with pytest.raises(ValueError, match="ask for a defensive share"):
        importance(Enumerable(), torch.zeros(2).double(), particles=50, widening=2.0)


def test_a_guide_without_a_mean_cannot_be_widened():
    prior = dist.Normal(number(0.0), 1.0)
    story = one_latent(prior, lambda z: dist.Normal(z, 1.0), lambda x: dist.Cauchy(x, 1.0))
    with pytest.raises(ValueError, match="widening needs a guide that has a mean, which Cauchy has not"):
        importance(story, torch.zeros(2).double(), particles=50, widening=2.0)


def test_an_autoguide_is_widened_in_its_own_space_alone():
    """Its point masses carry the density of what they are functions of: stretching them too would count it twice."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)).double(), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    class Auto:
        def __init__(self, guide):
            self.model, self.guide = model, guide

    x = torch.tensor([0.5]).double()  # evaluation is datum by datum
    guide = AutoNormal(model, init_scale=0.5)
    guide(x)
    guide.double()
    evidence = importance(Auto(guide), x, particles=20_000, widening=2.0, progress=False)
    truth = torch.distributions.Normal(number(0.0), 2**0.5).log_prob(x)
    assert ((evidence.estimate - truth).abs() < 4 * evidence.standard_error).all()
    assert evidence.standard_error < 0.02
    with pytest.raises(ValueError, match="latents with a density of their own, not auxiliary ones"):
        importance(Auto(guide), x, particles=50, defensive=0.1)


def test_latents_that_guide_and_model_do_not_share_are_named():
    def model(x):
        pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
        pyro.sample("x", dist.Normal(0 * x, 1.0), obs=x)

    def more(x):
        pyro.sample("z", dist.Normal(x, 1.0))
        pyro.sample("c", dist.Normal(x, 1.0))

    x = torch.zeros(2).double()
    for how in ({"widening": 2.0}, {"defensive": 0.1}):
        with pytest.raises(ValueError, match="the guide should draw the model's latent sites only; it draws c"):
            importance(Written(model, more), x, particles=50, **how)
        with pytest.raises(ValueError, match="should draw every latent site of the model; it lacks z"):
            importance(Written(model, lambda x: None), x, particles=50, **how)


def test_a_guide_on_another_kind_of_set_is_refused_whatever_the_proposal():
    sphere = VAE(
        priors.StandardNormal(3), likelihoods.Normal(nn.Linear(3, 5)), encoders.VonMisesFisher(nn.Linear(5, 4))
    )
    with pytest.raises(ValueError, match="their densities have no ratio"):
        importance(sphere, torch.zeros(2, 5), particles=50, defensive=0.1)


def test_the_density_of_the_guide_at_given_latents():
    two = TwoLayers(widen=1.3)
    x = two.data(4)
    latents = {"top": torch.randn(6, 4, 2).double(), "z": torch.randn(6, 4, 3).double()}
    found = guide_log_density(two, (x,), latents, 6)
    with pyro.poutine.trace() as trace, pyro.poutine.condition(data=latents), pyro.plate("particles", 6, dim=-2):
        two.guide(x)
    trace.trace.compute_log_prob()
    expected = sum(trace.trace.nodes[name]["log_prob"] for name in latents)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"widening": 0.0}, "widening should be positive and finite, got 0"),
        ({"widening": math.inf}, "widening should be positive and finite, got inf"),
        ({"defensive": 1.0}, "defensive should be a share from 0 to below 1, got 1"),
        ({"defensive": -0.1}, "defensive should be a share from 0 to below 1, got -0.1"),
        ({"defensive": 0.1, "widening": 2.0}, "a proposal should be widened or defensive, got both"),
    ],
)
def test_options_out_of_range_are_refused(how, message):
    known = LinearGaussian()
    with pytest.raises(ValueError, match=message):
        importance(known.story(), known.data(2), particles=50, **how)
