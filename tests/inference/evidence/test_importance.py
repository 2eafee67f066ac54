"""Evidence against closed forms and enumeration; its streams, its errors, and what it leaves alone."""

import hashlib
import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from stories import number, off_from_one, one_latent
from torch import nn

from ppvae import networks
from ppvae.inference import Evidence, importance, log_mean_exp, log_weights, prior_sampling, upper_bound
from ppvae.inference.evidence import blocks
from ppvae.inference.evidence.blocks import BLOCK, LEAST, Budget, needed, rounded, sizes
from ppvae.inference.evidence.evidence import COLUMNS
from ppvae.inference.evidence.importance import draws
from ppvae.inference.evidence.tally import Tally
from ppvae.inference.program.weights import effective_sample_size, standard_error
from ppvae.models import VAE, Autoencoder, assemble, encoders, likelihoods, priors
from ppvae.selfcheck.analytic import LinearGaussian


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
        encoders.DiagonalNormal(encoder),
    )


@pytest.mark.parametrize("particles", [30, 5000])  # one block of draws, and two
def test_a_figure_depends_on_its_datum_alone(particles):
    """Not on the other data, nor their order, nor what was drawn before."""
    story, x = small_story(), torch.bernoulli(torch.full((7, 5), 0.4)).unique(dim=0)
    whole = importance(story, x, particles=particles)
    torch.randn(17)
    order = torch.randperm(len(x))
    shuffled = importance(story, x[order], particles=particles)
    for name in ("estimate", "standard_error", "ess", "pareto_k", "elbo"):
        assert torch.equal(getattr(whole, name)[order].nan_to_num(), getattr(shuffled, name).nan_to_num()), name
    assert torch.equal(importance(story, x[2:3], particles=particles).estimate, whole.estimate[2:3])
    assert not torch.equal(importance(story, x, particles=particles, seed=1).estimate, whole.estimate)


def test_blocks_of_particles_draw_from_different_streams(monkeypatch):
    known = LinearGaussian()
    x, story = known.data(3), known.story(widen=1.4)
    monkeypatch.setattr(blocks, "BLOCK", 100)
    many = importance(story, x, particles=4000)
    assert ((many.estimate - known.marginal().log_prob(x)).abs() < 4 * many.standard_error).all()
    one = importance(story, x, particles=100)
    assert not torch.allclose(many.estimate, one.estimate, atol=1e-3)  # not the first block forty times


def test_a_point_mass_is_no_proposal():
    story = Autoencoder(priors.StandardNormal(2), likelihoods.Normal(nn.Linear(2, 5)), nn.Linear(5, 2))
    with pytest.raises(ValueError, match=r"'z' has a point mass.*DiagonalNormal"):
        importance(story, torch.zeros(3, 5), particles=10)
    assert prior_sampling(story, torch.zeros(3, 5), particles=10).estimate.isfinite().all()


def test_an_improper_prior_cannot_be_drawn_from():
    story = Autoencoder(priors.Flat(2), likelihoods.Normal(nn.Linear(2, 5)), nn.Linear(5, 2))
    with pytest.raises(ValueError, match="needs a proper prior"):
        prior_sampling(story, torch.zeros(3, 5), particles=10)


@pytest.mark.parametrize("estimate", [importance, prior_sampling])
def test_no_particles_is_refused(estimate):
    with pytest.raises(ValueError, match="particles should be at least 1, got 0"):
        estimate(small_story(), torch.zeros(3, 5), particles=0)


def test_one_particle_and_one_datum_say_that_they_have_no_error():
    evidence = importance(small_story(), torch.zeros(1, 5), particles=1)
    assert evidence.standard_error.isinf().all()
    assert math.isnan(evidence.summary()["sampling_error"])
    assert evidence.verdict().startswith("unchecked")
    str(evidence)


def test_the_summary_keeps_its_two_errors_apart():
    column = torch.tensor([-1.0, -3.0, -5.0]).double()
    errors = torch.tensor([0.3, 0.4, 0.0]).double()
    k = torch.tensor([0.1, 0.8, -torch.inf])
    particles = torch.tensor([100, 100, 400])
    bound = "stochastic lower bound"
    evidence = Evidence(column, errors, 2 * column, k, 3 * column, 2 * errors, particles, bound, "by hand")
    summary = evidence.summary()
    assert summary["log_p"] == -3
    assert summary["particles"] == 200
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
    assert importance(known.story(), known.data(2), particles=30).measure == "density"
    assert importance(small_story(), torch.zeros(2, 5), particles=30).measure == "mass"
    assert "of a mass" in str(importance(small_story(), torch.zeros(2, 5), particles=30))


def test_a_flat_prior_has_no_evidence():
    story = VAE(priors.Flat(2), likelihoods.Normal(nn.Linear(2, 5)), encoders.DiagonalNormal(nn.Linear(5, 4)))
    with pytest.raises(ValueError, match="needs a proper prior"):
        importance(story, torch.zeros(3, 5), particles=10)


def test_data_that_cannot_be_scored_are_refused_whatever_pyros_validation():
    with pyro.validation_enabled(False), pytest.raises(ValueError, match="binarise"):
        importance(small_story(), torch.full((3, 5), 0.5), particles=10)
    with pytest.raises(ValueError, match="finite"):
        importance(small_story(), torch.full((3, 5), torch.nan), particles=10)


def test_a_plain_object_is_evaluated_as_a_module_is():
    """Its networks are found among its attributes: no buffer moves, and dropout is off."""

    class Plain:
        def __init__(self, story):
            self.networks = story
            self.model, self.guide = story.model, story.guide

    story, x = small_story(), torch.bernoulli(torch.full((4, 5), 0.4))
    before = {name: value.clone() for name, value in story.state_dict().items()}
    assert torch.equal(importance(Plain(story), x, particles=30).estimate, importance(story, x, particles=30).estimate)
    assert all(torch.equal(value, before[name]) for name, value in story.state_dict().items())
    assert story.training


def test_a_factor_of_the_model_is_named():
    class Penalised(Enumerable):
        def model(self, x):
            super().model(x)
            with pyro.plate("penalties", len(x), dim=-1):
                pyro.factor("penalty", torch.ones(()))

    with pytest.raises(ValueError, match="one plate at dim -1"):
        importance(Penalised(), torch.zeros(3), particles=30)

    class InPlate(Enumerable):
        def model(self, x):
            with pyro.plate("data", len(x), dim=-1):
                k = pyro.sample("k", dist.Categorical(logits=self.logits))
                pyro.factor("penalty", k * 0.0)
                pyro.sample("x", dist.Normal(self.loc[k], 1.0), obs=x)

    assert "'penalty' leaves unnormalised" in importance(InPlate(), torch.zeros(3), particles=30).method


def test_a_table_of_unlike_columns_has_a_measure_of_its_own():
    parts = (priors.StandardNormal, partial(likelihoods.Heterogeneous, columns=["normal", "bernoulli"]))
    story = assemble(*parts, encoders.DiagonalNormal, shape=(2,), latent=1)
    x = torch.tensor([[0.3, 1.0], [-0.5, 0.0]])
    assert importance(story, x, particles=5, progress=False).measure == "density, in columns 1 mass"


def test_every_block_has_a_stream_of_its_own():
    """Figures come out the same whatever the way: the seed is of the block's start, seed, count and datum."""
    known = LinearGaussian()
    x, story = known.data(2), known.story(widen=1.4)
    found = importance(story, x, particles=5000, seed=3, progress=False)
    for row in range(2):
        tally = Tally(5000)
        for start, size in ((0, 2500), (2500, 2500)):
            key = f"{start} 3 0 ".encode() + x[row].numpy().tobytes()
            torch.manual_seed(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1)
            tally.add(log_weights(story, x[row : row + 1], particles=size).detach())
        assert torch.equal(found.estimate[row], tally.log_mean_exp()[0])


def unequal(rows=60):
    """x ~ N(z, 0.5^2) with z ~ N(0, 1); the guide is the better a proposal the nearer x is to 0."""
    posterior = 0.2**0.5

    def guide(x):
        return dist.Normal(0.8 * x, posterior * (1.05 + x.abs() * 4))

    story = one_latent(dist.Normal(number(0.0), 1.0), lambda z: dist.Normal(z, 0.5), guide)
    x = torch.linspace(-1.5, 1.5, rows).double()
    return story, x, torch.distributions.Normal(number(0.0), 1.25**0.5).log_prob(x)


def test_with_a_target_every_datum_gets_what_it_needs():
    story, x, truth = unequal()
    target = 0.03
    evidence = importance(story, x, particles=200, target_error=target, progress=False)
    reached = (evidence.standard_error <= target).double().mean()
    assert reached >= 0.9
    assert ((evidence.estimate - truth).abs() < 4.5 * evidence.standard_error).all()
    assert (evidence.particles >= LEAST).all()
    assert evidence.particles.max() > 5 * evidence.particles.min()
    missed = int((evidence.standard_error > target).sum())
    assert f"{missed} of the data have not reached" in evidence.verdict() or not missed
    assert evidence.target_error == target
    # the same worst error from one K for all takes many more
    most = int(evidence.particles.max())
    fixed = importance(story, x, particles=most, progress=False)
    assert fixed.standard_error.max() > 0.8 * target
    assert evidence.particles.sum() < 0.6 * most * len(x)


def skewed(generator):
    """log w of a guide 0.8 times as wide as a normal posterior: E[w] = 1, and too few draws find less."""

    def draw(count, of=""):
        z = 0.8 * torch.randn(count, 1, generator=generator, dtype=torch.float64)
        return math.log(0.8) + z.square() / 2 * (0.8**-2 - 1)

    return draw


def test_counts_that_are_chosen_by_pilots_leave_the_estimate_unbiased():
    """And stopping by the draws that are used would not: small errors go with estimates that are too low."""
    fresh, used, counts = [], [], []
    budget = Budget(20, target_error=0.04)
    generator = torch.Generator().manual_seed(0)
    for _ in range(16_000):
        draw, seen = skewed(generator), []

        def kept(count, of="", draw=draw, seen=seen):
            seen.append(draw(count))
            return standard_error(seen[-1]).item()

        counts.append(needed(kept, budget))
        fresh.append(log_mean_exp(draw(counts[-1])))
        used.append(log_mean_exp(seen[-1]))  # the last pilot: the one that said it is enough
    assert abs(off_from_one(torch.cat(fresh))) < 4
    assert off_from_one(torch.cat(used)) < -4
    assert torch.cat(fresh).expm1().std() / 16_000**0.5 < 0.003  # the tolerance means something
    assert 0.1 < counts.count(min(counts)) / len(counts) < 0.9  # it does adapt, by powers of 2


def test_an_adaptive_estimate_is_unbiased():
    known = LinearGaussian()
    x, story = known.data(3).repeat(100, 1), known.story(widen=0.8)
    evidence = importance(story, x, particles=20, target_error=0.12, progress=False)
    log_ratio = evidence.estimate - known.log_evidence(x)
    assert abs(off_from_one(log_ratio)) < 4
    assert log_ratio.expm1().std() / 300**0.5 < 0.015


def test_no_datum_gets_more_than_the_largest_count():
    story, x, _ = unequal()
    evidence = importance(story, x, particles=200, target_error=0.001, max_particles=700, progress=False)
    assert evidence.particles.max() == 700
    assert "of the data have not reached the error asked for" in evidence.verdict()
    few = importance(story, x[:3], particles=2, target_error=50.0, progress=False)
    assert few.particles.tolist() == [rounded(LEAST, 10**6)] * 3


def test_a_target_that_no_draw_says_anything_of_asks_for_all():
    """Pilots without any weight: the error is unknown, and the most is drawn."""

    class Far(dist.Normal):
        def log_prob(self, value):
            return torch.where(value > 0, -torch.inf, super().log_prob(value))

    story = one_latent(dist.Normal(number(0.0), 1.0), lambda z: Far(z, number(1.0)), lambda x: dist.Normal(x, 1.0))
    evidence = importance(
        story, number([-0.5, 1.0]), particles=100, target_error=0.1, max_particles=2000, progress=False
    )
    assert evidence.particles[1] == 2000
    assert evidence.verdict() == "unreliable: no draw had any weight for 1 of the data"


def test_an_adaptive_figure_depends_on_its_datum_alone():
    story, x, _ = unequal(8)
    whole = importance(story, x, particles=50, target_error=0.05, progress=False)
    backwards = importance(story, x.flip(0), particles=50, target_error=0.05, progress=False)
    for name in COLUMNS:
        assert torch.equal(getattr(whole, name), getattr(backwards, name).flip(0)), name


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"target_error": 0.0}, "target_error should be positive and finite, got 0"),
        ({"target_error": math.inf}, "target_error should be positive and finite, got inf"),
        ({"target_error": 0.1, "max_particles": 50}, "max_particles of at least 100, got 1000 and 50"),
        (
            {"target_error": 0.1, "particles": 1},
            "pilots of at least 2 particles and max_particles of at least 100, got 1",
        ),
    ],
)
def test_targets_out_of_range_are_refused(option, message):
    with pytest.raises(ValueError, match=message):
        importance(small_story(), torch.zeros(3, 5), **option)


@pytest.mark.parametrize(("widen", "order"), [(1.5, 2.0), (1.2, 2.0), (2.0, 1.5)])
def test_the_upper_bound_has_the_moment_of_the_closed_form(widen, order):
    known = LinearGaussian()
    x = known.data(20)
    evidence = upper_bound(known.story(widen, 0.1), x, particles=20_000, order=order, progress=False)
    if order == 2:
        truth = known.log_evidence(x) + known.moment_gap(widen, 0.1)
        assert ((evidence.estimate - truth).abs() < 4.5 * evidence.standard_error).all()
    assert (evidence.estimate > known.log_evidence(x) - 4 * evidence.standard_error).all()
    assert evidence.standard_error.max() < 0.05
    assert evidence.bound == "upper bound, estimated from below"
    assert f"the moment of order {order:g} of the weights" in evidence.method
    log_w = draws(known.story(widen, 0.1), x, 20_000, progress=False)
    torch.testing.assert_close(evidence.estimate, log_mean_exp(order * log_w) / order)
    torch.testing.assert_close(evidence.elbo, log_w.mean(0))
    torch.testing.assert_close(evidence.ess, effective_sample_size(order * log_w))
    weights = (order * log_w).exp()
    by_hand = weights.std(0) / weights.mean(0) / 20_000**0.5 / order
    torch.testing.assert_close(evidence.standard_error, by_hand, rtol=1e-3, atol=0)


def test_an_upper_bound_whose_moment_is_infinite_is_flagged():
    known = LinearGaussian()
    evidence = upper_bound(known.story(widen=0.6), known.data(20), particles=5000, progress=False)
    assert evidence.unreliable() > 0.5
    assert "the bound is likely higher than its estimate" in evidence.verdict()


@pytest.mark.parametrize("order", [1.0, 0.5, math.inf, math.nan])
def test_orders_that_bound_nothing_are_refused(order):
    with pytest.raises(ValueError, match="order should be above 1 and finite"):
        upper_bound(small_story(), torch.zeros(3, 5), order=order)


@pytest.mark.parametrize("particles", [30, 4500])
def test_draws_are_the_very_weights_that_are_reduced(particles):
    known = LinearGaussian()
    x, story = known.data(4), known.story(widen=1.4)
    x[3] = x[1]
    log_w = draws(story, x, particles, seed=2, progress=False)
    evidence = importance(story, x, particles=particles, seed=2, progress=False)
    assert log_w.shape == (particles, 4)
    for row in range(4):
        tally = Tally(particles)
        for block in log_w[:, row : row + 1].split(sizes(particles, BLOCK)):
            tally.add(block.contiguous())
        for name, figure in zip(COLUMNS, tally.figures(), strict=True):
            assert torch.equal(getattr(evidence, name)[row].double().nan_to_num(), figure[0].nan_to_num()), name


def test_draws_and_bounds_are_refused_where_importance_is():
    point = Autoencoder(priors.StandardNormal(2), likelihoods.Normal(nn.Linear(2, 5)), nn.Linear(5, 2))
    for estimate in (draws, upper_bound):
        with pytest.raises(ValueError, match="'z' has a point mass"):
            estimate(point, torch.zeros(3, 5), particles=10)
        with pytest.raises(ValueError, match="binarise"):
            estimate(small_story(), torch.full((3, 5), 0.5), particles=10)


def test_infinite_weights_are_not_infinitely_good():
    """A guide so narrow that no draw has weight elsewhere: one weight of all is the whole estimate, and is flagged."""
    known = LinearGaussian()
    evidence = importance(known.story(widen=0.01), known.data(5), particles=2000, progress=False)
    assert evidence.verdict().startswith("unreliable")
    assert (evidence.ess >= 1 - 1e-9).all()
