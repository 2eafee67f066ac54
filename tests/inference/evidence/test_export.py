"""Evidence as a DataTree: every figure, its unit, and what it is of."""

import sys
from importlib.metadata import version

import numpy as np
import pytest
import torch
import xarray

from ppvae.inference import importance
from ppvae.inference.evidence.export import UNITS, to_datatree
from ppvae.selfcheck.analytic import LinearGaussian


@pytest.fixture
def evidence():
    known = LinearGaussian()
    return importance(known.story(widen=1.3), known.data(4), particles=50, progress=False)


def test_every_figure_of_every_datum_is_there_with_its_unit(evidence):
    tree = to_datatree(evidence)
    assert isinstance(tree, xarray.DataTree)
    group = tree["evidence"]
    assert set(group.data_vars) == set(UNITS)
    for name, unit in UNITS.items():
        assert group[name].dims == ("datum",)
        assert group[name].attrs["units"] == unit
        np.testing.assert_array_equal(group[name], torch.as_tensor(getattr(evidence, name)).expand(4))
    assert group["datum"].values.tolist() == [0, 1, 2, 3]
    assert group["particles"].values.tolist() == [50] * 4


def test_the_attributes_say_how_and_of_what(evidence):
    attributes = to_datatree(evidence)["evidence"].attrs
    for name in ("method", "bound", "measure"):
        assert attributes[name] == getattr(evidence, name)
    assert attributes["units"] == "nats per datum"
    assert attributes["inference_library"] == "ppvae"
    assert attributes["inference_library_version"] == version("ppvae")
    assert all(isinstance(value, str) for value in attributes.values())  # netCDF takes them
    assert "held" not in attributes


def test_the_method_of_evidence_is_the_same(evidence):
    found, expected = evidence.to_datatree()["evidence"], to_datatree(evidence)["evidence"]
    assert found.to_dataset().equals(expected.to_dataset())


def test_without_arviz_one_line_says_what_to_install(evidence, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_base", None)
    with pytest.raises(ImportError, match=r"^to_datatree needs ArviZ: pip install 'ppvae\[arviz\]'$"):
        to_datatree(evidence)
