"""docs/api.md is what `make api` prints: every public name, with the signature that it has."""

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
