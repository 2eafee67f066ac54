"""The run folder: written whole or not at all, and read back to the same story."""

import csv
import json
import math
import os

import numpy as np
import pytest
import torch

import ppvae
from ppvae import data
from ppvae.experiments import build, run_folder
from ppvae.experiments.options import fit_parser, parse
from ppvae.inference import Evidence, importance, log_weights
from ppvae.training.history import Epoch

WORDS = ["--data", "real.npy", "--latent", "2", "--network.hidden", "[4]", "--prior", "GaussianMixture"]
EPOCHS = [Epoch(1, 3.5, 4.5, 0.25), Epoch(2, 2.5, math.nan, 0.25)]


@pytest.fixture(autouse=True)
def real_data(tmp_path, monkeypatch):
    """A working folder with a file of real data."""
    monkeypatch.chdir(tmp_path)
    np.save("real.npy", np.random.default_rng(0).normal(size=(40, 4)))


def a_story(*words):
    """Options, observation and story as the command line makes them."""
    parser = fit_parser()
    options = parse(parser, [*WORDS, *words])
    observation = run_folder.load_data_of(options).observation
    options = build.complete(parser, options, observation)
    return parser.dump(options), observation, build.build_story(parser, options, observation)


def a_run(*words):
    config, observation, story = a_story(*words)
    with run_folder.new_folder("RUN") as folder:
        run_folder.write(folder, config, observation, story, EPOCHS)
    return story


def refusal(error, action, *arguments):
    with pytest.raises(error) as caught:
        action(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def strict(text):
    """JSON as others read it: without NaN or Infinity."""

    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


# --- the folder


@pytest.mark.parametrize("name", ["OUT", "new/above/OUT"])
def test_a_folder_appears_only_when_it_is_whole(tmp_path, name):
    with run_folder.new_folder(name) as part:
        (part / "a").write_text("1")
        assert not (tmp_path / name).exists()
    assert (tmp_path / name / "a").read_text() == "1"
    assert not list(tmp_path.rglob("*.part"))


def fill(name, error):
    """A folder whose making fails half-way."""
    with run_folder.new_folder(name) as part:
        (part / "a").write_text("1")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["OUT", "new/above/OUT"])
def test_nothing_is_left_of_a_folder_that_failed(error, name):
    before = os.listdir()
    with pytest.raises(error):
        fill(name, error)
    assert os.listdir() == before


def test_only_the_folders_that_were_made_are_taken_away():
    os.makedirs("mine")
    with pytest.raises(ValueError, match="stop"):
        fill("mine/new/OUT", ValueError("stop"))
    assert os.listdir("mine") == []


def test_an_empty_folder_is_filled_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    place = os.stat("empty").st_ino
    with run_folder.new_folder("link") as part:
        (part / "figures").mkdir()
        (part / "figures" / "a").write_text("1")
    assert (tmp_path / "empty" / "figures" / "a").read_text() == "1"
    assert os.stat("empty").st_ino == place
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with run_folder.new_folder(".") as part:
        (part / "b").write_text("2")
    assert os.listdir() == ["b"]
    assert "here.part" not in os.listdir(tmp_path)


def test_what_a_killed_run_left_is_in_nobodys_way(tmp_path):
    (tmp_path / "OUT.part").mkdir()
    (tmp_path / "OUT.part" / "old").write_text("half")
    with run_folder.new_folder("OUT") as part:
        (part / "a").write_text("1")
    assert os.listdir("OUT") == ["a"]
    assert (tmp_path / "OUT.part" / "old").read_text() == "half"  # whoever made it


def test_a_folder_in_use_or_a_file_is_refused_untouched(tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis").write_text("years")
    for name in ("used", "real.npy"):
        with pytest.raises(FileExistsError, match="new or empty") as caught, run_folder.new_folder(name):
            pass
        assert name in str(caught.value)
    assert (tmp_path / "used" / "thesis").read_text() == "years"


# --- write and read


def test_a_run_comes_back_as_it_was():
    story = a_run("--prior.components", "3")
    back = ppvae.load("RUN")
    assert back.state_dict().keys() == story.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(back.state_dict().values(), story.state_dict().values(), strict=True))
    x = data.load_dataset("real.npy").test
    weights = []
    for one in (story, back):
        torch.manual_seed(1)
        weights.append(log_weights(one, x, particles=5))
    assert torch.equal(*weights)
    assert not any(module.training for module in back.modules())


def test_reading_draws_nothing_from_the_global_generator():
    a_run()
    before = torch.get_rng_state()
    ppvae.load("RUN")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_files_of_a_run_are_plain(tmp_path):
    a_run()
    assert set(os.listdir("RUN")) == {"config.yaml", "observation.json", "weights.safetensors", "metrics.jsonl"}
    assert strict((tmp_path / "RUN" / "observation.json").read_text())["measure"] == "density"
    lines = [strict(line) for line in (tmp_path / "RUN" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0] == {"epoch": 1, "loss": 3.5, "valid": 4.5, "seconds": 0.25}
    assert lines[1]["valid"] is None


def test_a_run_knows_its_data():
    a_run()
    run = run_folder.read("RUN")
    assert torch.equal(run.data().test, data.load_dataset("real.npy").test)
    np.save("real.npy", np.zeros((40, 5)) + np.arange(40)[:, None])
    message = refusal(ValueError, run.data)
    assert "the data should be those of the run" in message
    assert "4 features" in message
    assert "5 features" in message


def test_views_of_the_data_are_part_of_the_run():
    a_run("--scaling", "standardise")
    run = run_folder.read("RUN")
    assert run.observation.scaling == "standardise"
    assert run.data().observation == run.observation
    assert run.data().train.mean(dim=0).abs().max() < 1e-6


def test_a_run_loads_where_its_data_and_objective_are_not(tmp_path, monkeypatch):
    a_run()
    (tmp_path / "elsewhere").mkdir()
    config = (tmp_path / "RUN" / "config.yaml").read_text()
    (tmp_path / "RUN" / "config.yaml").write_text(config.replace("objective: elbo", "objective: gone.objective"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert ppvae.load("../RUN").prior().event_shape == (2,)


@pytest.mark.parametrize("name", ["config.yaml", "observation.json", "weights.safetensors"])
def test_a_folder_that_is_no_run_is_named(tmp_path, name):
    a_run()
    (tmp_path / "RUN" / name).unlink()
    assert refusal(FileNotFoundError, ppvae.load, "RUN").endswith("RUN does not")
    assert refusal(FileNotFoundError, ppvae.load, "nowhere").endswith("nowhere does not")


OBSERVATION = {"name": "real.npy", "kind": "real", "shape": [4], "maximum": None, "binarisation": "none"}
OBSERVATION |= {
    "scaling": "none",
    "log_jacobian": 0.0,
    "contrast": 1.0,
    "units": "nats per datum",
    "classes": None,
    "missing": False,
    "labelled": None,
    "fingerprint": "",
}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("observation.json", "", "should say what was observed"),
        ("observation.json", "{", "should say what was observed"),
        ("observation.json", "{}", "should say what was observed"),
        ("observation.json", "[]", "should say what was observed"),
        ("observation.json", "null", "should say what was observed"),
        ("observation.json", json.dumps(OBSERVATION | {"shape": None}), "should say what was observed"),
        ("observation.json", json.dumps(OBSERVATION | {"shape": "wide"}), "should say what was observed"),
        ("observation.json", json.dumps(OBSERVATION | {"shape": [5]}), "size mismatch for likelihood.network"),
        ("weights.safetensors", "", "should hold the weights of config.yaml's story"),
        ("weights.safetensors", "garbage" * 10, "should hold the weights of config.yaml's story"),
        ("config.yaml", "", "`name: value`"),
        ("config.yaml", "latent: 2", "size mismatch for"),
        ("config.yaml", "prior: Gone", "unknown prior 'Gone'"),
        ("config.yaml", "prior: gone.Prior", "members of ppvae only, and would import gone.Prior (prior)"),
        ("config.yaml", "latent: two", "--latent should be int, got two"),
    ],
)
def test_a_corrupt_run_is_refused_in_one_line(tmp_path, name, text, said):
    a_run()
    (tmp_path / "RUN" / name).write_text(text)
    assert said in refusal(ValueError, ppvae.load, "RUN")


# --- evidence


def test_evidence_is_written_per_datum_and_in_summary(tmp_path):
    story = a_run()
    run = run_folder.read("RUN")
    evidence = importance(story, run.data().test, particles=30)
    path = run_folder.write_evidence(run, evidence, "importance-30", "test", 3)
    record = strict(path.read_text())
    assert record["observation"] == strict((tmp_path / "RUN" / "observation.json").read_text())
    bits = -evidence.estimate.mean().item() / (4 * math.log(2))
    scored = {"of": "p(x)", "log_jacobian": 0.0, "bits_per_dim": pytest.approx(bits)}
    rest = {"split": "test", "seed": 3, **scored, **evidence.summary()}
    assert {k: v for k, v in record.items() if k != "observation"} == rest
    with open(path.with_suffix(".csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["datum"]) for row in rows] == list(range(8))
    for column in ("estimate", "standard_error", "ess", "pareto_k", "elbo", "elbo_standard_error", "particles"):
        written = torch.tensor([float(row[column]) for row in rows])
        torch.testing.assert_close(written, getattr(evidence, column).float(), rtol=1e-6, atol=0, equal_nan=True)
    assert not list(tmp_path.glob("*.part"))


def test_an_infinite_error_is_null_in_json(tmp_path):
    one = torch.tensor([1.0], dtype=torch.float64)
    infinite = torch.full((1,), math.inf, dtype=torch.float64)
    figures = (one, infinite, one, infinite.neg(), one, infinite, torch.ones(1).long())
    evidence = Evidence(*figures, bound="stochastic lower bound", method="a method")
    a_run()
    record = strict(run_folder.write_evidence(run_folder.read("RUN"), evidence, "importance-1", "test", 0).read_text())
    assert record["monte_carlo_error"] is None
    assert record["log_p"] == 1.0
