# `make demo` and `make test` from a fresh clone, with only Python 3.11 and make.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo test lint clean

demo: .venv/ready
	@rm -rf demo
	@$(BIN)/ppvae compare --data digits --out demo

test: .venv/ready lint
	$(BIN)/pytest

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/ready: pyproject.toml constraints.txt
	@echo "setting up .venv (about a minute; torch is large)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/pip install --constraint constraints.txt --editable . --group dev
	@touch $@

clean:
	rm -rf .venv demo .mypy_cache .pytest_cache .ruff_cache
