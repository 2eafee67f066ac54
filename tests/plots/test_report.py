"""Tables, the page and its figures, from results whose numbers are known."""

import base64
import csv
import json
import math
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from ppvae.data.observation import Observation
from ppvae.evaluation.comparison import COLUMNS, Result, group_results, not_ranked
from ppvae.inference import Evidence
from ppvae.plots import figures, report, stories
from ppvae.training.history import Epoch, History

PNG = b"\x89PNG\r\n\x1a\n"
SPREAD = torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
MEASURES = {"reconstruction": 0.1234, "active_units": 2, "neighbour": 0.905, "probe": 0.5, "seconds": 1.25}


COUNTS = Observation("counts", "levels", (5,), maximum=4)
DENSITY = Observation("dense", "real", (5,))
SCALED = Observation("dense", "real", (5,), scaling="standardise", log_jacobian=-3.0)


def evidence(log_p, k=0.1, measure="mass"):
    """Four data with a known mean; each has an error of 0.4, so that their mean has one of 0.2."""
    estimate, error = log_p + SPREAD, torch.full((4,), 0.4, dtype=torch.float64)
    k = torch.as_tensor(k, dtype=torch.float64).expand(4)
    figures = {"estimate": estimate, "standard_error": error, "ess": 10 * error, "pareto_k": k}
    elbo = {"elbo": estimate - 1, "elbo_standard_error": error, "particles": torch.full((4,), 100)}
    return Evidence(**figures, **elbo, bound="stochastic lower bound", method="a method", measure=measure)


def result(name, log_p, seen=COUNTS, seed=0, k=0.1):
    known = None if log_p is None else evidence(log_p, k, seen.measure)
    naive = None if log_p is None else evidence(log_p - 5, k, seen.measure)
    return Result(name, seen, seed, known, naive, MEASURES)


@pytest.fixture
def groups():
    """Two groups that are ranked, and one of point masses that is not."""
    return group_results(
        [
            result("second", -12.0),
            result("best", -10.0),
            result("doubtful", -14.0, k=[0.9, 0.1, 0.1, 0.1]),
            result("dense", 30.0, DENSITY),
            result("point", None, DENSITY),
        ]
    )


def cells(group, column):
    return {row.name: report.cell(row, column) for row in group.rows}


# --- cells


def test_a_figure_stands_with_its_error(groups):
    counts, dense, points = groups
    assert cells(counts, "neg_log_p") == {
        "best": "10.00 ± 0.20",
        "second": "12.00 ± 0.20",
        "doubtful": "≤ 14.00 ± 0.20",
    }
    assert cells(counts, "behind") == {"best": "best", "second": "2.000 ± 0.000", "doubtful": "~ 4.000 ± 0.000"}
    assert cells(counts, "neg_elbo")["best"] == "11.00"
    assert cells(counts, "naive_neg_log_p")["best"] == "15.00"
    assert cells(counts, "k_above") == {"best": "0%", "second": "0%", "doubtful": "25%"}
    assert cells(dense, "neg_log_p") == {"dense": "-30.00 ± 0.20"}
    assert cells(points, "neg_log_p") == {"point": "-"}
    assert cells(points, "reconstruction") == {"point": "0.123"}
    assert cells(points, "neighbour") == {"point": "90%"}
    assert cells(points, "seconds") == {"point": "1.2"}


def test_seeds_show_their_spread_beside_the_error():
    group = group_results([result("one", -10.0, seed=0), result("one", -13.0, seed=1)])[0]
    sd = 3 / math.sqrt(2)
    assert report.cell(group.rows[0], "neg_log_p") == f"11.50 ± {0.2 / math.sqrt(2):.2f} (sd {sd:.2f})"
    assert report.cell(group.rows[0], "neg_elbo") == f"12.50 (sd {sd:.2f})"
    assert any("2 seeds" in line for line in report.notes(2))
    assert any("one seed" in line for line in report.notes(1))


# --- tables


def test_every_group_has_a_table_of_its_own_that_is_never_cut(groups, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    report.print_tables(groups)
    said = capsys.readouterr().out
    assert "…" not in said
    tables = said.rstrip().split("\n\n")
    assert len(tables) == 3
    assert [table.splitlines()[0].strip() for table in tables] == [group.label for group in groups]
    assert "best" in tables[0]
    assert "dense" not in tables[0]
    assert "not ranked" in tables[2]
    assert "-log p(x)" not in tables[2]
    lines = tables[0].splitlines()
    order = [
        next(i for i, line in enumerate(lines) if line.startswith(f" {name}")) for name in ("best", "second", "doubt")
    ]
    assert order == sorted(order)


def test_rows_that_saw_the_data_in_other_ways_say_how(capsys):
    (group,) = group_results([result("plain", 30.0, DENSITY), result("moved", 34.0, SCALED)])
    head, best, second = report.cells(group, report.HEADINGS)
    assert (head[0], best[0], second[0]) == ("seen", "standardised by feature", "as they are")
    assert [row.name for row in group.rows] == ["moved", "plain"]  # -34 + 3 is below -30
    report.print_tables([group])
    said = capsys.readouterr().out
    assert "seen as each row says" in said
    assert "standardised by feature" in said.splitlines()[2]


def test_every_row_has_its_observation(groups, tmp_path):
    mixed = group_results([result("plain", 30.0, DENSITY), result("moved", 34.0, SCALED), result("mass", -10.0)])
    report.write_table(mixed, {}, tmp_path)
    record = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    seen = {row["name"]: Observation.from_dict(record["observations"][row["observation"]]) for row in record["rows"]}
    assert seen == {"plain": DENSITY, "moved": SCALED, "mass": COUNTS}
    assert record["not_ranked"] == not_ranked(mixed) != []
    with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert {name: row["log_jacobian"] for name, row in rows.items()} == {"plain": "0.0", "moved": "-3.0", "mass": "0.0"}
    assert {name: row["seen"] for name, row in rows.items()} == {
        "plain": "as they are",
        "moved": "standardised by feature",
        "mass": "as they are",
    }
    assert [rows[name]["measure"] for name in ("plain", "moved", "mass")] == ["density", "density", "mass"]
    assert float(rows["moved"]["bits_per_dim"]) == pytest.approx(-31 / (5 * math.log(2)))


def test_the_table_is_written_unrounded(groups, tmp_path):
    report.write_table(groups, {"seeds": 1, "root": "data"}, tmp_path)
    with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    record = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in rows] == ["best", "second", "doubtful", "dense", "point"]
    assert [row["name"] for row in record["rows"]] == [row["name"] for row in rows]
    assert record["settings"] == {"seeds": 1, "root": "data"}
    assert record["columns"].keys() == COLUMNS.keys()
    assert {row["group"] for row in rows if row["ranked"] == "False"} == {groups[2].label}
    for written, row in zip(rows, [row for group in groups for row in group.rows], strict=True):
        for column, value in row.mean.items():
            assert written[column] == ("" if math.isnan(value) else str(value))
    assert record["rows"][4]["neg_log_p"] is None


def test_what_json_has_no_word_for_is_null(tmp_path):
    endless = evidence(-10.0)
    endless.standard_error.fill_(math.inf)
    groups = group_results([Result("one", COUNTS, 0, endless, None, MEASURES)])
    report.write_table(groups, {}, tmp_path)
    text = (tmp_path / "table.json").read_text()
    assert "Infinity" not in text
    assert "NaN" not in text
    assert json.loads(text)["rows"][0]["monte_carlo_error"] is None


# --- the page


class Page(HTMLParser):
    """What a page refers to, what it may run, and what it says."""

    def __init__(self, text):
        super().__init__()
        self.references, self.tags, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in {"src", "href", "srcset", "data", "action"}]

    def handle_data(self, text):
        self.words.append(text.strip())


def a_page(groups, tmp_path, title="A title", settings=None):
    figure = Figure()
    figure.subplots().plot([1, 2])
    drawn = figures.save({"learning-curves": (figure, "What it <shows>")}, tmp_path / "figures")
    report.write_page(title, "A lead", groups, drawn, settings or {}, tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_needs_nothing_but_itself(groups, tmp_path):
    page = Page(a_page(groups, tmp_path))
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert len(page.references) == 1
    kind, _, encoded = page.references[0].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(encoded) == (tmp_path / "figures" / "learning-curves.png").read_bytes()


def test_the_page_says_what_the_terminal_says(groups, tmp_path):
    words = Page(a_page(groups, tmp_path, settings={"lr": 0.25})).words
    for group in groups:
        assert group.label in words
        for row in group.rows:
            assert row.name in words
            assert report.cell(row, "reconstruction") in words
    assert {"10.00 ± 0.20", "≤ 14.00 ± 0.20", "lr", "0.25", "Learning curves", "What it <shows>"} <= set(words)
    assert set(report.notes(1)) <= set(words)
    assert set(not_ranked(groups)) <= set(words)
    assert {"bits/dim", f"{10 / (5 * math.log(2)):.3f}", "What was observed", "fingerprint", "log_jacobian"} <= set(
        words
    )


def test_nothing_that_a_user_named_becomes_markup(tmp_path):
    groups = group_results([result("<b>bold</b>", -10.0, replace(COUNTS, name="<script>alert(1)</script>"))])
    page = Page(a_page(groups, tmp_path, title="a & <i>b</i>", settings={"data": "<img src=http://x>"}))
    assert not {"b", "i", "script"} & set(page.tags)
    assert all(reference.startswith("data:") for reference in page.references)
    assert {"<b>bold</b>", "a & <i>b</i>"} <= set(page.words)


# --- figures


class Copy(nn.Module):
    """x is a normal around z, as many features as latents."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def likelihood(self, z):
        return torch.distributions.Normal(z, self.scale)


def test_the_decoded_plane_has_z1_to_the_right_and_z2_upwards():
    side = figures.GRID
    plane = figures.decoded_plane(Copy()).reshape(side, side, 2)
    assert (plane[:, 1:, 0] > plane[:, :-1, 0]).all()
    assert (plane[1:, :, 1] < plane[:-1, :, 1]).all()
    torch.testing.assert_close(plane.mean(dim=(0, 1)), torch.zeros(2), atol=1e-5, rtol=0)


def test_learning_curves_show_what_was_recorded():
    history = History([Epoch(1, 5.0, 6.0, 0.1), Epoch(2, 4.0, None, 0.1)])
    figure = stories.learning_curves({"counts": {"one": history}, "density": {"two": history}}, "A title")
    assert len(figure.axes) == 2
    training, validation = figure.axes[0].lines
    assert list(training.get_ydata()) == [5.0, 4.0]
    assert validation.get_ydata()[0] == 6.0
    assert math.isnan(validation.get_ydata()[1])


def test_bars_show_only_what_is_ranked(groups):
    figure = stories.bound_bars(groups, "A title")
    names = [label.get_text() for axis in figure.axes for label in axis.get_yticklabels()]
    assert names == ["best", "second", "doubtful", "dense"]
    assert figure.get_suptitle() == "A title"
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "counts, as they are: mass; the best is 10.00 nats per datum",
        "dense, on the raw scale: density; the best is -30.00 nats per datum",
    ]
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == pytest.approx([1, 3, 5, 0, 2, 4])


@pytest.mark.parametrize(("features", "shape"), [(12, (1, 3, 4)), (12, (3, 2, 2)), (12, (12,)), (12, (4, 3))])
def test_every_shape_of_data_can_be_looked_at(features, shape, tmp_path):
    rows = {"test data": torch.rand(5, features), "constant": torch.zeros(3, features)}
    codes = {name: torch.randn(6, 2) for name in "ab"}
    drawn = {
        "images": (stories.image_rows(rows, shape, "A title"), ""),
        "planes": (stories.latent_planes(codes, torch.arange(6) % 3, "A title"), ""),
        "unlabelled": (stories.latent_planes(codes, None, "A title"), ""),
    }
    saved = figures.save(drawn, tmp_path / "figures")
    assert saved.keys() == drawn.keys()
    assert all(path.read_bytes().startswith(PNG) for path, _ in saved.values())
