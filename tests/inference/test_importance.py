"""Evidence against closed forms and enumeration; its streams, its errors, and what it leaves alone."""

import hashlib
import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from ppvae import networks
from ppvae.inference import Evidence, importance, prior_sampling
from ppvae.inference import importance as importance_function
from ppvae.known import LinearGaussian
from ppvae.models import VAE, Autoencoder, assemble, guides, likelihoods, priors


def test_exact_guide_gives_the_evidence_without_error():
    known = LinearGaussian()
    x = known.data(5)
    evidence = importance(known.story(), x, particles=50)
    torch.testing.assert_close(evidence.estimate, known.marginal().log_prob(x), atol=1e-9, rtol=0)
    assert (evidence.standard_error < 1e-6).all()
    torch.testing.assert_close(evidence.ess, torch.full((5,), 50.0).double())
    assert evidence.verdict().startswith("no sign of trouble")


@pytest.mark.parametrize("estimate", [importance, prior_sampling])
def test_inexact_proposals_agree_with_the_closed_form_within_four_errors(estimate):
    known = LinearGaussian()
    x, story = known.data(20), known.story(widen=1.4, shift=0.1)
    evidence = estimate(story, x, particles=4000)
    exact = known.marginal().log_prob(x)
    z = (evidence.estimate - exact) / evidence.standard_error
    assert z.abs().max() < 4
    assert 0.5 < z.std() < 1.6  # the errors are neither too small nor too large: 20 draws of a unit deviation
    assert evidence.standard_error.max() < 0.15  # the tolerance means something
    assert evidence.bound == "stochastic lower bound"


def test_the_elbo_beside_it_is_the_evidence_less_the_divergence():
    known = LinearGaussian()
    x, story = known.data(10), known.story(widen=1.4, shift=0.1)
    evidence = importance(story, x, particles=4000)
    exact = known.marginal().log_prob(x) - known.gap(1.4, 0.1)
    assert ((evidence.elbo - exact).abs() < 4 * evidence.elbo_standard_error).all()


def test_a_guide_that_is_too_narrow_is_flagged():
    known = LinearGaussian()
    x = known.data(10)
    evidence = importance(known.story(widen=0.3), x, particles=20_000)
    k = evidence.pareto_k
    assert abs(k.mean() - (1 - 0.3**2)) < 0.07 + 4 * k.std() / 10**0.5  # the tail index of a proposal this narrow
    assert (k > 0.7).double().mean() >= 0.8
    assert evidence.verdict().startswith("unreliable")


class Enumerable(nn.Module):
    """A discrete latent of three values: the evidence is a sum."""

    logits = torch.tensor([0.1, 1.0, -0.5])
    loc = torch.tensor([-1.0, 0.5, 2.0])

    def model(self, x):
        with pyro.plate("data", len(x), dim=-1):
            k = pyro.sample("k", dist.Categorical(logits=self.logits))
            pyro.sample("x", dist.Normal(self.loc[k], 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("k", dist.Categorical(logits=torch.zeros(3)))

    def evidence(self, x):
        log_p = dist.Normal(self.loc, 1.0).log_prob(x.unsqueeze(-1)) + dist.Categorical(logits=self.logits).logits
        return torch.logsumexp(log_p, dim=-1)


@pytest.mark.parametrize("estimate", [importance, prior_sampling])
def test_an_enumerable_story_agrees_with_its_sum(estimate):
    story, x = Enumerable(), torch.linspace(-2, 3, 11)
    evidence = estimate(story, x, particles=2000)
    assert ((evidence.estimate - story.evidence(x)).abs() < 4 * evidence.standard_error).all()


def small_story():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
    return VAE(
        priors.StandardNormal(2),
        likelihoods.Bernoulli(networks.mlp(2, [8], 5)),
        guides.DiagonalNormal(encoder),
    )


@pytest.mark.parametrize("particles", [30, 5000])  # one block of draws, and two
def test_a_figure_depends_on_its_datum_alone(particles):
    """Not on the other data, nor their order, nor what was drawn before."""
    story, x = small_story(), torch.bernoulli(torch.full((7, 5), 0.4)).unique(dim=0)
    whole = importance(story, x, particles)
    torch.randn(17)
    order = torch.randperm(len(x))
    shuffled = importance(story, x[order], particles)
    for name in ("estimate", "standard_error", "ess", "pareto_k", "elbo"):
        assert torch.equal(getattr(whole, name)[order].nan_to_num(), getattr(shuffled, name).nan_to_num()), name
    assert torch.equal(importance(story, x[2:3], particles).estimate, whole.estimate[2:3])
    assert not torch.equal(importance(story, x, particles, seed=1).estimate, whole.estimate)


def test_blocks_of_particles_draw_from_different_streams(monkeypatch):
    known = LinearGaussian()
    x, story = known.data(3), known.story(widen=1.4)
    module = importance_function.__globals__
    monkeypatch.setitem(module, "BLOCK", 100)
    many = importance(story, x, 4000)
    assert ((many.estimate - known.marginal().log_prob(x)).abs() < 4 * many.standard_error).all()
    one = importance(story, x, 100)
    assert not torch.allclose(many.estimate, one.estimate, atol=1e-3)  # not the first block forty times


def test_evaluation_changes_nothing():
    """Parameters, buffers, gradients, mode, global generators, parameter store: hashed before and after."""
    story, x = small_story(), torch.bernoulli(torch.full((7, 5), 0.4))
    story.encoder.network[2].eval()  # one submodule in another mode than the rest
    elsewhere = pyro.param("elsewhere", torch.ones(2))
    elsewhere.grad = torch.ones(2)
    for parameter in story.parameters():
        parameter.grad = torch.randn_like(parameter)

    def fingerprint():
        tensors = [*story.state_dict().values(), *(p.grad for p in story.parameters()), torch.get_rng_state()]
        tensors += [elsewhere, elsewhere.grad]
        modes = str([module.training for module in story.modules()])
        content = b"".join(tensor.detach().numpy().tobytes() for tensor in tensors)
        return hashlib.sha256(content + modes.encode() + str(sorted(pyro.get_param_store())).encode()).hexdigest()

    before = fingerprint()
    importance(story, x, 50)
    prior_sampling(story, x, 50)
    assert fingerprint() == before


def test_a_point_mass_is_no_proposal():
    story = Autoencoder(priors.StandardNormal(2), likelihoods.Normal(nn.Linear(2, 5)), nn.Linear(5, 2))
    with pytest.raises(ValueError, match=r"'z' has a point mass.*DiagonalNormal"):
        importance(story, torch.zeros(3, 5), 10)
    assert prior_sampling(story, torch.zeros(3, 5), 10).estimate.isfinite().all()


def test_an_improper_prior_cannot_be_drawn_from():
    story = Autoencoder(priors.Flat(2), likelihoods.Normal(nn.Linear(2, 5)), nn.Linear(5, 2))
    with pytest.raises(ValueError, match="needs a proper prior"):
        prior_sampling(story, torch.zeros(3, 5), 10)


@pytest.mark.parametrize("estimate", [importance, prior_sampling])
def test_no_particles_is_refused(estimate):
    with pytest.raises(ValueError, match="particles should be at least 1, got 0"):
        estimate(small_story(), torch.zeros(3, 5), 0)


def test_one_particle_and_one_datum_say_that_they_have_no_error():
    evidence = importance(small_story(), torch.zeros(1, 5), 1)
    assert evidence.standard_error.isinf().all()
    assert math.isnan(evidence.summary()["sampling_error"])
    assert evidence.verdict().startswith("unchecked")
    str(evidence)


def test_the_summary_keeps_its_two_errors_apart():
    column = torch.tensor([-1.0, -3.0, -5.0]).double()
    errors = torch.tensor([0.3, 0.4, 0.0]).double()
    k = torch.tensor([0.1, 0.8, -torch.inf])
    evidence = Evidence(column, errors, 2 * column, k, 3 * column, 2 * errors, "stochastic lower bound", 100, "by hand")
    summary = evidence.summary()
    assert summary["log_p"] == -3
    assert summary["monte_carlo_error"] == pytest.approx(0.5 / 3)
    assert summary["elbo_monte_carlo_error"] == pytest.approx(1.0 / 3)
    assert (summary["elbo"], summary["ess"]) == (-9, -6)
    assert summary["sampling_error"] == pytest.approx(2 / 3**0.5)
    assert summary["pareto_k_above_0.7"] == pytest.approx(1 / 3)
    assert summary["bias"] == pytest.approx(-0.5 * (0.09 + 0.16) / 3)


def test_equal_data_have_draws_of_their_own():
    """The error of a mean over repeated rows is the spread of that mean over seeds."""
    known = LinearGaussian()
    x, story = known.data(2).repeat(20, 1), known.story(widen=1.4, shift=0.3)
    repeats = [importance(story, x, particles=50, seed=seed, progress=False) for seed in range(40)]
    for name, error in (("estimate", "monte_carlo_error"), ("elbo", "elbo_monte_carlo_error")):
        spread = torch.stack([getattr(evidence, name).mean() for evidence in repeats]).std().item()
        reported = sum(evidence.summary()[error] for evidence in repeats) / len(repeats)
        assert abs(spread / reported - 1) < 4 / math.sqrt(2 * 39)  # the error of a standard deviation


def test_a_normal_likelihood_of_counts_is_a_density():
    known = LinearGaussian()
    assert importance(known.story(), known.data(2), 30).measure == "density"
    assert importance(small_story(), torch.zeros(2, 5), 30).measure == "mass"
    assert "of a mass" in str(importance(small_story(), torch.zeros(2, 5), 30))


def test_a_flat_prior_has_no_evidence():
    story = VAE(priors.Flat(2), likelihoods.Normal(nn.Linear(2, 5)), guides.DiagonalNormal(nn.Linear(5, 4)))
    with pytest.raises(ValueError, match="needs a proper prior"):
        importance(story, torch.zeros(3, 5), 10)


def test_data_that_cannot_be_scored_are_refused_whatever_pyros_validation():
    with pyro.validation_enabled(False), pytest.raises(ValueError, match="binarise"):
        importance(small_story(), torch.full((3, 5), 0.5), 10)
    with pytest.raises(ValueError, match="finite"):
        importance(small_story(), torch.full((3, 5), torch.nan), 10)


def test_a_plain_object_is_evaluated_as_a_module_is():
    """Its networks are found among its attributes: no buffer moves, and dropout is off."""

    class Plain:
        def __init__(self, story):
            self.networks = story
            self.model, self.guide = story.model, story.guide

    story, x = small_story(), torch.bernoulli(torch.full((4, 5), 0.4))
    before = {name: value.clone() for name, value in story.state_dict().items()}
    assert torch.equal(importance(Plain(story), x, 30).estimate, importance(story, x, 30).estimate)
    assert all(torch.equal(value, before[name]) for name, value in story.state_dict().items())
    assert story.training


def test_a_factor_of_the_model_is_named():
    class Penalised(Enumerable):
        def model(self, x):
            super().model(x)
            with pyro.plate("penalties", len(x), dim=-1):
                pyro.factor("penalty", torch.ones(()))

    with pytest.raises(ValueError, match="one plate at dim -1"):
        importance(Penalised(), torch.zeros(3), 30)

    class InPlate(Enumerable):
        def model(self, x):
            with pyro.plate("data", len(x), dim=-1):
                k = pyro.sample("k", dist.Categorical(logits=self.logits))
                pyro.factor("penalty", k * 0.0)
                pyro.sample("x", dist.Normal(self.loc[k], 1.0), obs=x)

    assert "'penalty' leaves unnormalised" in importance(InPlate(), torch.zeros(3), 30).method


def test_a_table_of_unlike_columns_has_a_measure_of_its_own():
    parts = (priors.StandardNormal, partial(likelihoods.Heterogeneous, columns=["normal", "bernoulli"]))
    story = assemble(*parts, guides.DiagonalNormal, shape=(2,), latent=1)
    x = torch.tensor([[0.3, 1.0], [-0.5, 0.0]])
    assert importance(story, x, 5, progress=False).measure == "density, in columns 1 mass"
