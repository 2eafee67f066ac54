"""What is drawn of inference is what was given."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from ppvae.inference.diagnostics.calibration import rank
from ppvae.inference.diagnostics.gaps import Difference
from ppvae.plots import inference
from ppvae.plots.inference import Plane


def drawn(figure):
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    return [axis for axis in figure.axes if axis.get_visible()]


def texts(axis):
    return [text.get_text() for text in axis.texts]


def test_gap_bars_are_the_means_with_two_errors_and_pale_where_unresolved():
    parts = {
        "train": [Difference("approximation gap", 0.5, 0.1), Difference("amortisation gap", 0.05, 0.1)],
        "test": [Difference("approximation gap", 0.7, 0.2), Difference("amortisation gap", -0.5, 0.1)],
    }
    (axis,) = drawn(inference.gap_bars(parts, "Gaps"))
    bars = [bar for bar in axis.patches if bar.get_height()]
    assert [bar.get_height() for bar in bars] == [0.5, 0.05, 0.7, -0.5]
    assert [bar.get_alpha() for bar in bars] == [0.9, 0.3, 0.9, 0.9]
    (segment,) = axis.collections[0].get_segments()
    assert segment[:, 1].tolist() == pytest.approx([0.3, 0.7])
    assert texts(axis) == ["0.50", "unresolved", "0.70", "-0.50"]
    assert axis.get_ylabel() == "nats per datum"
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["train", "test"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["approximation\ngap", "amortisation\ngap"]
    drawn(inference.gap_bars({"one": [Difference("gap", 0.1, math.nan)]}, ""))


def test_rank_histograms_count_every_rank_and_say_which_are_uneven():
    truth = torch.randn(200, 2)
    right, narrow = torch.randn(99, 200, 2), 0.3 * torch.randn(99, 200, 2)
    found = {"right": rank(right, truth), "narrow": rank(narrow, truth)}
    axes = drawn(inference.rank_histograms(found, "Ranks"))
    assert len(axes) == 2
    for axis, calibration in zip(axes, found.values(), strict=True):
        stairs = next(patch for patch in axis.patches if hasattr(patch, "get_data"))
        counts, edges, _ = stairs.get_data()
        assert counts.sum() == 400
        assert (edges[0], edges[-1]) == pytest.approx((0, 1))
        expected = np.histogram(calibration.ranks.flatten().numpy(), 20, (-0.5, 99.5))[0]
        np.testing.assert_array_equal(counts, expected)
    assert axes[0].get_title() == f"right: p = {found['right'].worst:.2f}"
    assert axes[1].get_title() == "narrow: p < 1e-8"


def test_methods_are_dots_and_what_is_missing_says_so():
    row = {
        "method": "guide",
        "gap": 2.0,
        "gap_error": 0.5,
        "pareto_k_above_0.7": 0.25,
        "mean_error": 0.5,
        "log_variance_bias": -0.3,
        "calibration_p": 0.0,
        "milliseconds": 3.0,
    }
    nothing = dict.fromkeys(("gap", "gap_error", "pareto_k_above_0.7", "calibration_p"), math.nan)
    axes = drawn(inference.method_dots([row, row | nothing | {"method": "chains"}], "Methods"))
    assert len(axes) == 6
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["guide", "chains"]
    assert [texts(axis) for axis in axes] == [["no density"], ["no density"], [], [], ["not done"], []]
    assert axes[2].lines[0].get_xdata().tolist() == [0.5, 0.5]
    assert axes[0].get_xlabel().startswith("log p(x) - ELBO\nnats")


def test_a_plane_shows_density_and_draws_and_counts_what_lies_outside():
    line = torch.linspace(-3, 3, 61)
    density = torch.exp(-0.5 * (line.square().unsqueeze(0) + line.square().unsqueeze(1) / 0.25))
    inside = torch.randn(400, 2) * torch.tensor([0.5, 0.3])
    stray = torch.cat([inside[:300], inside[:100] + 20])
    shown = [{"good": inside, "stray": stray}, {"good": inside}]  # a slow method is given the first data only
    planes = [Plane(f"datum {number}", line, line, density, draws) for number, draws in enumerate(shown)]
    axes = drawn(inference.latent_plane(planes, "Planes"))
    assert [texts(axis) for axis in axes] == [[], ["25% outside"], []]
    assert axes[0].get_title() == "good"
    assert axes[0].get_ylabel() == "datum 0\nu₂"
    assert axes[2].get_xlabel() == "u₁"
    assert axes[0].get_xlim() == (-3, 3)
    assert len(axes[0].lines[0].get_xdata()) == 300


def test_levels_hold_the_shares_that_they_are_said_to():
    line = torch.linspace(-6, 6, 401).double()
    density = torch.exp(-0.5 * (line.square().unsqueeze(0) + line.square().unsqueeze(1))).numpy()
    levels = inference._levels(density)
    held = [density[density >= level].sum() / density.sum() for level in levels]
    assert held == pytest.approx([0.99, 0.9, 0.5, 0.1], abs=0.005)
