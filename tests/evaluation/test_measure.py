"""What is measured of a story, against the measures by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ppvae import data
from ppvae.evaluation import measure, metrics
from ppvae.inference.program.codes import decode, encode, reconstruct, sample
from ppvae.inference.program.weights import latent_densities
from ppvae.models import VAE, assemble, encoders, fit_pca, likelihoods, priors, stories

LATENT = 3


def digits(rows=60):
    found = data.load_dataset("digits", scaling="unit")
    return data.Dataset(
        found.train[:200], found.valid, found.test[:rows], found.train_labels[:200], found.valid_labels,
        found.test_labels[:rows], found.observation,
    )  # fmt: skip


def story_of(prior=priors.StandardNormal, encoder=encoders.DiagonalNormal, **options):
    torch.manual_seed(0)
    return assemble(prior, likelihoods.Normal, encoder, shape=(1, 8, 8), latent=LATENT, **options).eval()


def test_the_parts_of_the_divergence_are_those_of_the_guide_and_the_prior():
    story, seen = story_of(), digits(400)
    with torch.no_grad():
        story.encoder.network[-1].weight.mul_(8)  # codes that differ
    found = measure.representation(story, seen)
    q = story.encoder(seen.test)
    exact = metrics.kl_per_dimension(q, story.prior()).sum().item()
    with torch.no_grad():
        one_draw = torch.distributions.kl_divergence(q.base_dist, torch.distributions.Normal(0, 1)).sum(-1)
        spread = (q.rsample((200,)) @ torch.ones(LATENT)).var() + one_draw.var()
    assert found["kl"] == pytest.approx(found["mutual_information"] + found["aggregate_gap"])
    assert abs(found["kl"] - exact) < 4 * (spread / len(seen.test)) ** 0.5 + 4 * (LATENT / len(seen.test)) ** 0.5
    assert 0 < found["mutual_information"] <= math.log(len(seen.test))


def test_the_likelihood_of_a_reconstruction_is_that_of_x_at_the_code():
    story, seen = story_of(), digits()
    with torch.no_grad():
        by_hand = -story.likelihood(story.encoder(seen.test).mean).log_prob(seen.test).mean().item()
    assert measure.representation(story, seen)["neg_log_likelihood"] == pytest.approx(by_hand)


def test_the_divergence_of_each_dimension_is_shown_where_there_is_one():
    story, x = story_of(), digits().test
    with torch.no_grad():
        loc, scale = story.encoder(x).mean, story.encoder(x).stddev
    by_hand = (0.5 * (loc**2 + scale**2 - 1) - scale.log()).mean(0)
    torch.testing.assert_close(measure.kl_per_dimension(story, (x,)), by_hand.sort(descending=True).values)
    for other in (
        story_of(encoder=encoders.PointMass),
        story_of(encoder=encoders.FullNormal),
        story_of(prior=priors.GaussianMixture),
        story_of(prior=priors.Flat),
        story_of(story=stories.hierarchical),
    ):
        assert measure.kl_per_dimension(other, (x,)) is None


def test_a_point_mass_and_a_flat_prior_have_no_divergence():
    for story in (story_of(encoder=encoders.PointMass), story_of(prior=priors.Flat), fit_pca(digits().train, LATENT)):
        found = measure.representation(story, digits())
        assert math.isnan(found["kl"])
        assert math.isnan(found["mutual_information"])
        assert 0 < found["probe"] <= 1


def test_units_count_on_the_scale_of_their_prior():
    story, seen = story_of(encoder=encoders.PointMass), digits()
    variances = encode(story, seen.test).var(0, correction=0)
    assert measure.representation(story, seen)["active_units"] == (variances > 0.01).sum()
    story.prior = priors.Flat(LATENT)  # which has none
    assert measure.representation(story, seen)["active_units"] == LATENT


def test_a_dead_unit_under_a_flat_prior_is_not_active():
    story = story_of(prior=priors.Flat, encoder=encoders.PointMass)
    with torch.no_grad():
        story.encoder.network[-1].weight[0] *= 0.01
    assert measure.representation(story, digits())["active_units"] == LATENT - 1


def test_continuity_and_completeness_are_of_the_decoder_and_the_prior():
    story, seen = story_of(), digits()
    found = measure.regularity(story, seen)
    starts, ends = metrics.interpolation_pairs(encode(story, seen.test))
    with torch.no_grad():
        by_hand = metrics.continuity(lambda z: story.likelihood(z).mean, starts, ends)
    assert found["continuity"] == pytest.approx(by_hand, rel=1e-4)
    torch.manual_seed(0)
    assert (found["precision"], found["recall"]) == metrics.completeness(seen.test, sample(story, seen.test))


def test_a_linear_decoder_with_orthonormal_axes_is_even():
    assert measure.regularity(fit_pca(digits().train, LATENT), digits())["continuity"] == pytest.approx(1, abs=1e-3)


def test_decoding_codes_is_reconstructing():
    seen = digits()
    for story in (story_of(), story_of(story=stories.hierarchical), story_of(story=stories.recursive)):
        torch.testing.assert_close(decode(story, seen.test, z=encode(story, seen.test)), reconstruct(story, seen.test))


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_few_test_data(rows):
    found = measure.regularity(story_of(), digits(rows))
    assert math.isnan(found["continuity"]) == (rows < 2)
    assert math.isnan(found["recall"]) == (rows <= metrics.NEIGHBOURS)


@pytest.mark.parametrize("name", ["hierarchical", "conditional", "semi_supervised", "sequence", "recursive"])
def test_every_story_is_measured_and_nothing_is_changed(name):
    torch.manual_seed(0)
    shape = (8, 8) if name == "sequence" else (1, 8, 8)
    parts = (priors.StandardNormal, likelihoods.Normal, encoders.DiagonalNormal)
    story = assemble(*parts, shape=shape, latent=LATENT, classes=10, story=getattr(stories, name))
    state = torch.get_rng_state()
    found = measure.representation(story, digits()) | measure.regularity(story, digits())
    assert torch.equal(torch.get_rng_state(), state)
    assert found["continuity"] >= 1
    assert story.training


def test_a_story_of_ones_own_needs_no_more_than_its_programs():
    made = story_of()

    class Mine:
        networks = nn.ModuleList([made])
        model, guide = made.model, made.guide

    assert not isinstance(Mine(), VAE)
    assert measure.regularity(Mine(), digits()) == measure.regularity(made, digits())


def test_simulated_data_are_draws_of_the_model():
    torch.manual_seed(0)
    parts = (priors.StandardNormal, likelihoods.Bernoulli, encoders.DiagonalNormal)
    story = assemble(*parts, shape=(3,), latent=2).eval()
    x = sample(story, torch.zeros(20_000, 3))
    assert set(x.unique().tolist()) == {0.0, 1.0}
    with torch.no_grad():
        share = story.likelihood(story.prior().sample((20_000,))).mean.mean(0)
    error = (share * (1 - share) / 10_000).sqrt()
    assert ((x.mean(0) - share).abs() < 4 * error).all()


def test_precision_is_of_the_samples_and_recall_of_the_data(monkeypatch):
    """Samples that are half of the test data lie among them, and do not reach the other half."""
    seen = digits()
    samples = seen.test[:30].repeat(2, 1)
    monkeypatch.setattr(measure, "sample", lambda story, batch: samples)
    found = measure.regularity(story_of(), seen)
    assert (found["precision"], found["recall"]) == metrics.completeness(seen.test, samples)
    assert found["precision"] == 1
    assert 0.5 <= found["recall"] < 1


APART = torch.tensor([[0.0], [0.1], [0.2], [0.3], [50.0], [60.0]])  # a narrow group, and two far from it


def narrow(**options):
    """Training data of the narrow group alone, and more that are far from all: as many count as there are test data."""
    train = torch.cat([APART[[0, 1, 2, 3, 0, 1]] + 0.01, torch.full((4, 1), 1e3)])
    return data.Dataset(train, train, APART, None, None, None, **{"observation": digits().observation} | options)


def test_the_training_data_stand_in_for_samples():
    """Precision is the share of training data among the test data, recall the share of test data among those."""
    found = measure.completeness_of_training_data(narrow())
    assert found == metrics.Completeness(precision=1.0, recall=4 / 6)


def test_the_training_data_are_taken_as_they_are_seen():
    """Where values are drawn afresh, drawn once; and not at all where values are missing or the data are few."""
    found = measure.completeness_of_training_data(narrow(resample=lambda x: x + 500))
    assert found == metrics.Completeness(precision=0.0, recall=0.0)
    seen = narrow()
    missing = replace(seen, observation=replace(seen.observation, missing=True))
    for few in (missing, replace(seen, train=seen.train[:3]), replace(seen, test=seen.test[:3])):
        assert measure.completeness_of_training_data(few) is None


def test_labels_are_told_from_the_codes_of_training_data():
    story, seen = story_of(), digits()
    by_hand = encode(story, seen.train), seen.train_labels, encode(story, seen.test), seen.test_labels
    found = measure.representation(story, seen)
    assert found["neighbour"] == metrics.neighbour_accuracy(*by_hand)
    assert found["probe"] == metrics.probe_accuracy(*by_hand)


def test_a_reconstruction_is_compared_on_a_scale_from_0_to_1():
    story, seen = story_of(), digits()
    wide = replace(seen, observation=replace(seen.observation, contrast=4.0))
    found, by_four = (measure.representation(story, one)["reconstruction"] for one in (seen, wide))
    assert found == pytest.approx(metrics.reconstruction_error(seen.test, reconstruct(story, seen.test)))
    assert by_four == pytest.approx(found / 16)


def test_the_two_parts_of_the_divergence_keep_their_names(monkeypatch):
    """Of the very draws and the first so many data, by hand."""
    monkeypatch.setattr(measure, "PAIRED", 40)
    story, seen = story_of(), digits(60)
    torch.manual_seed(0)
    log_q, log_p = latent_densities(story, (seen.test[:40],))
    found = measure.representation(story, seen)
    assert found["mutual_information"] == metrics.mutual_information(log_q).value
    assert found["aggregate_gap"] == metrics.aggregate_gap(log_q, log_p).value


@pytest.mark.parametrize("name", ["conditional", "semi_supervised"])
def test_a_code_that_was_told_its_label_says_nothing_of_it(name):
    """A story that takes labels is told none; one that cannot do without has no accuracies."""
    parts = (priors.StandardNormal, likelihoods.Normal, encoders.DiagonalNormal)
    torch.manual_seed(0)
    story = assemble(*parts, shape=(1, 8, 8), latent=LATENT, classes=10, story=getattr(stories, name)).eval()
    seen, found = digits(), measure.representation(story, digits())
    if name == "conditional":
        assert math.isnan(found["neighbour"])
        assert math.isnan(found["probe"])
    else:
        none = [(x, torch.full((len(x),), -1)) for x in (seen.train, seen.test)]
        by_hand = encode(story, none[0]), seen.train_labels, encode(story, none[1]), seen.test_labels
        assert found["neighbour"] == metrics.neighbour_accuracy(*by_hand)
        assert found["probe"] == metrics.probe_accuracy(*by_hand)
