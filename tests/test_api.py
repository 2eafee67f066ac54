"""docs/api.md is what `make api` prints: every public name, with the signature that it has."""

import inspect
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
MADE = runpy.run_path(str(ROOT / "docs" / "make_api.py"))


def test_the_page_is_that_of_the_code():
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == MADE["page"](), "make api writes it anew"


def test_every_public_name_has_a_sentence():
    for module, names in MADE["ROOMS"].values():
        for name in names:
            assert len(MADE["first_sentence"](getattr(module, name))) > 10, name


def test_no_two_public_names_are_of_different_things():
    """Parts aside, which are told apart by their kind: a prior and a likelihood are both a Laplace."""
    of_parts = {"ppvae.models.priors", "ppvae.models.likelihoods", "ppvae.models.encoders"}
    named = {}
    for room, (module, names) in MADE["ROOMS"].items():
        for name in names if room not in of_parts else []:
            assert named.setdefault(name, getattr(module, name)) is getattr(module, name), f"{room}: {name}"


def test_functions_are_written_like_functions_and_classes_like_classes():
    for room, (module, names) in MADE["ROOMS"].items():
        for name in names:
            assert name[0].isupper() == inspect.isclass(getattr(module, name)), f"{room}: {name}"
