"""The command line from words to files, and one plain line for everything that a person can mend."""

import csv
import importlib
import json
import math
import re
import shutil
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import ppvae
from ppvae import cli, data, networks
from ppvae.commands import compare
from ppvae.evaluation.metrics import completeness
from ppvae.evaluation.scoring import give_density, score
from ppvae.experiments import lineup, run_folder
from ppvae.experiments.options import parse
from ppvae.inference import elbo, iwae, log_weights, refined_sampling
from ppvae.models import assemble, encoders, likelihoods, priors
from ppvae.selfcheck.checks import against
from ppvae.training.fit import NotFinite

MY_FILE = """
import torch, pyro.distributions as dist
from torch import nn
from ppvae.inference import elbo

class MyPrior(nn.Module):
    def __init__(self, latent: int, spread: float = 1.0):
        super().__init__()
        self.latent, self.spread = latent, spread
    def forward(self):
        return dist.Normal(torch.zeros(self.latent), self.spread).to_event(1)

class MyLikelihood(nn.Module):
    outputs = 2
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
    def forward(self, z):
        loc, log_scale = self.network(z).chunk(2, dim=-1)
        return dist.StudentT(4.0, loc, log_scale.exp()).to_event(1)

class Squashed(MyLikelihood):
    "A guide without a mean."
    def forward(self, x):
        loc, log_scale = self.network(x).chunk(2, dim=-1)
        squash = dist.transforms.TanhTransform()
        return dist.TransformedDistribution(dist.Normal(loc, log_scale.exp()), [squash]).to_event(1)

class Raises(nn.Module):
    def __init__(self, latent: int):
        raise KeyError("no such luck")

class Breaks(nn.Module):
    "A likelihood that is not a number from the given training step on."
    def __init__(self, network: nn.Module, step: int):
        super().__init__()
        self.network, self.left = network, step
    def forward(self, z):
        loc = self.network(z)
        if self.training:
            self.left -= 1
            loc = loc if self.left > 0 else loc * float("nan")
        return dist.Normal(loc, 1.0).to_event(1)

def answer(story, data) -> float:
    return 42.0


def doubled(story, data, factor: float = 2.0):
    return factor * elbo(story, data)

calls = []
def stopped(story, data, after: int):
    calls.append(1)
    if len(calls) > after:
        raise KeyboardInterrupt
    return elbo(story, data)
"""
SMALL = ["--latent", "2", "--network.hidden", "[4]", "--epochs", "2", "--compile", "never"]  # on a busy machine too
REAL = ["fit", "--data", "real.npy", *SMALL]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    """A working folder with small data of every kind and a file of one's own parts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    draw = np.random.default_rng(0)
    np.save("real.npy", draw.normal(size=(60, 4)))
    np.save("grey.npy", draw.integers(0, 256, size=(60, 4), dtype=np.uint8))
    np.save("counts.npy", draw.integers(0, 9, size=(60, 4)))
    np.save("nan.npy", np.where(np.arange(240).reshape(60, 4) == 7, np.nan, 0.5))
    Path("short.npy").write_bytes(Path("real.npy").read_bytes()[:200])
    Path("my_file.py").write_text(MY_FILE)
    Path("not_python.py").write_text("class Prior(:\n")
    importlib.invalidate_caches()
    yield
    sys.modules.pop("my_file", None)


@pytest.fixture
def trusted(capsys):
    """Evaluates a run that names parts of one's own, and returns what is printed."""

    def run(*words):
        capsys.readouterr()
        assert cli.main(["evaluate", *words, "--trust"]) == 0
        said = capsys.readouterr()
        assert said.err.startswith("trusted: ")
        assert said.err.count("\n") == 1
        return said.out

    return run


@pytest.fixture
def ppvae_says(capsys):
    """Runs a command that should work, and returns what it prints."""

    def run(*words):
        capsys.readouterr()
        status = cli.main(words)
        said = capsys.readouterr()
        assert (status, said.err) == (0, "")
        return said.out

    return run


@pytest.fixture
def refusal(capsys):
    """Runs a command that should be refused: status 2, one line, nothing left behind."""

    def run(*words, leaves=()):
        before = listing()
        capsys.readouterr()
        status = cli.main(words)
        said = capsys.readouterr()
        assert status == 2
        assert said.err.startswith("ppvae: error: ")
        assert said.err.count("\n") == 1
        assert "Traceback" not in said.out + said.err
        assert {path.parts[0] for path in listing() - before} == set(leaves)
        return said.err.removeprefix("ppvae: error: ").rstrip()

    return run


def listing():
    return {path.relative_to(Path.cwd()) for path in Path.cwd().rglob("*")}


def shown(capsys, *words):
    """What a command prints that only shows something and ends."""
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    said = capsys.readouterr()
    assert not caught.value.code
    assert said.err == ""
    return said.out


def strict(text):
    """JSON as others read it: without NaN or Infinity."""

    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


def weights(run):
    return load_file(Path(run) / "weights.safetensors")


def metrics(run):
    return [strict(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- fit


def test_a_run_folder_holds_everything_in_plain_files(ppvae_says):
    out = ppvae_says(*REAL, "--out", "RUN")
    names = {str(path.relative_to("RUN")) for path in Path("RUN").rglob("*") if path.is_file()}
    drawn = {name for name in names if name.startswith("figures/")}
    assert names - drawn == {"config.yaml", "observation.json", "weights.safetensors", "metrics.jsonl"}
    assert drawn == {"figures/learning-curve.png", "figures/images.png", "figures/latent-plane.png"}
    assert all((Path("RUN") / name).read_bytes().startswith(PNG) for name in drawn)
    assert not any((Path("RUN") / name).read_bytes().startswith((b"PK", b"\x80")) for name in names)  # zip, pickle
    lines = metrics("RUN")
    assert [line["epoch"] for line in lines] == [1, 2]
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert f"epoch 2: loss {lines[1]['loss']:.3f}, on validation data {lines[1]['valid']:.3f}" in out
    assert strict(Path("RUN/observation.json").read_text())["name"] == "real.npy"
    assert not Path("RUN.part").exists()


def test_the_command_line_fits_what_python_fits(ppvae_says):
    words = [
        "--prior",
        "GaussianMixture",
        "--prior.components",
        "7",
        "--objective",
        "iwae",
        "--objective.particles",
        "5",
    ]
    options = ["--batch_size", "500", "--lr", "0.01", "--seed", "3"]
    ppvae_says("fit", "--data", "digits", *SMALL, *words, *options, "--out", "RUN")
    digits = data.load_dataset("digits")
    torch.manual_seed(3)
    story = assemble(
        partial(priors.GaussianMixture, components=7),
        partial(likelihoods.Binomial, total_count=16),
        encoders.DiagonalNormal,
        shape=(64,),
        latent=2,
        network=networks.MLP([4]),
        input_scale=1 / 16,
    )
    objective = partial(iwae, particles=5)
    history = ppvae.fit(
        story, digits.train, objective=objective, epochs=2, batch_size=500, lr=0.01, seed=3, valid=digits.valid
    )
    assert [line["loss"] for line in metrics("RUN")] == history.loss
    assert [line["valid"] for line in metrics("RUN")] == history.valid
    log_w = []
    for one in (story, ppvae.load("RUN")):
        torch.manual_seed(0)
        log_w.append(log_weights(one, digits.test, particles=3))
    assert torch.equal(*log_w)


def test_dynamic_binarisation_is_drawn_in_training_as_in_python(ppvae_says):
    ppvae_says("fit", "--data", "digits", "--binarisation", "dynamic", *SMALL, "--out", "RUN")
    digits = data.load_dataset("digits", binarisation="dynamic")
    torch.manual_seed(0)
    story = assemble(
        priors.StandardNormal,
        likelihoods.Bernoulli,
        encoders.DiagonalNormal,
        shape=(64,),
        latent=2,
        network=networks.MLP([4]),
    )
    ppvae.fit(story, digits.train, objective=elbo, epochs=2, valid=digits.valid, transform=digits.resample)
    fitted = weights("RUN")
    assert all(torch.equal(fitted[name], value) for name, value in story.state_dict().items())


def test_a_run_can_be_made_again_from_its_configuration(ppvae_says):
    ppvae_says(*REAL, "--likelihood", "Normal", "--likelihood.variance", "0.5", "--seed", "1", "--out", "RUN")
    ppvae_says("fit", "--config", "RUN/config.yaml", "--out", "NEW")
    assert Path("NEW/weights.safetensors").read_bytes() == Path("RUN/weights.safetensors").read_bytes()
    assert Path("NEW/config.yaml").read_bytes() == Path("RUN/config.yaml").read_bytes()
    ppvae_says("fit", "--config", "RUN/config.yaml", "--seed", "2", "--out", "OTHER")
    assert not torch.equal(weights("OTHER")["encoder.network.0.weight"], weights("RUN")["encoder.network.0.weight"])


def test_the_configuration_of_a_run_leaves_nothing_open(ppvae_says):
    ppvae_says("fit", "--data", "digits", *SMALL, "--objective", "iwae", "--out", "RUN")
    config = yaml.safe_load(Path("RUN/config.yaml").read_text())
    assert config["likelihood"]["class_path"] == "ppvae.models.likelihoods.Binomial"
    assert config["network"]["class_path"] == "ppvae.networks.MLP"
    assert config["network"]["init_args"]["hidden"] == [4]
    assert config["story"] == {"class_path": "ppvae.models.stories.vae"}
    assert config["prior"] == {"class_path": "ppvae.models.priors.StandardNormal"}
    assert config["encoder"] == {"class_path": "ppvae.models.encoders.DiagonalNormal"}
    assert (config["objective"], config["objective_args"]) == ("iwae", {"particles": 50})
    assert {key: config[key] for key in ("data", "latent", "epochs")} == {
        "data": "digits",
        "latent": 2,
        "epochs": 2,
    }
    assert {"root", "binarisation", "scaling", "batch_size", "lr", "seed"} <= config.keys()


def test_a_fit_leaves_the_global_generator_alone(ppvae_says):
    before = torch.get_rng_state()
    ppvae_says(*REAL, "--out", "RUN")
    assert torch.equal(torch.get_rng_state(), before)


def test_parts_of_ones_own_stand_in_a_file_of_the_working_folder(ppvae_says, trusted):
    mine = ["--prior", "my_file.MyPrior", "--prior.spread", "2", "--likelihood", "my_file.MyLikelihood"]
    ppvae_says(*REAL, *mine, "--out", "RUN")
    story = ppvae.load("RUN", trust=True)
    assert story.prior().variance.tolist() == [4.0, 4.0]
    assert type(story.likelihood).__name__ == "MyLikelihood"
    assert weights("RUN")["likelihood.network.2.weight"].shape == (8, 4)
    assert "log p(x) = " in trusted("RUN", "--particles", "30")


def test_an_objective_of_ones_own(ppvae_says):
    ppvae_says(*REAL, "--objective", "my_file.doubled", "--objective.factor", "3", "--epochs", "1", "--out", "RUN")
    ppvae_says(*REAL, "--epochs", "1", "--out", "PLAIN")
    mine, plain = metrics("RUN")[0], metrics("PLAIN")[0]
    assert mine["loss"] == pytest.approx(3 * plain["loss"], rel=1e-6)
    assert yaml.safe_load(Path("RUN/config.yaml").read_text())["objective_args"] == {"factor": 3.0}


def test_a_configuration_file_with_short_names_and_overrides_after_it(ppvae_says):
    config = {
        "data": "real.npy",
        "latent": 3,
        "network": {"class_path": "MLP", "init_args": {"hidden": [4]}},
        "epochs": 1,
        "prior": "GaussianMixture",
    }
    Path("a.yaml").write_text(yaml.safe_dump(config | {"objective": "iwae", "objective_args": {"particles": 4}}))
    ppvae_says("fit", "--config", "a.yaml", "--latent", "2", "--prior.components", "3", "--out", "RUN")
    assert weights("RUN")["prior.loc"].shape == (3, 2)
    assert yaml.safe_load(Path("RUN/config.yaml").read_text())["objective_args"] == {"particles": 4}
    ppvae_says("fit", "--config", "RUN/config.yaml", "--prior", "StandardNormal", "--out", "NEW")
    assert type(ppvae.load("NEW").prior) is priors.StandardNormal


def test_an_autoencoder_is_a_flat_prior_and_a_point_mass(ppvae_says):
    words = ["--data", "digits", "--scaling", "unit", "--prior", "Flat", "--encoder", "PointMass"]
    ppvae_says("fit", *words, *SMALL, "--epochs", "4", "--lr", "0.01", "--out", "RUN")
    losses = [line["loss"] for line in metrics("RUN")]
    assert losses[-1] < losses[0]
    story = ppvae.load("RUN")
    x = data.load_dataset("digits", scaling="unit").test
    assert torch.equal(log_weights(story, x)[0], story.likelihood(story.encoder(x).mean).log_prob(x))
    out = ppvae_says("evaluate", "RUN", "--particles", "30", "--rows", "40")
    assert "by importance sampling from a Normal refined for every datum" in out
    assert re.search(
        r"the guide is a point mass: p\(z\) is a mixture of \d+ Gaussians fitted to the training codes", out
    )


def test_figures_that_cannot_be_drawn_do_not_cost_the_run(ppvae_says, trusted):
    out = ppvae_says(*REAL, "--encoder", "my_file.Squashed", "--out", "RUN")
    assert "the run has no figures: NotImplementedError" in out
    assert len(metrics("RUN")) == 2
    assert "log p(x) = " in trusted("RUN", "--particles", "30")


# --- help and configuration on the screen


def test_print_config_shows_every_option_and_can_be_used(capsys, ppvae_says):
    words = [*REAL, "--prior", "GaussianMixture", "--prior.components=3", "--objective=iwae", "--objective.particles=4"]
    text = shown(capsys, *words, "--print_config")
    config = yaml.safe_load(text)
    options = {
        "data",
        "root",
        "binarisation",
        "scaling",
        "label",
        "missing",
        "labelled",
        "latent",
        "pretrain",
        "prior",
        "likelihood",
        "encoder",
    }
    assert config.keys() == options | {
        "story",
        "network",
        "optimizer",
        "optimizer_args",
        "objective",
        "objective_args",
        "output_bias",
        "epochs",
        "batch_size",
        "lr",
        "seed",
        "warm_up",
        "clip",
        "schedule",
        "compile",
        "out",
    }
    assert config["prior"]["init_args"] == {"components": 3}
    Path("a.yaml").write_text(text)
    ppvae_says("fit", "--config", "a.yaml", "--out", "A")
    ppvae_says(*words, "--out", "B")
    assert Path("A/weights.safetensors").read_bytes() == Path("B/weights.safetensors").read_bytes()


def test_print_config_of_a_comparison_and_its_flags(capsys):
    assert yaml.safe_load(shown(capsys, "compare", "--seeds", "3", "--print_config"))["seeds"] == 3
    assert yaml.safe_load(shown(capsys, "fit", "--lr", "0.5", "--print_config=skip_default")) == {"lr": 0.5}


FIT = "config print_config data root binarisation scaling label missing labelled latent prior likelihood encoder "
FIT += "story network output_bias objective objective_args optimizer optimizer_args epochs batch_size lr seed warm_up "
FIT += "clip schedule compile out"
COMPARE = "config print_config lineup contender common data root label missing labelled latent epochs batch_size lr "
COMPARE += "particles seeds out"
EVALUATE = "method method_args particles target_error split rows seed processes"


@pytest.mark.parametrize(
    ("command", "options"),
    [("fit", FIT), ("evaluate", EVALUATE), ("compare", COMPARE), ("selfcheck", "processes seed")],
)
def test_help_is_complete_and_readable(capsys, command, options):
    text = shown(capsys, command, "--help")
    for option in options.split():
        assert f"  --{option}" in text
    assert len(text.splitlines()) < 175
    assert "torch." not in text
    assert "Callable" not in text
    if command == "fit":
        assert all(name in text for name in ("GaussianMixture", "Binomial", "PointMass", "iwae", "import path"))


def test_help_of_the_whole_and_of_a_part(capsys):
    text = shown(capsys, "--help")
    assert all(command in text for command in ("fit", "evaluate", "compare"))
    assert cli.main(["fit", "--prior.help", "GaussianMixture"]) == 0
    assert "number of Gaussians" in capsys.readouterr().out
    assert cli.main(["fit", "--epochs", "2", "--prior.help", "my_file.MyPrior", "--out", "R"]) == 0
    assert "--prior.spread" in capsys.readouterr().out
    assert shown(capsys, "--version") == "ppvae 0.1.0\n"


def test_the_entry_point_runs_in_a_process_of_its_own():
    command = shutil.which("ppvae", path=Path(sys.executable).parent)
    assert command is not None
    words = [command, *REAL, "--prior", "my_file.MyPrior", "--epochs", "1", "--out", "RUN"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("real.npy, as they are: density")
    assert len(metrics("RUN")) == 1


# --- evaluate


def test_evidence_is_printed_with_its_errors_and_kept(ppvae_says):
    ppvae_says(*REAL, "--out", "RUN")
    out = ppvae_says("evaluate", "RUN", "--particles", "50")
    record = strict(Path("RUN/evidence-test-score-50-seed0.json").read_text())
    assert f"log p(x) = {record['log_p']:.3f} nats per datum" in out
    assert f"Monte Carlo error   {record['monte_carlo_error']:.3f}" in out
    assert f"sampling error      {record['sampling_error']:.3f}" in out
    assert record["verdict"] in out
    assert (record["particles"], record["data"]) == (50, 12)
    assert record["observation"]["name"] == "real.npy"
    rows = table("RUN/evidence-test-score-50-seed0.csv")
    assert [int(row["datum"]) for row in rows] == list(range(12))
    for column, name in {"estimate": "log_p", "elbo": "elbo", "ess": "ess"}.items():
        assert np.mean([float(row[column]) for row in rows]) == pytest.approx(record[name], rel=1e-7)
    errors = np.array([float(row["standard_error"]) for row in rows])
    assert np.sqrt((errors**2).sum()) / 12 == pytest.approx(record["monte_carlo_error"], rel=1e-7)


def test_evaluating_twice_says_the_same_and_changes_no_weight(ppvae_says):
    ppvae_says(*REAL, "--out", "RUN")
    before = {path: path.read_bytes() for path in Path("RUN").rglob("*") if path.is_file()}
    first = ppvae_says("evaluate", "RUN", "--particles", "30")
    files = {path: path.read_bytes() for path in Path("RUN").rglob("*") if path.is_file()}
    assert {path.name for path in files.keys() - before.keys()} == {
        "evidence-test-score-30-seed0.json",
        "evidence-test-score-30-seed0.csv",
        "evidence-test-score-30-seed0-k-curve.png",
        "evidence-test-score-30-seed0-weights.png",
    }
    assert all(files[path] == content for path, content in before.items())
    torch.rand(5)  # what ran before does not matter
    assert ppvae_says("evaluate", "RUN", "--particles", "30") == first
    assert {path: path.read_bytes() for path in Path("RUN").rglob("*") if path.is_file()} == files


def test_splits_and_seeds_of_an_evaluation(ppvae_says):
    ppvae_says(*REAL, "--out", "RUN")
    for split, size in {"train": 42, "valid": 6, "test": 12}.items():
        ppvae_says("evaluate", "RUN", "--particles", "2", "--split", split)
        record = strict(Path(f"RUN/evidence-{split}-score-2-seed0.json").read_text())
        assert record["data"] == size
        assert record["verdict"].startswith("unchecked")
    before = table("RUN/evidence-test-score-2-seed0.csv")
    ppvae_says("evaluate", "RUN", "--particles", "2", "--seed", "1")
    assert table("RUN/evidence-test-score-2-seed1.csv") != before
    assert table("RUN/evidence-test-score-2-seed0.csv") == before


def test_other_data_than_the_runs_are_refused(ppvae_says, refusal):
    ppvae_says(*REAL, "--out", "RUN")
    np.save("real.npy", 3 * np.load("real.npy")[:, :3])
    message = refusal("evaluate", "RUN", "--particles", "3")
    assert "the data should be those of the run" in message
    Path("real.npy").unlink()
    assert "there is no file real.npy" in refusal("evaluate", "RUN", "--particles", "3")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--particles", "0"], "particles should be at least 1, got 0"),
        (["--particles", "many"], "--particles should be int, got many"),
        (["--split", "exam"], "split should be train, valid or test, got exam"),
        (["--rows", "0"], "rows should be at least 1, got 0"),
        (["--processes", "0"], "processes should be at least 1, got 0"),
        (["--method", "anneal"], "unknown method 'anneal': it should be one of annealed, "),
        (["--method", "annealed", "--method.dist", "3"], "annealed takes particles (int), num_temperatures (int)"),
        (["--method", "exact", "--particles", "9"], "method exact takes no arguments, got particles"),
        (["--method", "exact"], "exact needs discrete latents, or a linear-Gaussian story"),
        (["--method", "bidirectional", "--processes", "2"], "bidirectional runs in one process, got processes 2"),
        (["--method", "importance", "--target_error", "0"], "target_error should be positive and finite, got 0"),
        (["--method", "my_file.answer"], "a method should return an Evidence; my_file.answer returns float"),
    ],
)
def test_wrong_options_of_an_evaluation(ppvae_says, refusal, words, said):
    ppvae_says(*REAL, "--epochs", "1", "--out", "RUN")
    assert said in refusal("evaluate", "RUN", *words)


@pytest.mark.parametrize(
    ("words", "says", "name"),
    [
        (["--method", "importance", "--target_error", "0.3"], "worst datum", "importance-to0.3"),
        (["--method", "refined_sampling", "--particles", "40"], "refined for every datum", "refined_sampling-40"),
        (
            ["--method", "annealed", "--method.num_temperatures", "3", "--method.start", "prior"],
            "annealing from the prior in 3 steps",
            "annealed-32",
        ),
        (["--method", "laplace_evidence"], "an approximation by Laplace's approximation", "laplace_evidence"),
    ],
)
def test_an_evaluation_by_a_method_of_ones_choice(ppvae_says, words, says, name):
    """What it prints is what the library says of the same data, and what it keeps."""
    ppvae_says(*REAL, "--epochs", "1", "--out", "RUN")
    out = ppvae_says("evaluate", "RUN", "--rows", "5", *words)
    assert says in out
    record = strict(Path(f"RUN/evidence-test-{name}-first5-seed0.json").read_text())
    assert record["data"] == 5
    assert f"log p(x) = {record['log_p']:.3f} nats" in out
    assert len(table(f"RUN/evidence-test-{name}-first5-seed0.csv")) == 5
    run = run_folder.read("RUN")
    if name == "refined_sampling-40":
        evidence = refined_sampling(run.story, run.data().test[:5], particles=40, progress=False)
        assert record["log_p"] == pytest.approx(evidence.estimate.mean().item(), rel=1e-6)


def test_bounds_from_both_sides_of_data_that_the_story_draws(ppvae_says):
    ppvae_says(*REAL, "--epochs", "1", "--out", "RUN")
    out = ppvae_says("evaluate", "RUN", "--method", "bidirectional", "--rows", "4", "--method.num_temperatures", "4")
    assert out.count("temperatures: log p(x) of 4 simulated data from below") == 3
    record = strict(Path("RUN/evidence-simulated-bidirectional-4-4-seed0.json").read_text())
    assert [rung["num_temperatures"] for rung in record["rungs"]] == [1, 2, 4]
    for rung in record["rungs"]:
        assert rung["gap"] == pytest.approx(rung["upper"]["log_p"] - rung["lower"]["log_p"])
    assert Path("RUN/evidence-simulated-bidirectional-4-4-seed0-sandwich.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("passed", [True, False])
def test_a_selfcheck_says_what_failed_and_exits_with_it(capsys, monkeypatch, passed):
    checks = [against("value", "a story", "elbo", 1.0, 0.9, 0.1 if passed else 0.01)]
    monkeypatch.setattr("ppvae.commands.selfcheck.selfcheck", lambda processes, seed: iter(checks))
    assert cli.main(["selfcheck"]) == (0 if passed else 1)
    out = capsys.readouterr().out
    assert ["elbo", "a", "story", "1.0000", "0.9000"] in [line.split()[:5] for line in out.splitlines()]
    assert ("all 1 checks passed" if passed else "1 of 1 checks failed") in out
    assert ("+1.00" if passed else "+10.00") in out


@pytest.mark.parametrize("name", ["weights.safetensors", "observation.json", "config.yaml"])
def test_a_corrupt_run_is_refused(ppvae_says, refusal, name):
    ppvae_says(*REAL, "--epochs", "1", "--out", "RUN")
    (Path("RUN") / name).write_text("garbage " * 9)
    assert name in refusal("evaluate", "RUN")
    (Path("RUN") / name).unlink()
    assert "RUN does not" in refusal("evaluate", "RUN")


# --- compare


@pytest.fixture
def tiny_lineup():
    """Five contenders, one of them a point mass, on two views of twenty dark pixels with labels."""
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 9, size=(60, 1, 5, 4), dtype=np.uint8), np.arange(60) % 3
    images[labels == 1] //= 4
    np.savez("images.npz", x=images, y=labels)
    contenders = {
        "counts, z = 2": {"latent": 2},
        "counts, IWAE": {"objective": "iwae", "objective_args": {"particles": 3}},
        "scaled": {"scaling": "unit", "likelihood": "Normal"},
        "point mass": {"scaling": "unit", "likelihood": "Normal", "encoder": "PointMass", "prior": "Flat"},
        "flat": {"scaling": "unit", "likelihood": "Normal", "prior": "Flat"},
    }
    Path("five.yaml").write_text(yaml.safe_dump(contenders, sort_keys=False))
    common = ["--common", "--network.hidden [4]", "--epochs", "2", "--particles", "30"]
    return ["compare", "--lineup", "five.yaml", "--data", "images.npz", "--latent", "3", *common]


class References(HTMLParser):
    """What a page refers to, and its tags."""

    def __init__(self, text):
        super().__init__()
        self.found, self.tags = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.found += [value for name, value in attributes if name in {"src", "href", "srcset"}]


def compared(capsys, *words):
    status = cli.main(words)
    said = capsys.readouterr()
    assert status == 0, said.err
    return said


def test_a_comparison_is_a_table_figures_and_a_page(tiny_lineup, capsys):
    said = compared(capsys, *tiny_lineup, "--out", "DIR")
    assert {path.name for path in Path("DIR").iterdir()} == {"table.csv", "table.json", "report.html", "figures"}
    drawn = {path.stem for path in Path("DIR/figures").iterdir()}
    assert drawn == {
        "bounds",
        "reconstructions",
        "latent-spaces",
        "kl-per-dimension",
        "learning-curves",
        "decoded-grid",
    }
    assert all(path.read_bytes().startswith(PNG) for path in Path("DIR/figures").iterdir())
    page = References(Path("DIR/report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert len(page.found) == len(drawn)
    assert all(reference.startswith("data:image/png;base64,") for reference in page.found)
    record = strict(Path("DIR/table.json").read_text(encoding="utf-8"))
    assert record["settings"]["epochs"] == 2
    assert record["settings"]["torch"] == torch.__version__
    assert record["settings"]["command"] == "ppvae compare"
    assert str(Path("DIR/report.html")) in said.out
    assert "(sd" not in said.out
    assert "4/5 point mass" in said.err


def test_a_comparison_never_mixes_observations(tiny_lineup, capsys):
    said = compared(capsys, *tiny_lineup, "--out", "DIR")
    rows = table("DIR/table.csv")
    names = {}
    for row in rows:
        names.setdefault(row["group"], set()).add(row["name"])
    counts, scaled, flat = sorted(names, key=lambda label: ("density" in label, "not ranked" in label))
    assert names == {counts: {"counts, z = 2", "counts, IWAE"}, scaled: {"scaled", "point mass"}, flat: {"flat"}}
    assert "mass on {0, ..., 255}" in counts
    words = " ".join(said.out.split())  # a long title is wrapped
    assert all(label in words for label in names)
    for label in (counts, scaled):
        behind = [float(row["behind"]) for row in rows if row["group"] == label]
        assert behind == sorted(behind)
        assert behind[0] == 0
    (improper,) = [row for row in rows if row["group"] == flat]
    assert improper["ranked"] == "False"
    assert {improper[column] for column in ("neg_elbo", "neg_log_p", "behind", "ess", "recall")} == {""}
    measured = ("reconstruction", "active_units", "neighbour", "probe", "seconds")
    assert all(math.isfinite(float(row[column])) for row in rows for column in measured)
    ranked = [row for row in rows if row["ranked"] == "True"]
    assert {row["name"] for row in ranked if row["neg_elbo"] == ""} == {"point mass"}
    assert all(float(row["neg_log_p"]) <= float(row["neg_elbo"]) for row in ranked if row["neg_elbo"])
    assert all(float(row["monte_carlo_error"]) > 0 for row in ranked)


def test_seeds_show_their_spread(tiny_lineup, capsys):
    said = compared(capsys, *tiny_lineup, "--seeds", "2", "--out", "DIR")
    assert "8/10 point mass, seed 1" in said.err
    assert "(sd " in said.out
    assert "2 seeds" in said.out
    rows = table("DIR/table.csv")
    assert len(rows) == 5
    assert {row["seeds"] for row in rows} == {"2"}
    assert all(float(row["neg_log_p_spread"]) > 0 for row in rows if row["ranked"] == "True")
    assert "(sd " in Path("DIR/report.html").read_text(encoding="utf-8")


def test_a_comparison_says_the_same_twice(tiny_lineup, capsys, monkeypatch):
    monkeypatch.setattr("ppvae.plots.figures.of_comparison", lambda *_: {})
    tables = []
    for out in ("A", "B"):
        compared(capsys, *tiny_lineup, "--out", out)
        tables.append([{k: v for k, v in row.items() if k != "seconds"} for row in table(f"{out}/table.csv")])
    assert tables[0] == tables[1]


@pytest.mark.parametrize("option", ["latent", "epochs", "batch_size", "particles", "seeds"])
def test_a_comparison_needs_at_least_one_of_everything(tiny_lineup, refusal, option):
    assert refusal(*tiny_lineup, "--out", "DIR", f"--{option}", "0") == f"{option} should be at least 1, got 0"


def test_a_comparison_leaves_out_the_contender_that_breaks(tiny_lineup, capsys, monkeypatch):
    enter = lineup.enter

    def broken(contender, *options):
        if contender.name == "scaled":
            raise NotFinite("the loss is nan in epoch 1")
        return enter(contender, *options)

    monkeypatch.setattr("ppvae.experiments.lineup.enter", broken)
    assert cli.main([*tiny_lineup, "--out", "DIR"]) == 0
    assert "left out: scaled, seed 0: the loss is nan in epoch 1" in capsys.readouterr().out
    assert "scaled" not in {row["name"] for row in table("DIR/table.csv")}
    assert "scaled, seed 0" in strict(Path("DIR/table.json").read_text())["settings"]["left out"]


def test_a_comparison_in_which_all_break_is_refused(tiny_lineup, capsys, monkeypatch):
    def broken(*_):
        raise NotFinite("the loss is nan in epoch 1")

    monkeypatch.setattr("ppvae.experiments.lineup.enter", broken)
    assert cli.main([*tiny_lineup, "--out", "DIR"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("ppvae: error: no contender could be fitted; counts, z = 2, seed 0")
    assert not Path("DIR").exists()


def test_contenders_may_be_named_one_by_one(tiny_lineup, capsys):
    words = ["--contender=--prior GaussianMixture --prior.components 3", "--contender", "--latent 5"]
    compared(capsys, *tiny_lineup[:1], *tiny_lineup[3:], *words, "--out", "DIR")
    names = {row["name"] for row in table("DIR/table.csv")}
    assert names == {"--prior GaussianMixture --prior.components 3", "--latent 5"}


def test_a_contender_may_stand_beside_a_line_up(tiny_lineup, capsys):
    compared(capsys, *tiny_lineup, "--contender=--prior GaussianMixture", "--out", "DIR")
    assert "--prior GaussianMixture" in {row["name"] for row in table("DIR/table.csv")}
    assert len(table("DIR/table.csv")) == 6


def test_a_table_with_missing_values_is_fitted_and_compared(capsys, ppvae_says):
    draw = np.random.default_rng(0).normal(size=(60, 3)).round(2)
    rows = [
        ",".join("" if (row + column) % 7 == 0 else str(x) for column, x in enumerate(line))
        for row, line in enumerate(draw)
    ]
    Path("holes.csv").write_text("\n".join(["a,b,c", *rows]) + "\n")
    words = ["--data", "holes.csv", "--missing", "mask", "--latent", "2", "--epochs", "2"]
    ppvae_says("fit", *words, "--out", "RUN")
    assert "values missing" in ppvae_says("evaluate", "RUN", "--particles", "30")
    said = compared(capsys, "compare", *words, "--particles", "30", "--test_rows", "8", "--out", "DIR")
    assert "left out: PCA, seed 0: a closed form needs every value of x, and row" in said.out
    assert all(math.isfinite(float(row["neg_log_p"])) for row in table("DIR/table.csv") if row["ranked"] == "True")


def test_a_library_size_goes_to_a_likelihood_that_takes_one(capsys, ppvae_says):
    words = ["--likelihood", "Poisson", "--likelihood.library", "true"]
    ppvae_says("fit", "--data", "digits", *SMALL, *words, "--out", "RUN")
    assert "figures of p(x | library size)" in ppvae_says("evaluate", "RUN", "--particles", "10", "--rows", "40")
    lines = ["--contender", "--likelihood Poisson", "--contender", " ".join(words)]
    compared(capsys, "compare", *SMALL[:2], "--epochs=1", "--test_rows=9", "--particles=9", *lines, "--out", "DIR")
    groups = {row["name"]: row["group"] for row in table("DIR/table.csv")}
    assert groups[" ".join(words)] == groups["--likelihood Poisson"] + ", p(x | library size)"


def test_stories_of_labels_are_fitted_and_stand_in_groups_of_their_own(capsys, ppvae_says, refusal):
    ppvae_says("fit", "--data", "digits", *SMALL, "--story", "conditional", "--out", "RUN")
    assert "figures of p(x | labels)" in ppvae_says("evaluate", "RUN", "--particles", "10", "--rows", "40")
    assert "labelled should be from 0" in refusal("fit", "--data", "digits", "--labelled", "9999", "--out", "NONE")
    ppvae_says("fit", "--data", "digits", *SMALL, "--story", "semi_supervised", "--labelled", "50", "--out", "FEW")
    assert "50 labels told" in ppvae_says("evaluate", "FEW", "--particles", "10", "--rows", "40")
    lines = ["--contender=--story conditional", "--contender=--story semi_supervised", "--contender=--story ppca"]
    compared(capsys, "compare", *SMALL[:2], "--epochs=1", "--test_rows=9", "--particles=9", *lines, "--out", "DIR")
    assert len({row["group"] for row in table("DIR/table.csv")}) == 3


def test_a_comparison_may_measure_on_the_first_test_rows(tiny_lineup):
    assert cli.main([*tiny_lineup, "--test_rows", "5", "--out", "DIR"]) == 0
    assert "the same 5 test data" in Path("DIR/report.html").read_text()


# --- what a person can mend


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["name a command", "fit, evaluate, compare"]),
        (["fits"], ["fits", "fit", "evaluate", "compare"]),
        (["--nonsense"], ["unrecognized arguments: --nonsense"]),
        (["fit"], ["required: --out"]),
        (["compare"], ["required: --out"]),
        (["evaluate"], ["required: the folder of a run"]),
        (["evaluate", "nowhere"], ["nowhere does not", "weights.safetensors"]),
        (["evaluate", "my_file.py"], ["my_file.py does not"]),
        (["compare", "--data", "digit", "--out", "OUT"], ["unknown data 'digit'"]),
        (["compare", "--config", "gone.yaml", "--out", "OUT"], ["there is no configuration file gone.yaml"]),
    ],
)
def test_a_wrong_command_is_refused(refusal, words, said):
    message = refusal(*words)
    assert all(part in message for part in said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "digit"], ["unknown data 'digit': it should be one of digits", "mnist", ".npy"]),
        (["--data", "gone.npy"], ["there is no file gone.npy"]),
        (["--data", "short.npy"], ["short.npy should be a whole numpy file"]),
        (["--data", "nan.npy"], ["finite", "got nan at row 1, column 3"]),
        (["--data", "my_file.py"], ["unknown data 'my_file.py'"]),
        (["--data", "grey.npy", "--likelihood", "Bernoulli"], ["{0, 1}", "binarise", "threshold, static or dynamic"]),
        (["--data", "counts.npy", "--likelihood=Binomial"], ["total_count should be given", "largest level"]),
        (["--data", "counts.npy"], ["no likelihood is natural", "name one, or standardise"]),
        (["--binarisation", "static"], ["largest level", "real.npy"]),
        (["--binarisation", "odd"], ["--binarisation should be one of", "got odd"]),
        (["--prior", "GausianMixture"], ["unknown prior 'GausianMixture': it should be one of GaussianMixture, "]),
        (["--likelihood", "Gaussian"], ["unknown likelihood 'Gaussian'", "Normal", "Binomial", "Bernoulli"]),
        (["--encoder", "Diagonal"], ["unknown encoder 'Diagonal': it should be one of DiagonalNormal, "]),
        (["--objective", "iwea"], ["unknown objective 'iwea': it should be one of iwae, "]),
        (["--objective", "my_file.gone"], ["objective 'my_file.gone' should be importable"]),
        (["--objective", "iwae", "--objective.particles", "0"], ["particles should be at least 1, got 0"]),
        (["--objective", "iwae", "--objective.particles", "x"], ["particles should be int, got x"]),
        (["--objective", "iwae", "--objective.samples", "5"], ["iwae takes particles (int), got samples"]),
        (["--prior", "my_file.Gone"], ["prior 'my_file.Gone' should be importable"]),
        (["--prior", "gone.MyPrior"], ["No module named 'gone'"]),
        (["--prior", "not_python.Prior"], ["SyntaxError", "not_python.py"]),
        (["--prior", "my_file.Raises"], ["the prior Raises could not be made: KeyError: 'no such luck'"]),
        (["--prior", "my_file.MyLikelihood"], ["the prior should give a distribution"]),
        (
            ["--prior", "GaussianMixture", "--prior.component", "7"],
            ["GaussianMixture takes components (int), got component"],
        ),
        (
            ["--prior", "GaussianMixture", "--prior.components", "x"],
            ["--prior.components of GaussianMixture should be int, got x"],
        ),
        (["--config", "gone.yaml"], ["there is no configuration file gone.yaml"]),
        (["--config", "my_file.py"], ["my_file.py should"]),
        (["--epochs", "0"], ["epochs should be at least 1, got 0"]),
        (["--latent", "0"], ["latent should be at least 1, got 0"]),
        (["--batch_size", "0"], ["batch_size should be at least 1, got 0"]),
        (["--lr", "0"], ["lr should be positive and finite, got 0"]),
        (["--network.hidden", "20"], ["[200, 100]", "got 20"]),
        (["--nonsense", "3"], ["unrecognized arguments: --nonsense 3"]),
        (["--epoch", "3"], ["unrecognized arguments: --epoch 3"]),
    ],
)
def test_a_wrong_fit_is_refused_and_leaves_nothing(refusal, words, said):
    message = refusal(*REAL, "--out", "new/OUT", *words)
    assert all(part in message for part in said)


@pytest.mark.parametrize("command", [REAL, ["compare"]])
def test_an_output_folder_in_use_is_refused_untouched(refusal, command):
    Path("OUT").mkdir()
    Path("OUT/thesis").write_text("years")
    message = refusal(*command, "--out", "OUT")
    assert message == "an output folder should be new or empty; OUT is not: name another, or remove it"
    assert [path.read_text() for path in Path("OUT").iterdir()] == ["years"]
    assert "my_file.py is not" in refusal(*command, "--out", "my_file.py")


def test_an_empty_output_folder_will_do(ppvae_says):
    Path("OUT").mkdir()
    ppvae_says(*REAL, "--epochs", "1", "--out", "OUT")
    assert len(metrics("OUT")) == 1


# --- a fit that breaks


def test_a_loss_that_is_nan_keeps_what_was_good(refusal, ppvae_says, trusted):
    words = [*REAL, "--likelihood", "my_file.Breaks", "--batch_size", "21", "--epochs", "9"]
    message = refusal(*words, "--likelihood.step", "6", "--out", "RUN", leaves=["RUN"])
    assert "nan at site 'x' of the model (Normal) in epoch 3, step 1" in message  # two steps an epoch
    assert message.endswith("the run so far is in RUN")
    assert [line["epoch"] for line in metrics("RUN")] == [1, 2]
    broken = weights("RUN")
    assert all(torch.isfinite(value).all() for value in broken.values())
    ppvae_says(*words, "--likelihood.step", "99", "--epochs", "2", "--out", "GOOD")
    assert all(torch.equal(broken[name], value) for name, value in weights("GOOD").items())
    assert "log p(x) = " in trusted("RUN", "--particles", "3")


def test_a_loss_that_is_nan_at_once_leaves_nothing(refusal):
    words = ["--likelihood", "my_file.Breaks", "--likelihood.step", "1"]
    message = refusal(*REAL, *words, "--out", "new/RUN")
    assert "nan at site 'x' of the model (Normal) in epoch 1, step 1" in message


def test_a_huge_step_names_the_site_and_keeps_finite_weights(refusal):
    message = refusal(*REAL, "--lr", "1e6", "--epochs", "9", "--out", "RUN", leaves=["RUN"])
    assert "at site 'z' of the guide (Normal) in epoch 2, step 1" in message
    assert all(torch.isfinite(value).all() for value in weights("RUN").values())
    assert len(metrics("RUN")) == 1


def test_stopping_in_the_second_epoch_keeps_the_run(capsys):
    words = ["--objective", "my_file.stopped", "--objective.after", "2"]  # a step and a validation
    assert cli.main([*REAL, *words, "--out", "RUN"]) == 130
    assert capsys.readouterr().err == "ppvae: stopped in epoch 2; the run so far is in RUN\n"
    assert len(metrics("RUN")) == 1
    assert ppvae.load("RUN").prior().event_shape == (2,)
    assert not Path("RUN.part").exists()


@pytest.mark.parametrize("after", [0, 1])
def test_stopping_in_the_first_epoch_leaves_nothing(capsys, after):
    before = listing()
    words = ["--objective", "my_file.stopped", "--objective.after", str(after)]
    assert cli.main([*REAL, *words, "--out", "new/RUN"]) == 130
    assert capsys.readouterr().err == "ppvae: stopped\n"
    assert listing() == before


def test_stopping_while_the_run_is_written_leaves_nothing(capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ppvae.plots.figures.of_run", interrupt)
    before = listing()
    assert cli.main([*REAL, "--out", "RUN"]) == 130
    assert listing() == before


def test_pretraining_moves_where_a_fit_starts_and_is_refused_where_it_makes_no_sense(ppvae_says, refusal):
    words = ["--data", "digits", "--scaling", "unit", "--story", "autoencoder", "--prior", "Flat", *SMALL]
    ppvae_says("fit", *words, "--out", "PLAIN")
    ppvae_says("fit", *words, "--pretrain", "3", "--out", "PRETRAINED")
    ppvae_says("fit", *words, "--pretrain", "3", "--out", "AGAIN")
    losses = {run: [line["loss"] for line in metrics(run)] for run in ("PLAIN", "PRETRAINED", "AGAIN")}
    assert losses["PRETRAINED"][0] < losses["PLAIN"][0]
    assert losses["AGAIN"] == losses["PRETRAINED"]
    assert "pretrain should be at least 0, got -1" in refusal("fit", *words, "--pretrain", "-1", "--out", "RUN")


def test_a_density_of_codes_does_not_depend_on_the_seed_of_the_draws(ppvae_says):
    words = ["--data", "digits", "--binarisation", "dynamic", "--story", "autoencoder", "--prior", "Flat", *SMALL]
    ppvae_says("fit", *words, "--out", "RUN")
    story, dataset = ppvae.load("RUN"), data.load_dataset("digits", binarisation="dynamic")
    give_density(story, (dataset.drawn().train,))
    expected = score(story, (dataset.drawn(3).test[:40],), particles=30, seed=3).summary()["log_p"]
    words = ["--particles", "30", "--seed", "3", "--rows", "40"]
    assert f"log p(x) = {expected:.3f}" in ppvae_says("evaluate", "RUN", *words)


def test_contenders_of_a_configuration_and_of_the_command_line_stand_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("contender: {'one, c = 0.5': {latent: 3}, two: {prior: Laplace}}\ncommon: {lr: 0.5}\n")
    words = ["--config", "a.yaml", "--contender", "x[1]: --latent 5", "--contender=[y]: ", "--contender", "--lr=1"]
    options = parse(compare.options(), [*words, "--out", "OUT"])
    assert options.contender == {
        "one, c = 0.5": {"latent": 3},
        "two": {"prior": {"class_path": "ppvae.models.priors.Laplace"}},
        "x[1]": "--latent 5",
        "[y]": "",
        "--lr=1": "--lr=1",
    }
    made = {c.name: c.options for c in compare.entries(options, data.load_dataset("digits").observation)}
    assert [made[name].latent for name in made] == [3, 8, 5, 8, 8]
    assert [made[name].lr for name in made] == [0.5, 0.5, 0.5, 0.5, 1]
    assert made["two"].prior.class_path == "ppvae.models.priors.Laplace"


def test_a_contender_may_have_a_name(tiny_lineup, capsys):
    words = ["--contender=mine, of two: --prior GaussianMixture", "--contender=--latent 2"]
    compared(capsys, "compare", *tiny_lineup[3:], *words, "--out", "DIR")
    assert {row["name"] for row in table("DIR/table.csv")} == {"mine, of two", "--latent 2"}


def test_a_contender_that_breaks_in_any_way_is_left_out(capsys, tiny_lineup, monkeypatch):
    def broken(*_):
        raise TypeError("no such luck")

    monkeypatch.setattr("ppvae.experiments.lineup.regularity", broken)
    assert cli.main([*tiny_lineup, "--out", "DIR"]) == 2
    said = capsys.readouterr()
    assert said.err.count("TypeError: no such luck") >= 5


def test_the_notes_say_what_real_data_have(tiny_lineup, capsys):
    said = " ".join(compared(capsys, *tiny_lineup, "--out", "DIR").out.split())
    images = data.load_dataset("images.npz")
    two = completeness(images.test, images.train[: len(images.test)])
    assert f"precision and recall of as many training data, as they are: {two.precision:.0%}, {two.recall:.0%}" in said


def test_a_reader_that_goes_away_is_no_mistake(tmp_path):
    """`ppvae ... | head -1`: what is said to nobody is not said on standard error either."""
    script = "import sys; from ppvae import cli; from ppvae.commands import fit\n"
    script += "def run(options):\n    while True: print('line', flush=True)\n"
    script += "fit.run = run; sys.exit(cli.main(['fit', '--out', 'RUN']))"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as running:
        assert running.stdout.readline() == "line\n"
        running.stdout.close()
        assert running.stderr.read() == ""
    assert running.returncode == 141
