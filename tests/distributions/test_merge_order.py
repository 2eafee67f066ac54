"""Merge orders: every one equally likely, and as many trees among them as Catalan counted."""

import math
from collections import Counter
from itertools import product

import pyro
import pytest
import torch
from scipy.special import comb

from ppvae.distributions.merge_order import MergeOrder, log_orders


def orders(steps):
    return torch.tensor(list(product(*(range(steps - 1 - t) for t in range(steps - 1))))).float()


def tree(order):
    """The nested pairs that an order makes of leaves 0, 1, ..."""
    nodes = list(range(len(order) + 1))
    for at in map(int, order):
        nodes[at : at + 2] = [(nodes[at], nodes[at + 1])]
    return nodes[0]


@pytest.mark.parametrize("steps", [2, 3, 4, 5])
def test_the_masses_sum_to_one_over_trees_of_catalans_number(steps):
    all_of_them = orders(steps)
    assert len(all_of_them) == math.factorial(steps - 1)
    total = MergeOrder(steps).log_prob(all_of_them).logsumexp(0)
    assert total.item() == pytest.approx(0, abs=1e-6)
    n = steps - 1
    assert len({tree(order) for order in all_of_them}) == comb(2 * n, n, exact=True) // (n + 1)


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_every_order_is_drawn_as_often_as_any_other(steps):
    draws = 24_000
    found = Counter(tuple(order) for order in MergeOrder(steps).sample((draws,)).tolist())
    assert set(found) == {tuple(order) for order in orders(steps).tolist()}
    share = 1 / math.factorial(steps - 1)
    error = math.sqrt(draws * share * (1 - share))
    assert all(abs(count - draws * share) <= 4 * error for count in found.values())


def test_draws_of_a_long_sequence_are_within_the_support():
    draws = MergeOrder(300).sample((500,))
    assert MergeOrder(300).support.check(draws).all()
    assert (draws.amax(0) > draws.amin(0))[:-2].all()


@pytest.mark.parametrize(
    ("order", "inside"),
    [
        ([2.0, 1.0, 0.0], True),
        ([0.0, 0.0, 0.0], True),
        ([3.0, 0.0, 0.0], False),
        ([0.0, 2.0, 0.0], False),
        ([0.0, 0.0, 1.0], False),
        ([-1.0, 0.0, 0.0], False),
        ([0.5, 0.0, 0.0], False),
        ([math.nan, 0.0, 0.0], False),
    ],
)
def test_the_support_is_exact(order, inside):
    order = torch.tensor(order)
    p = MergeOrder(4, validate_args=True)
    assert bool(p.support.check(order)) == inside
    assert p.support.is_discrete
    if inside:
        assert p.log_prob(order).item() == pytest.approx(-math.log(6))
    else:
        for q in (p, p.expand([2])):
            with pytest.raises(ValueError, match="within the support"):
                q.log_prob(order)


def test_shapes_expand_and_stand_under_two_plates():
    wide = MergeOrder(4).expand([3]).expand([2, 3])
    assert isinstance(wide, MergeOrder)
    assert (wide.batch_shape, wide.event_shape) == ((2, 3), (3,))
    assert wide.sample((5,)).shape == (5, 2, 3, 3)
    assert wide.log_prob(torch.zeros(3)).shape == (2, 3)
    assert wide.log_prob(torch.zeros(5, 1, 3, 3)).shape == (5, 2, 3)
    assert wide.mean.shape == (2, 3, 3)
    assert wide.mean.isnan().all()
    with pyro.plate("particles", 4, dim=-2), pyro.plate("data", 3, dim=-1):
        assert pyro.sample("tree", MergeOrder(4)).shape == (4, 3, 3)


def test_draws_are_of_the_dtype_that_is_asked_for():
    like = torch.zeros(1, dtype=torch.float64)
    assert MergeOrder(4).sample().dtype == torch.float32
    p = MergeOrder(4, like=like).expand([2])
    assert p.sample().dtype == p.log_prob(p.sample()).dtype == torch.float64


def test_a_single_step_has_no_neighbour():
    with pytest.raises(ValueError, match="steps should be at least 2, so that there are neighbours to merge, got 1"):
        MergeOrder(1)


@pytest.mark.parametrize("steps", [2, 3, 4, 5, 6])
def test_the_orders_of_a_tree_are_counted_as_by_enumeration(steps):
    every = list(product(*(range(steps - 1 - t) for t in range(steps - 1))))
    trees = Counter(tree(order) for order in every)
    assert len(trees) == math.comb(2 * steps - 2, steps - 1) // steps  # Catalan's number
    expected = torch.tensor([math.log(trees[tree(order)]) for order in every])
    torch.testing.assert_close(log_orders(torch.tensor(every)), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(log_orders(torch.tensor(every).double()), expected.double())
    many = torch.tensor(every).expand(3, -1, -1)
    torch.testing.assert_close(log_orders(many), expected.expand(3, -1), atol=1e-5, rtol=0)
