"""Grouping, ranking and errors of differences."""

import math

import pytest
import torch

from ppvae.inference import Evidence
from ppvae.inference.comparison import Result, group_results, paired_difference

ONES = torch.ones(4).double()


def evidence(estimate, error=0.1):
    estimate = torch.as_tensor(estimate).double()
    return Evidence(estimate, error * ONES, 9 * ONES, 0.1 * ONES, estimate - 1, ONES, "stochastic lower bound", 90, "m")


def result(name, group, estimate=None, seed=0, **measures):
    found = None if estimate is None else evidence(estimate)
    return Result(name, group, seed, found, None, {"seconds": 1.0, **measures})


def test_only_equal_observations_share_a_group_and_each_is_ranked_inside():
    results = [
        result("a", "mass", [-5.0, -5, -5, -5]),
        result("c", "density", [90.0, 90, 90, 90]),
        result("b", "mass", [-3.0, -4, -3, -4]),
        result("pca", "density"),
    ]
    mass, density, points = group_results(results)
    assert [row.name for row in mass.rows] == ["b", "a"]
    assert mass.rows[0].mean["behind"] == 0
    assert mass.rows[1].mean["behind"] == pytest.approx(1.5)
    assert [row.name for row in density.rows] == ["c"]
    assert not points.ranked
    assert "not ranked" in points.label
    assert math.isnan(points.rows[0].mean["neg_log_p"])


def test_columns_by_hand():
    (group,) = group_results([result("a", "mass", [-1.0, -2, -3, -6], reconstruction=2.5)])
    mean = group.rows[0].mean
    assert mean["neg_log_p"] == 3
    assert mean["neg_elbo"] == 4
    assert mean["monte_carlo_error"] == pytest.approx(0.1 / 2)
    assert mean["ess"] == 9
    assert mean["k_above"] == 0
    assert mean["reconstruction"] == 2.5


def test_seeds_are_averaged_and_their_spread_is_shown():
    results = [result("a", "mass", [level] * 4, seed) for seed, level in enumerate([-1.0, -2.0, -6.0])]
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
