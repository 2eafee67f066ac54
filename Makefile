# `make demo` and `make test` from a fresh clone, with only Python 3.11 and make.
PYTHON ?= python3.11
BIN := .venv/bin

SUITE := $(BIN)/pytest --numprocesses auto --dist worksteal

.PHONY: demo test soak lint api bench clean

demo: .venv/ready
	@rm -rf demo
	@$(BIN)/ppvae compare --data digits --out demo

test: .venv/ready lint
	OMP_NUM_THREADS=1 $(SUITE)

# What the suite has no time for: the full forms of slow tests, and the suite as it rounds on other processors and with
# other seeds. An hour and more; every line runs, whatever another did, and the last lines say what failed. Two threads
# of two workers wait without spinning: they share two cores.
soak: .venv/ready
	@failed=""; try() { \
	  echo "== $$*"; env OMP_NUM_THREADS=1 "$$@" || failed="$$failed\n  $$*"; \
	}; \
	try $(SUITE) -m soak; \
	try ATEN_CPU_CAPABILITY=default $(SUITE); \
	try ATEN_CPU_CAPABILITY=avx2 $(SUITE); \
	try DNNL_MAX_CPU_ISA=AVX2 $(SUITE); \
	try MKL_CBWR=COMPATIBLE $(SUITE); \
	try OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE $(SUITE); \
	try $(SUITE) --seed-offset 1000; \
	try $(SUITE) --seed-offset 2000; \
	if test -n "$$failed"; then printf "soak: failed:$$failed\n"; exit 1; fi; echo "soak: all passed"

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/test_typed.py

# The page of public names; a test holds that it is up to date.
api: .venv/ready
	@$(BIN)/python docs/make_api.py > docs/api.md

# ROOT=folder measures on MNIST, which it should hold as torchvision lays it; made-up digits without
bench: .venv/ready benchmarks/.venv/ready
	@$(BIN)/python benchmarks/run.py $(if $(ROOT),--root $(ROOT))
	@$(BIN)/python benchmarks/evaluation.py
	@$(BIN)/python benchmarks/scaling.py
	@$(BIN)/python benchmarks/startup.py
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
