"""Arrows go one way: who may import whom, read from the sources."""

import ast
from pathlib import Path

import pytest

import ppvae

ROOT = Path(ppvae.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

ALLOWED = {  # the layer of each file: what of ppvae it may import, by prefix
    "ppvae.base": (),
    "ppvae.progress": (),
    "ppvae.distributions": ("distributions",),
    "ppvae.networks": ("base", "networks"),
    "ppvae.files": (),
    "ppvae.sources": ("files",),
    "ppvae.observation": (),
    "ppvae.data": ("observation", "sources"),
    "ppvae.metrics": (),
    "ppvae.models": ("base", "distributions", "networks", "models"),
    "ppvae.inference": ("base", "progress", "inference"),
    "ppvae.inference.blocks": ("base", "compilation.steps", "inference", "progress"),
    "ppvae.inference.comparison": ("inference", "observation"),
    "ppvae.compilation": ("compilation",),
    "ppvae.batches": (),
    "ppvae.state": ("base", "compilation", "inference"),
    "ppvae.train": ("base", "batches", "compilation", "inference", "progress", "state"),
    "ppvae.pretraining": ("base", "inference", "models", "networks", "train"),
    "ppvae.plots": ("inference.comparison", "train"),
    "ppvae.evidence_plots": ("inference.ladder", "inference.tail", "inference.weights", "plots"),
    "ppvae.inference_plots": ("inference.calibration", "inference.gaps", "plots"),
    "ppvae.report": ("inference.comparison", "observation"),
    "ppvae.scoring": ("inference", "models"),
    "ppvae.known": ("models",),
    "ppvae.selfcheck": ("base", "inference", "known", "models.missing", "selfcheck"),
    "ppvae.measure": ("data", "inference", "metrics"),
    "ppvae.lineup": (
        "arguments",
        "build",
        "data",
        "files",
        "inference",
        "measure",
        "observation",
        "parts",
        "pretraining",
        "progress",
        "scoring",
        "train",
        "trust",
    ),
    "ppvae.figures": ("base", "data", "files", "inference", "lineup", "measure", "models", "plots", "scoring", "train"),
    "ppvae.parts": ("base", "inference.objectives", "models", "networks"),
    "ppvae.trust": ("files", "parts"),
    "ppvae.arguments": ("base", "data", "models", "networks", "parts", "train", "trust"),
    "ppvae.build": ("arguments", "inference.objectives", "models", "observation", "parts"),
    "ppvae.runs": ("arguments", "build", "data", "files", "inference", "models", "observation", "train", "trust"),
    "ppvae.commands": ("",),
    "ppvae.cli": ("arguments", "commands"),
    "ppvae": ("pretraining", "runs", "train"),
}


def module_of(file):
    parts = ("ppvae", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(part for part in parts if part != "__init__")


def imports_of(file):
    """Every ppvae module that a file imports, as written: `from ppvae import data` is ppvae.data."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


MODULES = {module_of(file) for file in FILES}


def layer_of(module):
    return max((name for name in ALLOWED if f"{module}.".startswith(f"{name}.")), key=len)


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_go_one_way(file):
    module = module_of(file)
    allowed = ALLOWED[layer_of(module)]
    for target in imports_of(file):
        if target.startswith("ppvae."):
            inner = target.removeprefix("ppvae.")
            assert any(inner.startswith(prefix) for prefix in allowed), f"{module} may not import {target}"


def test_every_file_has_a_layer_of_its_own_name():
    layers = {layer_of(module_of(file)) for file in FILES}
    assert layers == set(ALLOWED)
    assert [module_of(file) for file in FILES if layer_of(module_of(file)) == "ppvae"] == ["ppvae"]


def test_no_cycle():
    graph = {module_of(file): {t for t in imports_of(file) if t.startswith("ppvae.")} for file in FILES}
    done = set()

    def visit(module, path):
        assert module not in path, " -> ".join([*path, module])
        if module in graph and module not in done:
            for target in graph[module]:
                visit(target, [*path, module])
            done.add(module)

    for module in graph:
        visit(module, [])


def test_the_trainer_knows_neither_pyro_nor_models():
    assert not [target for target in imports_of(ROOT / "train.py") if target.startswith(("pyro", "ppvae.models"))]


def test_the_links_at_the_root_are_never_imported():
    for file in [*FILES, *Path(__file__).parent.rglob("*.py")]:
        assert not [t for t in imports_of(file) if t.split(".")[0] in {"models", "inference"}], file
