"""Arrows go one way: who may import whom, read from the sources."""

import ast
from pathlib import Path

import pytest

import ppvae
from ppvae.base import UNSAID

ROOT = Path(ppvae.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

ALLOWED = {  # each room, from the lowest up: which rooms its files may import
    "base": (),
    "progress": (),
    "data": (),
    "distributions": (),
    "compilation": (),
    "networks": ("base",),
    "inference.program": ("base", "data"),
    "inference.objectives": ("base", "inference.program"),
    "inference.posteriors": ("base", "inference.program", "progress"),
    "inference.evidence": ("base", "compilation", "inference.posteriors", "inference.program", "progress"),
    "inference.diagnostics": ("base", "inference.evidence", "inference.posteriors", "inference.program"),
    "inference": (
        "inference.diagnostics",
        "inference.evidence",
        "inference.objectives",
        "inference.posteriors",
        "inference.program",
    ),
    "models": ("base", "distributions", "networks"),
    "training": ("base", "compilation", "inference", "models", "progress"),
    "evaluation": ("base", "data", "inference", "models"),
    "selfcheck": ("base", "inference", "models"),
    "experiments": ("base", "data", "evaluation", "inference", "models", "networks", "progress", "training"),
    "plots": ("base", "data", "evaluation", "experiments", "inference", "models", "training"),
    "commands": (
        "data",
        "evaluation",
        "experiments",
        "inference",
        "plots",
        "progress",
        "selfcheck",
        "training",
    ),
    "cli": ("commands", "experiments"),
    "__main__": ("cli",),
    "": ("data", "experiments", "inference", "models", "networks", "training"),  # the package's face
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


def room_of(module):
    inner = module.removeprefix("ppvae").removeprefix(".")
    return max((room for room in ALLOWED if not room or f"{inner}.".startswith(f"{room}.")), key=len)


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_go_one_way(file):
    module = module_of(file)
    room = room_of(module)
    for target in imports_of(file):
        if target.startswith("ppvae."):
            other = room_of(target)
            allowed = other == room or any(f"{other}.".startswith(f"{name}.") for name in ALLOWED[room])
            assert allowed, f"{module} may not import {target}"


def test_no_room_may_import_one_above_it():
    order = list(ALLOWED)
    for room, allowed in ALLOWED.items():
        assert all(order.index(name) < order.index(room) for name in allowed), room
        assert list(allowed) == sorted(allowed), room


def test_every_room_is_there_and_used():
    """No file without a room, no room without a file, and no arrow that is allowed and not taken."""
    assert {room_of(module_of(file)) for file in FILES} == set(ALLOWED)
    assert [module_of(file) for file in FILES if not room_of(module_of(file))] == ["ppvae"]
    taken = {room: set() for room in ALLOWED}
    for file in FILES:
        taken[room_of(module_of(file))] |= {room_of(t) for t in imports_of(file) if t.startswith("ppvae.")}
    for room, allowed in ALLOWED.items():
        for name in allowed:
            assert any(f"{other}.".startswith(f"{name}.") for other in taken[room]), f"{room} -> {name}"


def test_models_and_inference_never_meet():
    for room in ("models", "inference"):
        other = {"models": "ppvae.inference", "inference": "ppvae.models"}[room]
        for file in (ROOT / room).rglob("*.py"):
            assert not [target for target in imports_of(file) if target.startswith(other)], file


def test_the_top_of_the_package_is_short():
    assert {file.name for file in ROOT.glob("*.py")} <= {
        "__init__.py",
        "__main__.py",
        "base.py",
        "progress.py",
        "cli.py",
    }


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
    assert not [
        target for target in imports_of(ROOT / "training" / "fit.py") if target.startswith(("pyro", "ppvae.models"))
    ]


def test_the_links_at_the_root_are_never_imported():
    for file in [*FILES, *Path(__file__).parent.rglob("*.py")]:
        assert not [t for t in imports_of(file) if t.split(".")[0] in {"models", "inference"}], file


def test_what_a_story_may_say_is_asked_in_one_place():
    """`base.optional` knows every name, and nobody else asks for one by `getattr` or `hasattr`."""
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) in {"getattr", "hasattr"}
                and file.name != "base.py"
            ):
                asked = node.args[1]
                known = isinstance(asked, ast.Constant) and asked.value in UNSAID
                assert not known or room_of(module_of(file)) == "distributions", f"{file}: {ast.unparse(node)}"


def test_inference_knows_nothing_of_a_prior_or_a_likelihood():
    """Any pair of programs will do: no attribute of a part is named there."""
    parts = {"prior", "likelihood", "encoder", "penalty", "network"}
    for file in (ROOT / "inference").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Attribute) and node.attr in parts), f"{file}: {ast.unparse(node)}"
