"""What comes from a file runs nobody's code: run folders, configurations and line-ups that try to."""

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import numpy as np
import pytest
import torch
import yaml

import ppvae
from ppvae import cli
from ppvae.commands.evaluate import METHODS
from ppvae.experiments import lookup, run_folder, trust
from ppvae.experiments.options import SKIPPED
from ppvae.inference import objectives
from ppvae.models import fit_ppca
from ppvae.models.sizes import LINKED

SHELL = {"class_path": "os.system", "init_args": {"command": "touch sprung"}}
TRAP = """
from pathlib import Path
import torch
from torch import nn
import pyro.distributions as dist

Path("sprung").touch()

class Prior(nn.Module):
    def __init__(self, latent: int, spread: float = 1.0):
        super().__init__()
        self.latent, self.spread = latent, spread
    def forward(self):
        return dist.Normal(torch.zeros(self.latent), self.spread).to_event(1)

def objective(story, x):
    from ppvae.inference import elbo
    return elbo(story, x)

def optimizer(parameters, lr, momentum: float = 0.5):
    return torch.optim.SGD(parameters, lr, momentum)
"""


A_RUN = ("fit", "--data", "real.npy", "--latent", "2", "--epochs", "1", "--out", "RUN")


@pytest.fixture(autouse=True)
def trapped(tmp_path, monkeypatch):
    """A working folder with a module that leaves a trace when it is imported, and data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "trap.py").write_text(TRAP)
    np.save("real.npy", np.random.default_rng(0).normal(size=(40, 4)))
    yield
    sys.modules.pop("trap", None)


def sprung():
    return Path("sprung").exists() or "trap" in sys.modules


def said(capsys, *words):
    """The one line that a refused command leaves, with exit status 2."""
    assert cli.main(words) == 2
    _, error = capsys.readouterr()
    assert error.count("\n") == 1
    assert "Traceback" not in error
    return error


def a_run(*words):
    assert cli.main([*A_RUN, *words]) == 0
    Path("sprung").unlink(missing_ok=True)
    sys.modules.pop("trap", None)


def edited(**options):
    """The configuration of the run in RUN, with some options changed."""
    path = Path("RUN") / run_folder.CONFIG
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | options))


NAMING = {  # options of a file, each of which would run something
    "a prior": {"prior": "trap.Prior"},
    "a prior with arguments": {"prior": {"class_path": "trap.Prior", "init_args": {"spread": 2.0}}},
    "the shell as a prior": {"prior": SHELL},
    "the shell in an argument of a prior": {"prior": {"class_path": "Laplace", "init_args": {"scale": SHELL}}},
    "the shell in an argument, its class left out": {"network": {"hidden": [SHELL]}},
    "a likelihood": {"likelihood": {"class_path": "trap.Prior"}},
    "an encoder": {"encoder": "trap.Prior"},
    "a story": {"story": "trap.Prior"},
    "a network": {"network": "trap.Prior"},
    "what a list's module imports": {"prior": "ppvae.models.priors.elementary.torch"},
    "a member that no list has": {"story": "ppvae.models.stories.assemble"},
    "a mapping as text": {"prior": json.dumps(SHELL)},
    "an option with a dot": {"prior.class_path": "trap.Prior"},
    "an argument with a dot": {"prior": {"class_path": "Laplace", "init_args": {"scale.class_path": "os.system"}}},
    "a part with more than a class and arguments": {"prior": {"class_path": "Laplace", "dict_kwargs": SHELL}},
    "an argument of a part that is named elsewhere": {"prior": {"init_args": {"spread": "trap.Prior"}}},
    "trust itself": {"trust": True},
    "another configuration": {"config": "other.yaml"},
}
FITTING = NAMING | {
    "an objective": {"objective": "trap.objective"},
    "the shell as an objective": {"objective": "os.system"},
    "the shell in an argument of an objective": {"objective_args": {"beta": SHELL}},
    "an optimiser": {"optimizer": "trap.optimizer"},
    "one of torch's by its import path": {"optimizer": "torch.optim.LBFGS"},
    "the shell in an argument of an optimiser": {"optimizer_args": {"foreach": SHELL}},
}


@pytest.mark.parametrize("options", NAMING.values(), ids=NAMING)
def test_a_run_folder_runs_nothing(capsys, options):
    a_run()
    edited(**options)
    capsys.readouterr()
    for command in ("evaluate", "gaps", "posteriors"):
        assert "RUN/config.yaml" in said(capsys, command, "RUN")
    with pytest.raises(ValueError, match=r"RUN/config\.yaml"):
        ppvae.load("RUN")
    assert not sprung()


def test_the_objective_and_the_optimiser_of_a_run_are_not_asked_for(capsys):
    a_run("--objective", "trap.objective", "--optimizer", "trap.optimizer", "--optimizer.momentum", "0.1")
    assert ppvae.load("RUN").prior().event_shape == (2,)
    edited(objective="os.system", objective_args={"beta": SHELL})
    assert "objective_args" in said(capsys, "evaluate", "RUN")
    assert not sprung()


@pytest.mark.parametrize("options", NAMING.values(), ids=NAMING)
def test_a_saved_story_runs_nothing(options):
    ppvae.save(fit_ppca(torch.randn(9, 3), 2), "RUN")
    edited(**options)
    with pytest.raises(ValueError, match=r"RUN/config\.yaml"):
        ppvae.load("RUN")
    assert not sprung()


@pytest.mark.parametrize("options", FITTING.values(), ids=FITTING)
def test_a_configuration_runs_nothing(capsys, options):
    Path("a.yaml").write_text(yaml.safe_dump({"data": "real.npy"} | options))
    assert "a.yaml" in said(capsys, "fit", "--config", "a.yaml", "--out", "RUN")
    assert "a.yaml" in said(capsys, "compare", "--contender", "one: --config a.yaml", "--data=real.npy", "--out", "OUT")
    assert not sprung()
    assert not Path("RUN").exists()


CANDIDATES = FITTING | {  # of a line-up
    "a list in place of a name": {"prior": ["trap.Prior"]},
    "one more of a list": {"prior+": "trap.Prior"},
    "help of a part": {"prior.help": "trap.Prior"},
    "help": {"help": True},
    "the configuration": {"print_config": True},
    "trust for another name": {"trust": True, "prior": "trap.Prior"},
    "an argument of a part that is not named": {"prior": {"spread": "trap.Prior"}},
    "contenders of its own": {"contender": {"two": {"prior": "trap.Prior"}}},
    "options in common of its own": {"common": {"prior": "trap.Prior"}},
    "words": "--prior trap.Prior",
    "words in a list": ["--prior", "trap.Prior"],
    "words with a configuration": "--config b.yaml",
}


@pytest.mark.parametrize("candidate", CANDIDATES.values(), ids=CANDIDATES)
def test_a_line_up_runs_nothing(capsys, candidate):
    Path("b.yaml").write_text("prior: trap.Prior\n")
    Path("a.yaml").write_text(yaml.safe_dump({"one": candidate}))
    assert "a.yaml" in said(capsys, "compare", "--data", "real.npy", "--lineup", "a.yaml", "--out", "OUT")
    assert not sprung()


@pytest.mark.parametrize("candidate", CANDIDATES.values(), ids=CANDIDATES)
def test_a_comparison_that_is_a_configuration_runs_nothing(capsys, candidate):
    Path("b.yaml").write_text("prior: trap.Prior\n")
    for options in ({"contender": {"one": candidate}}, {"common": candidate}):
        Path("a.yaml").write_text(yaml.safe_dump({"data": "real.npy"} | options))
        assert "a.yaml" in said(capsys, "compare", "--config", "a.yaml", "--out", "OUT")
    Path("a.yaml").write_text(yaml.safe_dump({"data": "real.npy", "contender": candidate}))  # its name is forgotten
    said(capsys, "compare", "--config", "a.yaml", "--out", "OUT")
    assert not sprung()


@pytest.mark.parametrize("options", [{"class_path": "os.system"}, {"init_args": SHELL}, {"unheard_of": SHELL}])
def test_options_that_a_fit_does_not_have_run_nothing(capsys, options):
    for config in ({"contender": {"one": options}}, {"common": options}, options):
        Path("a.yaml").write_text(yaml.safe_dump({"data": "real.npy"} | config))
        said(capsys, "compare", "--config", "a.yaml", "--out", "OUT")
        said(capsys, "fit", "--config", "a.yaml", "--out", "OUT")
    assert not sprung()


@pytest.mark.parametrize("option", ["data", "label", "lineup"])
def test_a_value_is_never_read_as_an_option(capsys, option):
    Path("a.yaml").write_text(yaml.safe_dump({"data": "real.npy", option: "--prior=trap.Prior"}))
    said(capsys, "compare", "--config", "a.yaml", "--out", "OUT")
    assert not sprung()


@pytest.mark.parametrize("option", ["data", "label", "root"])
def test_a_value_of_a_candidate_is_never_read_as_an_option(capsys, option):
    Path("a.yaml").write_text(yaml.safe_dump({"one": {option: "--prior=trap.Prior"}}))
    said(capsys, "compare", "--data", "real.npy", "--lineup", "a.yaml", "--out", "OUT")
    assert not sprung()


@pytest.mark.parametrize("words", ["--prior Laplace", "--prior 'Laplace", ["--prior", "Laplace"], 3])
def test_words_in_a_file_are_answered_with_what_would_work(capsys, words):
    for config, option in (({"one": words}, "--lineup"), ({"contender": {"one": words}}, "--config")):
        Path("a.yaml").write_text(yaml.safe_dump(config))
        assert "a.yaml: contender 'one': it should hold options, such as {prior: Laplace, latent: 2}, got " in said(
            capsys, "compare", option, "a.yaml", "--out", "OUT"
        )


def test_what_somebody_types_is_imported():
    a_run("--prior", "trap.Prior", "--prior.spread", "2", "--objective", "trap.objective")
    config = yaml.safe_load((Path("RUN") / run_folder.CONFIG).read_text())
    assert (config["prior"]["class_path"], config["objective"]) == ("trap.Prior", "trap.objective")


def test_trust_says_what_it_imports_before_it_does(capsys):
    a_run("--prior", "trap.Prior", "--prior.spread", "2")
    capsys.readouterr()
    Path("trap.py").write_text("raise RuntimeError('too late')\n")
    lines = [cli.main(["evaluate", "RUN", "--trust"]), *capsys.readouterr().err.splitlines()]
    assert lines[:2] == [2, "trusted: RUN/config.yaml imports trap.Prior (prior)"]
    assert "too late" in lines[2]
    Path("trap.py").write_text(TRAP)
    assert ppvae.load("RUN", trust=True).prior().mean.tolist() == [0.0, 0.0]
    assert ppvae.load("RUN", trust=True).prior.spread == 2.0


def test_trust_is_for_configurations_and_line_ups_too(capsys):
    Path("a.yaml").write_text("prior: trap.Prior\nobjective: trap.objective\n")
    few = ("--data", "real.npy", "--epochs", "1")
    assert cli.main(["fit", *few, "--config", "a.yaml", "--trust", "--out", "RUN"]) == 0
    Path("b.yaml").write_text("one: {prior: trap.Prior}\ntwo: {objective: trap.objective}\n")
    assert cli.main(["compare", *few, "--lineup", "b.yaml", "--trust", "--particles", "30", "--out", "OUT"]) == 0
    assert "trusted: b.yaml imports trap.Prior (prior), trap.objective (objective)" in capsys.readouterr().err
    Path("c.yaml").write_text("contender: {one: {prior: trap.Prior}}\ncommon: {objective: trap.objective}\n")
    typed = ("--contender", "two: --config a.yaml", "--particles", "30")
    assert cli.main(["compare", *few, "--config", "c.yaml", *typed, "--trust", "--out", "TWO"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("trusted: ")]
    assert lines == [
        f"trusted: {file} imports trap.Prior (prior), trap.objective (objective)" for file in ("c.yaml", "a.yaml")
    ]


def test_all_names_are_said_before_any_is_imported(capsys):
    Path("a.yaml").write_text("prior: trap.Prior\nlikelihood: gone.Likelihood\nobjective: os.system\n")
    line = said(capsys, "fit", "--config", "a.yaml", "--out", "RUN")
    assert "would import trap.Prior (prior), gone.Likelihood (likelihood), os.system (objective)" in line


def test_our_own_by_a_long_name_are_written_by_their_short_ones():
    long = ("--prior", "ppvae.models.priors.elementary.Laplace", "--objective", "ppvae.inference.iwae")
    a_run(*long)
    config = yaml.safe_load((Path("RUN") / run_folder.CONFIG).read_text())
    assert (config["prior"]["class_path"], config["objective"]) == ("ppvae.models.priors.Laplace", "iwae")
    assert ppvae.load("RUN").prior().event_shape == (2,)


def test_a_module_of_the_working_folder_never_stands_for_a_library():
    for name in ("trap_for_all", "antigravity", "wave"):
        Path(f"{name}.py").write_text("raise RuntimeError('sprung')\n")
    lookup.imported("prior", "trap.Prior")
    import wave

    assert str(Path.cwd()) not in str(wave.__file__)
    with pytest.raises(ValueError, match="RuntimeError: sprung"):
        lookup.imported("prior", "trap_for_all.Prior")  # which somebody has typed


@pytest.mark.parametrize("name", ["os.system", "builtins.len", "ppvae.inference.Evidence.rows", "json"])
def test_what_is_no_objective_is_refused_in_one_line(capsys, name):
    line = said(capsys, "fit", "--data", "real.npy", "--epochs", "1", "--objective", name, "--out", "RUN")
    assert "objective" in line


def test_no_argument_of_ours_can_name_a_class():
    """So that what a file says of a part, an objective or a method of ours never makes anything."""
    plain = {bool, int, float, str, type(None)}
    skipped = {*LINKED, *SKIPPED}
    ours = [getattr(module, name) for module in lookup.SWAPPED.values() for name in lookup.names(module)]
    taken = [p for part in ours for p in lookup.parameters(part, tuple(skipped))]
    functions = [*(getattr(objectives, name) for name in objectives.__all__), *METHODS.values()]
    taken += [p for function in functions for p in lookup.parameters(function)[2:]]
    for parameter in taken:
        assert kinds(parameter.annotation) <= plain, parameter
    assert len(taken) > 100


def kinds(annotation):
    """The types that an annotation is made of."""
    if get_origin(annotation) is Literal:
        return {type(value) for value in get_args(annotation)}
    inner = get_args(annotation)
    return {annotation} if not inner else set().union(*map(kinds, inner))


LOADERS = {f"{module}.{name}" for module in ("yaml", "pickle") for name in ("load", "loads", "load_all", "unsafe_load")}
LOADERS |= {"yaml.full_load", "pickle.Unpickler"}


@pytest.mark.parametrize("file", sorted(Path(ppvae.__file__).parent.rglob("*.py")), ids=lambda file: file.stem)
def test_no_file_of_the_package_reads_what_can_run(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert name not in {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}, ast.unparse(node)
        assert not name.startswith(("subprocess.", "marshal.", "shelve.")), ast.unparse(node)
        assert name not in LOADERS, ast.unparse(node)
        if name in {"torch.load", "torch.hub.load"}:
            assert options.get("weights_only") == "True", ast.unparse(node)
        if name in {"np.load", "numpy.load"}:
            assert options.get("allow_pickle") == "False", ast.unparse(node)


def test_pickle_is_for_other_processes_of_this_machine_alone():
    texts = {file.stem: file.read_text(encoding="utf-8") for file in Path(ppvae.__file__).parent.rglob("*.py")}
    assert [name for name, text in texts.items() if "import pickle" in text] == ["workers"]


def test_the_way_in_is_checked_at_one_place():
    """Every YAML file is read by `files.read_yaml`; nobody else calls a loader."""
    texts = {file.stem: file.read_text(encoding="utf-8") for file in Path(ppvae.__file__).parent.rglob("*.py")}
    assert [name for name, text in texts.items() if "SafeLoader" in text or "yaml.safe_load" in text] == ["files"]


def test_results_never_follow_a_link_out_of_a_run_folder():
    a_run()
    Path("precious").write_text("kept")
    name = "evidence-test-importance-30-seed0"
    for link in (f"{name}.json", f"{name}.csv", f"{name}.json.part", f"{name}-weights.png"):
        (Path("RUN") / link).symlink_to(Path("precious").absolute())
    assert cli.main(["evaluate", "RUN", "--method", "importance", "--particles", "30"]) == 0
    assert Path("precious").read_text() == "kept"
    assert json.loads((Path("RUN") / f"{name}.json").read_text())["split"] == "test"


def test_trust_of_python_is_off_unless_asked_for():
    for function in (ppvae.load, run_folder.read, trust.read_options, trust.checked):
        assert inspect.signature(function).parameters["trust"].default is False


def test_a_run_of_ones_own_part_is_evaluated_by_several_processes():
    """In processes of their own, since every worker begins as the command did; both split the rows alike."""
    few = ("--rows", "4", "--particles", "30", "--method", "importance")
    for words in ((*A_RUN, "--prior", "trap.Prior"), ("evaluate", "RUN", "--trust", "--processes", "2", *few)):
        done = subprocess.run([sys.executable, "-m", "ppvae", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
