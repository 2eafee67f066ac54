"""What is drawn is what was given: lines, bands, labels, units."""

import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats

from ppvae.inference import bound_curve, log_mean_exp
from ppvae.inference.evidence.tail import Tail, fit_tail
from ppvae.plots import evidence
from ppvae.plots.evidence import Bounds


def of_one(log_w):
    return Tail(*(part[0] for part in fit_tail(log_w.unsqueeze(-1))))


def drawn(figure):
    assert isinstance(figure, Figure)
    figure.canvas.draw()  # what a lazy label or a tick would raise
    return figure.axes[0]


def lines(axis):
    return {line.get_label(): line for line in axis.get_lines()}


@pytest.mark.parametrize("offset", [0.0, -900.0])
def test_the_histogram_counts_every_draw_about_the_mean_weight(offset):
    log_w = torch.randn(1000).double() + offset
    tail = of_one(log_w)
    axis = drawn(evidence.weight_histogram(log_w, tail, "datum 7"))
    counts, edges, _ = axis.patches[0].get_data()
    relative = (log_w - log_mean_exp(log_w.unsqueeze(-1))).numpy()
    assert counts.sum() == (relative >= edges[0]).sum()
    np.testing.assert_array_equal(counts, np.histogram(relative, edges)[0])
    cutoff = float(tail.log_cutoff - log_mean_exp(log_w.unsqueeze(-1)))
    assert np.abs(edges - cutoff).min() < 1e-9  # a bar begins there
    assert counts[edges[:-1] > cutoff - 1e-9].sum() in {94, 95}  # 3 sqrt 1000, and the cut-off itself
    shade = axis.patches[1].get_bbox()
    assert (shade.x0, shade.x1) == pytest.approx((cutoff, edges[-1]))
    assert "largest 9.4% of draws" in axis.patches[1].get_label()
    assert axis.get_xlabel().startswith("log w - log mean w, nats")
    assert axis.get_ylabel() == "draws"
    assert axis.get_yscale() == "log"


@pytest.mark.parametrize("spread", [0.4, 1.0, 3.0])
def test_the_curve_is_the_fitted_distribution_in_draws_per_bar(spread):
    log_w = spread * torch.randn(2000).double()
    tail = of_one(log_w)
    axis = drawn(evidence.weight_histogram(log_w, tail, ""))
    edges = axis.patches[0].get_data().edges
    x, y = lines(axis)["generalised Pareto fitted to the tail"].get_data()
    weight = np.exp(x + log_mean_exp(log_w.unsqueeze(-1)).item())
    cutoff, scale = math.exp(tail.log_cutoff), math.exp(tail.log_scale)
    density = stats.genpareto.pdf(weight, float(tail.k), loc=cutoff, scale=scale) * weight  # of log w, a nat
    expected = 2000 * float(tail.share) * density * (edges[1] - edges[0])
    within = np.isfinite(y)
    np.testing.assert_allclose(y[within], expected[within], rtol=1e-6)
    assert expected[~within].sum() == 0


@pytest.mark.parametrize(
    ("k", "words"),
    [
        (0.83, "k-hat 0.83: too heavy, the estimate is unreliable"),
        (0.62, "k-hat 0.62: heavy, the estimate is usable and its error rough"),
        (0.2, "k-hat 0.20: light, the estimate and its error can be trusted"),
        (-math.inf, "k-hat -inf: bounded, the estimate and its error can be trusted"),
        (math.inf, "k-hat inf: too heavy, the estimate is unreliable"),
        (math.nan, "k-hat unknown: too few draws for a tail"),
    ],
)
def test_k_hat_is_said_in_words(k, words):
    log_w = torch.randn(100).double()
    tail = of_one(log_w)._replace(k=torch.tensor(k))
    assert drawn(evidence.weight_histogram(log_w, tail, "")).get_title() == words


def test_weights_without_a_tail_are_drawn_without_one():
    two = torch.where(torch.arange(1000) % 2 == 0, 0.0, -3.0)
    for log_w in (torch.randn(20), torch.zeros(100), two):
        axis = drawn(evidence.weight_histogram(log_w, of_one(log_w), ""))
        assert axis.patches[0].get_data().values.sum() == len(log_w)
        assert list(lines(axis)) == ["mean weight: the estimate of p(x)"]
        assert len(axis.patches) == 1


def test_draws_far_to_the_left_are_counted_in_words():
    log_w = torch.cat([torch.randn(800), torch.full((100,), -torch.inf), torch.full((100,), -5000.0)]).double()
    axis = drawn(evidence.weight_histogram(log_w, of_one(log_w), ""))
    assert "(20.0% of draws lie further left)" in axis.get_xlabel()
    with pytest.raises(ValueError, match="every log-weight is -inf"):
        evidence.weight_histogram(log_w[800:900], of_one(log_w), "")


def test_the_curve_is_the_mean_over_the_data_in_a_band_of_two_errors():
    curves = {"guide": bound_curve(torch.randn(100, 9)), "prior": bound_curve(2 * torch.randn(20, 9))}
    axis = drawn(evidence.k_curve(curves, "rising", final=0.5))
    final, *found = axis.get_lines()
    assert final.get_label() == "final estimate: 0.50"
    assert set(final.get_ydata()) == {0.5}
    for line, band, (name, given) in zip(found, axis.collections, curves.items(), strict=True):
        mean = given.estimate.mean(1)
        error = (given.standard_error**2).sum(1).sqrt() / 9
        np.testing.assert_array_equal(line.get_xdata(), given.particles)
        np.testing.assert_allclose(line.get_ydata(), mean, rtol=1e-6)
        corners = band.get_paths()[0].vertices
        assert corners[:, 1].min() == pytest.approx((mean - 2 * error).min().item(), rel=1e-5)
        assert corners[:, 1].max() == pytest.approx((mean + 2 * error).max().item(), rel=1e-5)
        expected = f"{name}: {mean[-1]:.2f} ± {2 * error[-1]:.2f} at K = {given.particles[-1]}"
        assert line.get_label() == expected
    assert "nats per datum" in axis.get_ylabel()
    assert "particles" in axis.get_xlabel()
    assert axis.get_xscale() == "log"
    assert [text.get_text() for text in axis.get_xticklabels() if text.get_text() == "100"]


def test_the_sandwich_shows_both_bounds_their_errors_and_the_gap():
    steps = torch.tensor([10, 100, 1000])
    falling = torch.tensor([8.0, 2.0, 0.25])
    curve = Bounds(steps, -90 - falling, 0.1 * torch.ones(3), -90 + falling, 0.1 * torch.ones(3))
    figure = evidence.sandwich({"from the prior": curve}, "between")
    axis = drawn(figure)
    lower, upper = axis.containers
    for container, bound in ((lower, curve.lower), (upper, curve.upper)):
        np.testing.assert_array_equal(container.lines[0].get_xdata(), steps)
        np.testing.assert_allclose(container.lines[0].get_ydata(), bound)
        bars = np.stack(container.lines[2][0].get_segments())  # (rungs, ends, x and y)
        np.testing.assert_allclose(bars[:, 1, 1] - bars[:, 0, 1], 4 * 0.1, rtol=1e-5)
    assert (lower.lines[0].get_marker(), upper.lines[0].get_marker()) == ("^", "v")
    assert [text.get_text() for text in axis.texts] == ["gap 0.5 ± 0.3 nats"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["from the prior"]
    assert axis.get_ylabel() == "log p(x), nats per datum"
    assert axis.get_xlabel() == "intermediate distributions"
    assert figure.get_suptitle() == "between"


def test_several_methods_have_colours_of_their_own_and_gaps_that_do_not_hide_one_another():
    steps, error = torch.tensor([10, 100]), torch.zeros(2)
    curves = {str(i): Bounds(steps, torch.full((2,), -i), error, torch.full((2,), i), error) for i in (1.0, 2.0, 3.0)}
    axis = drawn(evidence.sandwich(curves, ""))
    assert len({text.get_color() for text in axis.texts}) == 3
    assert len({text.xyann[1] for text in axis.texts}) == 3
