"""Grouping, ranking and errors of differences."""

import copy
import math

import pytest
import torch

from ppvae import data
from ppvae.data.observation import Observation
from ppvae.evaluation.comparison import Result, group_results, not_ranked, paired_difference
from ppvae.inference import Evidence, importance, prior_sampling
from ppvae.selfcheck.analytic import LinearGaussian

ONES = torch.ones(4).double()
MASS = Observation("a", "levels", (2,), maximum=4)
DENSITY = Observation("a", "real", (2,), scaling="unit", log_jacobian=-2 * math.log(4))


def evidence(estimate, error=0.1, measure="mass"):
    estimate = torch.as_tensor(estimate).double()
    figures = {"estimate": estimate, "standard_error": error * ONES, "ess": 9 * ONES, "pareto_k": 0.1 * ONES}
    elbo = {"elbo": estimate - 1, "elbo_standard_error": ONES}
    return Evidence(
        **figures, **elbo, bound="stochastic lower bound", particles=90 * ONES.long(), method="m", measure=measure
    )


def result(name, seen, estimate=None, seed=0, of="", **measures):
    found = None if estimate is None else evidence(estimate, measure=seen.measure)
    return Result(name, seen, seed, found, None, {"seconds": 1.0, **measures}, of)


def test_only_equal_observations_share_a_group_and_each_is_ranked_inside():
    results = [
        result("a", MASS, [-5.0, -5, -5, -5]),
        result("c", DENSITY, [90.0, 90, 90, 90]),
        result("b", MASS, [-3.0, -4, -3, -4]),
        result("flat", DENSITY, neg_log_likelihood=5.0),
    ]
    mass, density, flat = group_results(results)
    assert [row.name for row in mass.rows] == ["b", "a"]
    assert mass.rows[0].mean["behind"] == 0
    assert mass.rows[1].mean["behind"] == pytest.approx(1.5)
    assert [row.name for row in density.rows] == ["c"]
    assert density.rows[0].mean["neg_log_p"] == pytest.approx(2 * math.log(4) - 90)
    assert not flat.ranked
    assert "not ranked" in flat.label
    assert math.isnan(flat.rows[0].mean["neg_log_p"])
    assert flat.rows[0].mean["neg_log_likelihood"] == pytest.approx(5 + 2 * math.log(4))


def test_one_story_on_two_scales_has_equal_figures_in_one_group():
    """A Normal on the levels, and the same moved by hand to a 16th: the exact guide's log-weights are log p(x)."""
    known = LinearGaussian(features=64)
    moved = copy.copy(known)
    moved.weight, moved.bias, moved.variance = known.weight / 16, known.bias / 16, known.variance / 16**2
    moved.gain = 16 * known.gain
    results = []
    for name, case, scaling in [("raw", known, "none"), ("moved", moved, "unit")]:
        digits, story = data.load_dataset("digits", scaling=scaling), case.story()
        x = digits.test[:4].double()
        by_guide, naive = (f(story, x, particles=30, progress=False) for f in (importance, prior_sampling))
        log_likelihood = story.likelihood(story.encoder(x).mean).log_prob(x).mean().item()
        measures = {"neg_log_likelihood": -log_likelihood, "kl": 1.0}
        results.append(Result(name, digits.observation, 0, by_guide, naive, measures))
    assert abs(results[0].evidence.estimate - results[1].evidence.estimate).min() > 100
    (group,) = group_results(results)
    one, other = group.rows
    for column in ("neg_elbo", "neg_log_p", "bits_per_dim", "neg_log_likelihood", "kl"):
        assert one.mean[column] == pytest.approx(other.mean[column], rel=0, abs=1e-9)
    exact = -known.marginal().log_prob(digits.test[:4].double() * 16).mean().item()
    assert one.mean["neg_log_p"] == pytest.approx(exact, rel=1e-12)
    assert one.mean["bits_per_dim"] == pytest.approx(exact / (64 * math.log(2)), rel=1e-12)
    assert max(one.mean["behind"], other.mean["behind"]) < 1e-9
    assert set(group.views) == {"as they are", "scaled to [0, 1]"}
    assert (
        group.label == "digits, on the raw scale: density on reals, 64 features, nats per datum; seen as each row says"
    )
    for row, seen in ((row, results[row.name == "moved"]) for row in group.rows):
        assert row.contract.observation == seen.observation
        shift = seen.observation.log_jacobian
        assert row.mean["naive_neg_log_p"] == pytest.approx(-seen.naive.estimate.mean().item() - shift, rel=1e-12)
        assert row.mean["monte_carlo_error"] == seen.evidence.summary()["monte_carlo_error"]


def test_one_name_on_two_views_is_two_rows():
    plain = Observation("a", "real", (2,))
    (group,) = group_results([result("a", DENSITY, [1.0] * 4), result("a", plain, [1.0] * 4)])
    assert [row.seeds for row in group.rows] == [1, 1]
    assert [row.contract.observation for row in group.rows] == [plain, DENSITY]


def test_why_groups_are_not_ranked_together():
    binary = Observation("a", "binary", (2,), maximum=1, binarisation="static")
    groups = group_results(
        [
            result("levels", MASS, [-5.0] * 4),
            result("grey", DENSITY, [-5.0] * 4),
            result("bits", binary, [-5.0] * 4),
            result("flat", MASS),
            result("given", MASS, [-5.0] * 4, of="p(x | labels)"),
        ]
    )
    density = "a density has no mass unless the story defines one (DiscretizedLogistic does)"
    nothing = "an improper prior has no evidence to rank by"
    values = [
        f"other values are observed ({two}), and no conversion between them exists"
        for two in (
            "static binarisation against levels 0 to 4",
            "static binarisation against raw values",
            "levels 0 to 4 against static binarisation",
        )
    ]
    assert not_ranked(groups) == [
        f"'a, on the raw scale' is not ranked with 'a, as they are': {density}",
        f"'a, static binarisation' is not ranked with 'a, as they are': {values[0]}",
        f"'a, static binarisation' is not ranked with 'a, on the raw scale': {values[1]}",
        "'a, as they are, p(x | labels)' is not ranked with 'a, as they are' or 'a, on the raw scale': "
        "p(x | labels) is not p(x)",
        f"'a, as they are, p(x | labels)' is not ranked with 'a, static binarisation': {values[2]}",
        "'a, as they are, without evidence' is not ranked with 'a, as they are' or 'a, on the raw scale' or "
        f"'a, static binarisation' or 'a, as they are, p(x | labels)': {nothing}",
    ]
    assert not_ranked(groups[:1]) == []


def test_columns_by_hand():
    (group,) = group_results([result("a", MASS, [-1.0, -2, -3, -6], reconstruction=2.5)])
    mean = group.rows[0].mean
    assert mean["neg_log_p"] == 3
    assert mean["neg_elbo"] == 4
    assert mean["monte_carlo_error"] == pytest.approx(0.1 / 2)
    assert mean["ess"] == 9
    assert mean["k_above"] == 0
    assert mean["reconstruction"] == 2.5


def test_seeds_are_averaged_and_their_spread_is_shown():
    results = [result("a", MASS, [level] * 4, seed) for seed, level in enumerate([-1.0, -2.0, -6.0])]
    (row,) = group_results(results)[0].rows
    assert row.seeds == 3
    assert row.mean["neg_log_p"] == 3
    assert row.spread["neg_log_p"] == pytest.approx(torch.tensor([1.0, 2, 6]).std().item())
    assert row.mean["monte_carlo_error"] == pytest.approx(0.1 / 2 / 3**0.5)
    assert "neg_log_p_spread" in row.as_dict()


def test_pairing_takes_out_what_makes_a_datum_hard_for_both():
    torch.manual_seed(0)
    difficulty = 100 * torch.randn(1000).double()
    gain = 0.5 + torch.randn(1000).double()
    difference, error = paired_difference(difficulty + gain, difficulty)
    assert error == pytest.approx(1 / 1000**0.5, rel=0.1)
    assert abs(difference - 0.5) < 4 * error
