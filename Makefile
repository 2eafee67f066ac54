# `make demo` and `make test` from a fresh clone, with only Python 3.11 and make.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo test lint bench clean

demo: .venv/ready
	@rm -rf demo
	@$(BIN)/ppvae compare --data digits --out demo

test: .venv/ready lint
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadscope

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# ROOT=folder measures on MNIST, which it should hold as torchvision lays it; made-up digits without
bench: .venv/ready benchmarks/.venv/ready
	@$(BIN)/python benchmarks/run.py $(if $(ROOT),--root $(ROOT))
	@$(BIN)/python benchmarks/evaluation.py
	@$(BIN)/python benchmarks/scaling.py
	@$(BIN)/python benchmarks/checks.py $(if $(ROOT),--root $(ROOT))

benchmarks/.venv/ready: benchmarks/requirements.txt constraints.txt
	@echo "setting up the peers in benchmarks/.venv; a peer that cannot be had is left out"
	@$(PYTHON) -m venv benchmarks/.venv
	@benchmarks/.venv/bin/pip install --quiet --upgrade "pip>=25.1"
	-@benchmarks/.venv/bin/pip install --quiet --constraint constraints.txt torch --requirement benchmarks/requirements.txt
	-@benchmarks/.venv/bin/pip install --quiet --no-deps pythae==0.1.2
	@touch $@

.venv/ready: pyproject.toml constraints.txt
	@echo "setting up .venv (about a minute; torch is large)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/pip install --constraint constraints.txt --editable . --group dev
	@touch $@

clean:
	rm -rf .venv benchmarks/.venv demo .mypy_cache .pytest_cache .ruff_cache
