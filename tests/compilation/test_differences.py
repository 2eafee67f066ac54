"""How far two tensors are apart, by hand."""

import math

import pytest
import torch
from torch import nn

from ppvae.compilation.differences import gap, norm, value_gap

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("found", "expected", "size"),
    [
        ([3.0, 4.0], [0.0, 0.0], 5.0),
        ([NAN, INF, -INF, 1.0], [NAN, INF, -INF, 1.0], 0.0),
        ([NAN], [1.0], INF),
        ([1.0], [NAN], INF),
        ([INF], [-INF], INF),
        ([1e300], [1.0], 1e300),
        ([1.0, 2.0], [1.0], INF),
    ],
)
def test_nan_is_nan_and_infinite_is_infinite(found, expected, size):
    found, expected = (torch.tensor(part, dtype=torch.float64) for part in (found, expected))
    assert gap("it", None, found, expected, 1.0).size == size


def test_float32_hides_nothing():
    assert norm(torch.full((2,), 3e38)) == pytest.approx(3e38 * 2**0.5)
    assert gap("it", None, torch.tensor(2**24 + 1), torch.tensor(2.0**24), 0.0).share() == INF


def test_a_complex_number_has_two_parts():
    assert norm(torch.tensor([3 + 4j])) == 5


def test_a_log_weight_near_0_is_as_exact_as_the_others():
    expected = torch.tensor([1e-6, -300.0, -400.0])
    (near,) = value_gap(expected + torch.tensor([0.02, 0.0, 0.0]), expected, 1e-4)
    assert near.share() == pytest.approx(0.02 / (1e-4 * 301), rel=1e-3)
    assert value_gap(torch.ones(0), torch.ones(0), 1e-4) == []


def test_it_is_said_with_the_parameters_name():
    net = nn.Linear(1, 1)
    said = gap("the gradient of", net.bias, torch.tensor([1.01]), torch.ones(1), 0.0).said(net)
    assert said == "the gradient of bias is off by 0.01, where ordinary Python has 1"
