"""Annealed importance sampling, where log p(x) is known."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from stories import Written, gamma_story, integral, number, off_from_one, one_latent, two_modes
from torch import nn

from ppvae.inference import annealed, importance, prior_sampling
from ppvae.inference.evidence import annealing
from ppvae.inference.evidence.annealing import betas
from ppvae.models import Autoencoder, likelihoods, priors
from ppvae.models.missing import masked
from ppvae.selfcheck.analytic import LinearGaussian, TwoLayers

QUICK = {"num_temperatures": 15, "num_leapfrog_steps": 4, "progress": False}


@pytest.mark.parametrize("start", ["guide", "prior"])
@pytest.mark.parametrize("schedule", ["sigmoid", "linear"])
def test_it_is_unbiased_from_both_ends_by_both_schedules(start, schedule):
    known = LinearGaussian()
    x, story = known.data(200), known.story(widen=1.5, shift=0.3)
    evidence = annealed(story, x, particles=4, start=start, schedule=schedule, **QUICK)
    log_ratio = evidence.estimate - known.log_evidence(x)
    assert abs(off_from_one(log_ratio)) < 4
    assert log_ratio.expm1().std() / 200**0.5 < 0.08  # the tolerance means something
    assert evidence.bound == "stochastic lower bound"
    assert evidence.method == f"annealing from the {start} in 15 steps"
    assert evidence.particles.tolist() == [4] * 200


def test_transitions_help():
    """Without them the chains stand still: importance sampling from the prior."""
    known = LinearGaussian(latent=4, features=6, variance=0.05)
    x, story = known.data(30), known.story()
    spread = (
        annealed(story, x, particles=20, num_temperatures=40, start="prior", progress=False).estimate
        - known.log_evidence(x)
    ).std()
    plain = (prior_sampling(story, x, particles=20, progress=False).estimate - known.log_evidence(x)).std()
    assert spread < 0.3 * plain


def test_one_step_is_plain_importance_sampling():
    known = LinearGaussian()
    x, story = known.data(20), known.story(widen=1.3, shift=0.2)
    evidence = annealed(story, x, particles=500, num_temperatures=1, progress=False)
    assert ((evidence.estimate - known.log_evidence(x)).abs() < 4 * evidence.standard_error).all()
    assert (
        (evidence.elbo - known.log_evidence(x) + known.gap(1.3, 0.2)).abs() < 4 * evidence.elbo_standard_error
    ).all()
    weights = importance(story, x, particles=500, progress=False)
    torch.testing.assert_close(evidence.standard_error, weights.standard_error, rtol=0.3, atol=0)


def test_an_exact_guide_has_no_error_at_any_step():
    known = LinearGaussian()
    x = known.data(4)
    for start, lower in (("guide", True), ("prior", False)):
        evidence = annealed(known.story(), x, particles=8, start=start, **QUICK)
        assert bool(evidence.standard_error.max() < 1e-6) is lower
        if lower:
            torch.testing.assert_close(evidence.estimate, known.log_evidence(x), atol=1e-9, rtol=0)


@pytest.mark.parametrize("start", ["guide", "prior"])
def test_a_positive_latent_has_the_evidence_of_quadrature(start):
    story, x, truth = gamma_story()
    evidence = annealed(story, x, particles=400, num_temperatures=20, start=start, progress=False)
    assert ((evidence.estimate - truth).abs() < 4 * evidence.standard_error).all()
    assert evidence.standard_error.max() < 0.07


def test_from_the_prior_it_finds_the_mode_that_the_guide_misses():
    story, x, truth = two_modes()
    blind = importance(story, x, particles=2000, progress=False)
    assert (blind.estimate < truth - 0.5).all()  # half of p(x) is missed, log 2 nats
    evidence = annealed(story, x, particles=400, num_temperatures=60, start="prior", progress=False)
    assert ((evidence.estimate - truth).abs() < 4 * evidence.standard_error).all()
    assert evidence.standard_error.max() < 0.12


def test_two_layers_and_masked_data():
    two = TwoLayers(widen=1.2)
    x = two.data(100)
    assert abs(off_from_one(annealed(two, x, particles=4, start="prior", **QUICK).estimate - two.log_evidence(x))) < 4
    assert abs(off_from_one(annealed(two, x, particles=4, **QUICK).estimate - two.log_evidence(x))) < 4
    known = LinearGaussian()
    hidden = known.data(100)
    hidden[torch.rand(hidden.shape) < 0.3] = torch.nan
    batch = masked(hidden)
    for start in ("guide", "prior"):
        evidence = annealed(known.story(widen=2.0), batch, particles=4, start=start, **QUICK)
        assert abs(off_from_one(evidence.estimate - known.log_evidence(*batch))) < 4


def test_a_point_mass_is_no_start_and_the_prior_is():
    known = LinearGaussian()
    exact = known.story()
    story = Autoencoder(exact.prior, exact.likelihood, nn.Linear(5, 2)).double()
    x = known.data(100)
    with pytest.raises(ValueError, match="needs a guide with a density; latent site 'z' has none: start at the prior"):
        annealed(story, x, progress=False)
    assert (
        abs(off_from_one(annealed(story, x, particles=4, start="prior", **QUICK).estimate - known.log_evidence(x))) < 4
    )


def test_step_sizes_come_from_a_pilot_and_never_from_the_chains(monkeypatch):
    """Chains are moved by what the pilot found, whatever they do themselves."""
    known = LinearGaussian()
    used, adapted, plain, adapt = [], [], annealing.transition, annealing.adapt

    def spied(log_density, u, step, scale, noise, leapfrog):
        used.append(step.clone())
        return plain(log_density, u, step, scale, noise, leapfrog)

    def counted(step, acceptance, target):
        adapted.append(adapt(step, acceptance, target))
        return adapted[-1]

    monkeypatch.setattr(annealing, "transition", spied)
    monkeypatch.setattr(annealing, "adapt", counted)
    annealed(known.story(widen=1.5), known.data(3), particles=4, num_temperatures=6, progress=False)
    tuning = annealing.SETTLING + 5
    assert len(adapted) == tuning  # of the pilot alone: the transitions after it have no part in it
    assert len(used) == tuning + 5
    for step, tuned in zip(used[tuning:], adapted[annealing.SETTLING :], strict=True):
        assert torch.equal(step, tuned)


@pytest.mark.parametrize("start", ["guide", "prior"])
def test_a_figure_is_of_its_datum_alone(start, monkeypatch):
    known = LinearGaussian()
    x, story = known.data(5), known.story(widen=1.5, shift=0.2)
    quicker = {"num_temperatures": 6, "num_leapfrog_steps": 3, "progress": False}
    whole = annealed(story, x, particles=4, start=start, **quicker).estimate
    torch.randn(5)
    backwards = annealed(story, x.flip(0), particles=4, start=start, **quicker).estimate.flip(0)
    torch.testing.assert_close(backwards, whole, atol=1e-9, rtol=0)
    torch.testing.assert_close(
        annealed(story, x[3:5], particles=4, start=start, **quicker).estimate, whole[3:5], atol=1e-9, rtol=0
    )
    monkeypatch.setattr(annealing, "CHAINS", 8)  # two data at once
    torch.testing.assert_close(
        annealed(story, x, particles=4, start=start, **quicker).estimate, whole, atol=1e-9, rtol=0
    )
    monkeypatch.setattr(annealing, "CHAINS", 1)
    torch.testing.assert_close(
        annealed(story, x, particles=4, start=start, **quicker).estimate, whole, atol=1e-9, rtol=0
    )
    assert not torch.allclose(
        annealed(story, x, particles=4, start=start, seed=1, **quicker).estimate, whole, atol=1e-3
    )


def test_equal_data_have_chains_of_their_own():
    known = LinearGaussian()
    x = known.data(1).repeat(100, 1)
    evidence = annealed(known.story(widen=1.5, shift=0.3), x, particles=4, **QUICK)
    assert len(evidence.estimate.unique()) == 100
    assert abs(off_from_one(evidence.estimate - known.log_evidence(x))) < 4


@pytest.mark.parametrize("schedule", ["sigmoid", "linear"])
def test_temperatures_go_from_zero_to_one(schedule):
    for count in (1, 2, 7, 100):
        found = betas(schedule, count)
        assert found.shape == (count + 1,)
        assert found[0] == 0
        assert found[-1] == 1
        assert (found.diff() > 0).all()
        torch.testing.assert_close(found + found.flip(0), torch.ones(count + 1).double())
    steps = betas("sigmoid", 100).diff()
    assert steps[0] < 0.2 * steps[50]
    assert steps[-1] < 0.2 * steps[50]


class _Cut(dist.Normal):
    """A normal that is zero three deviations away."""

    def log_prob(self, value):
        return torch.where((value - self.loc).abs() > 3 * self.scale, -torch.inf, super().log_prob(value))


@pytest.mark.parametrize("start", ["guide", "prior"])
def test_a_datum_that_no_chain_can_explain_is_lost_and_the_verdict_says_so(start):
    prior = dist.Normal(number(0.0), 1.0)
    story = one_latent(prior, lambda z: _Cut(z, number(1.0)), lambda x: dist.Normal(0 * x, 1.0))
    evidence = annealed(story, number([0.5, 50.0]), particles=400, num_temperatures=10, start=start, progress=False)
    truth = integral(prior, lambda z: _Cut(z, number(1.0)), number([0.5]), -10, 10)
    assert abs(evidence.estimate[0] - truth) < 4 * evidence.standard_error[0]
    assert evidence.estimate[1] == -torch.inf
    assert evidence.verdict() == "unreliable: no draw had any weight for 1 of the data"


def test_a_factor_is_said():
    def model(x):
        z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
        pyro.factor("tilt", -z.square() / 2)
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    story = Written(model, lambda x: pyro.sample("z", dist.Normal(x / 2, 1.0)))
    x = number([0.3, 1.0])
    evidence = annealed(story, x, particles=400, num_temperatures=10, progress=False)
    assert evidence.method.endswith("of a density that the factor 'tilt' leaves unnormalised")
    truth = torch.distributions.Normal(number(0.0), 1.5**0.5).log_prob(x) - 0.5 * math.log(2)
    assert ((evidence.estimate - truth).abs() < 4 * evidence.standard_error).all()


def test_a_flat_prior_has_no_evidence():
    story = Autoencoder(priors.Flat(2), likelihoods.Normal(nn.Linear(2, 5)), nn.Linear(5, 2))
    with pytest.raises(ValueError, match="needs a proper prior"):
        annealed(story, torch.zeros(3, 5), start="prior", progress=False)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"particles": 0}, "particles should be at least 1, got 0"),
        ({"num_temperatures": 0}, "num_temperatures should be at least 1, got 0"),
        ({"num_leapfrog_steps": 0}, "num_leapfrog_steps should be at least 1, got 0"),
        ({"start": "posterior"}, "start should be guide or prior, got posterior"),
        ({"schedule": "cubic"}, "schedule should be sigmoid or linear, got cubic"),
        ({"target_accept_prob": 1.0}, "target_accept_prob should be between 0 and 1, got 1"),
    ],
)
def test_options_out_of_range_are_refused(option, message):
    known = LinearGaussian()
    with pytest.raises(ValueError, match=message):
        annealed(known.story(), known.data(2), progress=False, **option)
