"""Of what a figure is: what converts, and why the rest is not ranked."""

import math
from dataclasses import replace
from math import log

import pytest
import torch
from torch.distributions import Normal
from views import VIEWS

from ppvae.data import load_dataset
from ppvae.data.observation import Observation
from ppvae.evaluation.comparability import Contract, why_apart


@pytest.fixture(scope="module")
def seen():
    """The observation of the digits by view."""
    return {name: load_dataset("digits", **view).observation for name, view in VIEWS.items()}


# --- conversions


def test_a_density_moved_by_hand_differs_by_the_jacobian():
    """raw ~ N(loc, spread); x = (raw - mean) / scale ~ N((loc - mean) / scale, spread / scale)."""
    torch.manual_seed(0)
    loc, mean = torch.randn(2, 3).double()
    spread, scale = torch.rand(2, 3).double() + 0.1
    raw = loc + spread * torch.randn(20, 3).double()
    log_p_raw = Normal(loc, spread).log_prob(raw).sum(-1)
    log_p = Normal((loc - mean) / scale, spread / scale).log_prob((raw - mean) / scale).sum(-1)
    jacobian = -scale.log().sum().item()
    standardised = Contract(
        Observation("a", "real", (3,), scaling="standardise", log_jacobian=jacobian, contrast=5.0), "density"
    )
    plain = Contract(Observation("a", "real", (3,)), "density")
    assert standardised.terms == plain.terms
    assert standardised.title == plain.title == "a, on the raw scale"
    assert not torch.allclose(log_p, log_p_raw, atol=0.1)
    torch.testing.assert_close(log_p + standardised.log_jacobian, log_p_raw, rtol=0, atol=1e-9)
    for one, other in zip(log_p.tolist(), log_p_raw.tolist(), strict=True):
        bits = standardised.bits_per_dimension(one)
        assert bits == pytest.approx(plain.bits_per_dimension(other), abs=1e-9)
        assert bits == pytest.approx(-other / 3 / log(2), abs=1e-9)


def test_a_density_on_levels_is_that_on_their_scales(seen):
    terms = {Contract(seen[view], "density").terms for view in ("as they are", "unit", "standardise")}
    assert len(terms) == 1
    assert Contract(seen["unit"], "density").log_jacobian == pytest.approx(-64 * log(16))


@pytest.mark.parametrize(("levels", "bits"), [(2, 1), (16, 4), (256, 8)])
def test_a_uniform_story_has_the_bits_of_its_levels(levels, bits):
    """Both as a mass, 1 / levels, and as a density of levels with noise on them, scaled to [0, 1], which is 1."""
    mass = Contract(Observation("a", "levels", (5,), maximum=levels - 1), "mass")
    assert mass.bits_per_dimension(-5 * log(levels)) == pytest.approx(bits)
    noisy = Observation("a", "real", (5,), scaling="dequantise", log_jacobian=-5 * log(levels))
    assert Contract(noisy, "density").bits_per_dimension(0.0) == pytest.approx(bits)


def test_nothing_is_converted_that_cannot_be(seen):
    holes = replace(seen["standardise"], missing=True)
    kept = [
        *(Contract(seen[view], "mass") for view in ("as they are", "threshold", "static", "dynamic")),
        *(Contract(seen[view], "density") for view in ("threshold", "static", "dynamic")),
        Contract(seen["unit"], "mass"),
        Contract(seen["standardise"], "density, in columns 0, 3 mass"),
        Contract(holes, "density"),
    ]
    densities = [Contract(seen["unit"], "density"), Contract(seen["dequantise"], "density")]
    assert all(contract.log_jacobian == 0 and not contract.converts for contract in kept)
    assert all(contract.terms == contract for contract in kept)
    assert len({contract.terms for contract in [*kept, *densities]}) == len(kept) + 2
    assert math.isnan(Contract(holes, "density").bits_per_dimension(-1.0))


# --- what names figures, and why they stand apart


def test_a_contract_says_of_what_a_figure_is(seen):
    assert str(Contract(seen["as they are"], "mass")) == str(seen["as they are"])
    assert str(Contract(seen["threshold"], "density", "p(x | labels)")) == (
        "digits, threshold binarisation, scored as a density: mass on {0, 1}, 64 features, nats per datum, "
        "p(x | labels)"
    )
    told = replace(seen["as they are"], labelled=50, missing=True)
    assert Contract(told, "mass", "p(x | labels)").title == (
        "digits, as they are, values missing, 50 labels told, p(x | labels)"
    )
    scaled = str(Contract(seen["unit"], "density"))
    assert scaled == "digits, on the raw scale: density on reals, 64 features, nats per datum"
    assert Contract(seen["dequantise"], "density").title == "digits, uniformly dequantised, on the raw scale"


def test_why_figures_stand_apart(seen):
    levels = Contract(seen["as they are"], "mass")
    binary, scaled = Contract(seen["threshold"], "mass"), Contract(seen["unit"], "density")
    noisy = Contract(seen["dequantise"], "density")
    assert why_apart(levels, levels) == why_apart(scaled, Contract(seen["standardise"], "density")) == ""
    assert why_apart(levels, binary) == (
        "other values are observed (threshold binarisation against levels 0 to 16), and no conversion between them "
        "exists"
    )
    assert "raw values against threshold binarisation" in why_apart(binary, scaled)
    assert why_apart(levels, scaled) == "a density has no mass unless the story defines one (DiscretizedLogistic does)"
    assert "bounds the -log P(levels) of its own story from above" in why_apart(levels, noisy)
    assert why_apart(levels, noisy) == why_apart(noisy, levels)
    assert "a density of levels alone does not" in why_apart(scaled, noisy)
    given = replace(levels, of="p(x | labels)")
    assert why_apart(levels, given) == "p(x | labels) is not p(x)"
    assert why_apart(given, levels) == "p(x) is not p(x | labels)"
    fewer = replace(levels, observation=replace(levels.observation, labelled=50))
    assert why_apart(levels, fewer) == "their stories are told other labels (50 against all)"
    other = replace(levels, observation=replace(levels.observation, fingerprint="beef"))
    assert why_apart(other, levels) == (
        f"other data: the fingerprints differ ({levels.observation.fingerprint} against beef)"
    )


def test_why_figures_that_do_not_convert_stand_apart(seen):
    mixed = "density, in columns 0 mass"
    holes = [Contract(replace(seen[view], missing=True), "density") for view in ("as they are", "standardise")]
    assert why_apart(*holes).startswith("values are missing: each datum has a Jacobian of its own")
    plain = Contract(seen["as they are"], "density")
    assert why_apart(plain, Contract(seen["as they are"], mixed)) == f"a {mixed} is not a density"
    assert why_apart(Contract(seen["unit"], mixed), Contract(seen["standardise"], mixed)) == (
        f"other scales (standardised by feature against scaled to [0, 1]), and a {mixed} has no Jacobian to convert by"
    )
    more = replace(seen["as they are"], classes=11)
    assert why_apart(plain, Contract(more, "density")) == "their records differ in classes"
