"""Tests stand where the code does: of `ppvae/distributions/levels.py` in `tests/distributions/test_levels.py`."""

from pathlib import Path

import pytest

import ppvae

PACKAGE, TESTS = Path(ppvae.__file__).parent, Path(__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MIRRORED = [file for room in ("inference", "distributions") for file in sorted((PACKAGE / room).rglob("[!_]*.py"))]
LONGEST = 300  # lines, beyond which a file is more than one concept


def within(file):
    return str(file.relative_to(PACKAGE))


@pytest.mark.parametrize("file", MIRRORED, ids=within)
def test_every_file_has_a_test_file_of_its_own(file):
    inner = file.relative_to(PACKAGE)
    mirror = TESTS / inner.with_name(f"test_{inner.name}")
    assert mirror.exists(), f"{within(file)} should be tested in {mirror.relative_to(TESTS.parent)}"
    assert "\ndef test_" in mirror.read_text(encoding="utf-8"), f"{mirror.relative_to(TESTS.parent)} has no test"


@pytest.mark.parametrize("file", FILES, ids=within)
def test_no_file_is_too_long(file):
    lines = file.read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST, f"{within(file)} has {lines} lines, {LONGEST} at most: give one of its concepts its own"
