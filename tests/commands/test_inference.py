"""`ppvae gaps` and `ppvae posteriors`, from words to files."""

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ppvae import cli
from ppvae.commands import posteriors
from ppvae.inference.posteriors.methods import METHODS

SMALL = ["--latent", "2", "--network.hidden", "[8]", "--epochs", "1"]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Fitted runs: a VAE, one with a discrete latent, and a deterministic autoencoder."""
    folder = tmp_path_factory.mktemp("runs")
    np.save(folder / "real.npy", np.random.default_rng(0).normal(size=(80, 4)))
    fit = ["fit", "--data", str(folder / "real.npy"), *SMALL]
    assert cli.main([*fit, "--out", str(folder / "vae")]) == 0
    assert (
        cli.main([*fit, "--prior", "OneHot", "--encoder", "OneHotCategorical", "--out", str(folder / "discrete")]) == 0
    )
    assert cli.main([*fit, "--story", "autoencoder", "--out", str(folder / "point")]) == 0
    return folder


@pytest.fixture(params=["short", pytest.param("as it is", marks=pytest.mark.soak)])
def fits(request, monkeypatch):
    """How long fits and chains are, where no word says it."""
    if request.param == "short":
        monkeypatch.setattr(posteriors, "reference", partial(posteriors.reference, num_warmup=10))
        monkeypatch.setattr(posteriors, "flow_sampling", partial(posteriors.flow_sampling, num_steps=20))
        quick = {"local diagonal": partial(METHODS["local diagonal"], num_steps=30)}
        quick["hmc"] = partial(METHODS["hmc"], num_warmup=10)
        for name, method in quick.items():
            monkeypatch.setitem(METHODS, name, method)
    return request.param


def say(capsys, *words):
    capsys.readouterr()
    status = cli.main([str(word) for word in words])
    said = capsys.readouterr()
    assert (status, said.err) == (0, "")
    return said.out


def refusal(capsys, *words):
    capsys.readouterr()
    assert cli.main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("rows", "steps", "flow_steps"), [(3, 10, 10), pytest.param(6, 60, 40, marks=pytest.mark.soak)]
)
def test_gaps_prints_a_table_and_keeps_it_with_a_picture(runs, capsys, rows, steps, flow_steps):
    length = ["--particles", "200", "--num_steps", steps, "--num_flow_steps", flow_steps]
    words = ["gaps", runs / "vae", "--rows", rows, *length]
    said = say(capsys, *words)
    for part in (
        "log p(x)",
        "local flow ELBO",
        "amortised ELBO",
        "approximation gap",
        "amortisation gap",
        f"train ({rows})",
    ):
        assert part in said
    assert "the guide's family: diagonal Normals" in said
    path = runs / "vae" / f"gaps-first{rows}-seed0.json"
    kept = json.loads(path.read_text())
    for split in ("train", "test"):
        found = kept[split]
        parts = [found[name]["mean"] for name in ("approximation gap", "amortisation gap", "inference gap")]
        assert parts[0] + parts[1] == pytest.approx(parts[2])
        assert found["data"] == rows
    table = list(csv.DictReader(path.with_suffix(".csv").read_text().splitlines()))
    assert len(table) == 2 * rows
    of_test = [float(row["log_p"]) - float(row["amortised_elbo"]) for row in table if row["split"] == "test"]
    assert np.mean(of_test) == pytest.approx(kept["test"]["inference gap"]["mean"])
    assert (path.parent / f"gaps-first{rows}-seed0-bars.png").read_bytes().startswith(PNG)
    assert say(capsys, *words) == said  # it comes again


def test_posteriors_prints_a_leaderboard_and_keeps_it_with_pictures(runs, capsys, fits):
    methods = "[amortised,local diagonal,laplace,hmc]"
    few = ["--rows", "2", "--num_samples", "40", "--num_simulations", "20", "--reference", "20"]
    said = say(capsys, "posteriors", runs / "vae", *few, "--methods", methods)
    assert all(method in said for method in ("amortised", "local diagonal", "laplace", "hmc"))
    assert "nuts  " not in said
    path = runs / "vae" / "posteriors-amortised-local_diagonal-laplace-hmc-test-first2-seed0.json"
    kept = json.loads(path.read_text())
    assert [row["method"] for row in kept["methods"]] == ["amortised", "local diagonal", "laplace", "hmc"]
    assert kept["methods"][3]["elbo"] is None
    assert len(list(csv.DictReader(path.with_suffix(".csv").read_text().splitlines()))) == 4
    for name in ("methods", "ranks", "planes"):
        assert (path.parent / f"{path.stem}-{name}.png").read_bytes().startswith(PNG)


def test_a_deterministic_run_leaves_out_what_needs_a_density(runs, capsys, monkeypatch, fits):
    kept = {name: METHODS[name] for name in ("amortised", "semi-amortised", "resampled", "laplace")}
    monkeypatch.setattr(posteriors, "METHODS", kept)
    few = ["--rows", "3", "--num_samples", "40", "--num_simulations", "0", "--reference", "20"]
    said = say(capsys, "posteriors", runs / "point", *few)
    assert "left out, for want of a guide with a density: amortised, semi-amortised, resampled" in said
    assert "the guide is a point mass" in said


def test_what_a_person_can_mend_is_one_line_that_names_the_site(runs, capsys):
    assert "latent site 'z' has a point mass" in refusal(capsys, "gaps", runs / "point", "--rows", "3")
    for command in ("gaps", "posteriors"):
        assert "latent site 'z'" in refusal(capsys, command, runs / "discrete", "--rows", "3")
        assert "rows should be at least 2" in refusal(capsys, command, runs / "vae", "--rows", "1")
    assert "point mass" in refusal(capsys, "posteriors", runs / "point", "--rows", "3", "--methods", "[amortised]")
    said = refusal(capsys, "posteriors", runs / "vae", "--rows", "3", "--methods", "[guess]")
    assert "methods should be of amortised" in said
    assert "family should be" in refusal(capsys, "gaps", runs / "vae", "--rows", "3", "--family", "round")
    assert "split should be" in refusal(capsys, "posteriors", runs / "vae", "--split", "all")
    assert not list(Path(runs / "discrete").glob("gaps*"))
