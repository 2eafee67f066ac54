"""What was observed, as a record."""

import json

import pytest
from views import VIEWS

from ppvae.data import load_dataset
from ppvae.data.observation import Observation


@pytest.mark.parametrize("view", VIEWS)
def test_observations_survive_json(view):
    seen = load_dataset("digits", **VIEWS[view]).observation
    record = json.loads(json.dumps(seen.as_dict()))
    assert Observation.from_dict(record) == seen
    assert (record["measure"], record["support"]) == (seen.measure, seen.support)


@pytest.mark.parametrize(
    ("kind", "maximum", "measure", "support"),
    [
        ("binary", 1, "mass", "{0, 1}"),
        ("levels", 16, "mass", "{0, ..., 16}"),
        ("counts", None, "mass", "{0, 1, ...}"),
        ("real", None, "density", "reals"),
    ],
)
def test_measure_and_support(kind, maximum, measure, support):
    observation = Observation("a", kind, (2, 3), maximum=maximum, units="bits per dimension")
    assert (observation.measure, observation.support, observation.features) == (measure, support, 6)
    assert str(observation) == f"a, as they are: {measure} on {support}, 6 features, bits per dimension"
