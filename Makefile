# Two commands do all the set-up: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Compute threads are the commands' business: one a process, as many processes as cores.
export OMP_NUM_THREADS = 1

PYTEST = $(BIN)/python -m pytest
# as many processes as cores; one that is done takes tests of another
SHARED = -n auto --dist worksteal
FAST = not slow and not slurm and not integrations and not robust
# numbers that must not depend on how a processor adds up
NUMERIC = tests/unit/ham tests/unit/sparsity tests/trajectories tests/property tests/integration/test_ranks.py \
  $(addprefix tests/integration/test_,sam_runs.py precision.py resume.py starts.py neutral.py levels_runs.py events.py \
  theory.py theory_bias.py)
# three orders of the tests; `make test-orders SEEDS=7` repeats one
SEEDS = $(shell shuf -i 1-999999 -n 3)

.PHONY: help install quickstart theory test test-fast test-robust test-cpus test-orders test-alone test-slurm \
  test-integrations mutants docs slurm-up slurm-down lint clean

help:
	@echo "make quickstart   train the small table (some minutes), print it, write runs/quickstart/report.html"
	@echo "make theory       HAM's theory, measured: figures and numbers with bars in runs/theory (a minute or two)"
	@echo "make test         all tests (some minutes)"
	@echo "make test-fast    what a change in progress needs to know (a minute)"
	@echo "make test-robust  what takes long: kills, containers, two thousand damaged files, measurements (some minutes; HAM_FUZZ_SEED=... repeats one)"
	@echo "make test-cpus    numeric tests with the instructions of other processors and with two threads (some minutes)"
	@echo "make test-orders  tests in random orders; make test-alone: each file in a process of its own (some minutes)"
	@echo "make test-slurm   tests on a Slurm cluster that they start on this machine (some minutes)"
	@echo "make test-integrations  loops of timm, transformers, Lightning and accelerate, which it installs (some minutes)"
	@echo "make mutants      wrong implementations of each method, which the tests must notice (some minutes)"
	@echo "make docs         the documentation as a site, docs/_build/html"
	@echo "make slurm-up     such a cluster to try things on; make slurm-down ends it"
	@echo "make lint         ruff, pyright, and which way imports run"
	@echo "make install      only make $(VENV)"
	@echo "make clean        remove $(VENV) and caches; runs/ stays"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=python3.x")'
	@echo "installing into $(VENV) (torch is large: about two minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . --group dev
	@touch $@

quickstart: install
	$(BIN)/ham sweep quickstart
	$(BIN)/ham table runs/quickstart
	$(BIN)/ham report runs/quickstart

theory: install
	$(BIN)/ham theory

test: install
	$(PYTEST) -m "not slurm and not integrations and not robust" $(SHARED)

test-fast: install
	$(PYTEST) -m "$(FAST)" $(SHARED) tests/unit/ham tests/unit/sparsity tests/unit/config tests/unit/rundir tests/unit/run

# Each value of each. Threads that wait for each other must not keep the cores from those of another process; torch's
# cache of compiled kernels does not know for which instructions it was asked to compile.
test-cpus: export OMP_WAIT_POLICY = passive
test-cpus: install
	@set -e; kernels=$$(mktemp -d); trap 'rm -rf "$$kernels"' EXIT; \
	numeric() { echo "$$*"; TORCHINDUCTOR_CACHE_DIR="$$kernels/$$2" env "$$@" $(PYTEST) -q -m "$(FAST)" $(SHARED) $(NUMERIC); }; \
	numeric HAM_TEST_THREADS=2 ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41; \
	numeric HAM_TEST_THREADS=1 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2; \
	numeric HAM_TEST_THREADS=2

test-orders: install
	@for seed in $(SEEDS); do \
	  echo "order of SEEDS=$$seed"; \
	  $(PYTEST) -p randomly -p no:cacheprovider --randomly-seed=$$seed --randomly-dont-reset-seed -q -m "$(FAST)" $(SHARED) || exit 1; \
	done

test-alone: install
	$(BIN)/python tests/alone.py

test-robust: install
	$(PYTEST) -m robust -rA --show-capture=stdout $(SHARED)

test-slurm: install
	$(PYTEST) -m slurm -n 2 --dist loadfile tests/slurm

test-integrations: $(VENV)/.integrations
	$(PYTEST) -m integrations -n auto --dist loadgroup tests/integration tests/docs

$(VENV)/.integrations: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group integrations
	@touch $@

mutants: install
	$(BIN)/python tests/mutants/run.py

# warnings are errors: links and anchors that lead nowhere, pages that no index names
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs docs/_build/html
	@echo "docs/_build/html/index.html"

$(VENV)/.docs: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group docs
	@touch $@

slurm-up:
	@scripts/slurm-cluster.sh up
	@scripts/slurm-cluster.sh env

slurm-down:
	@scripts/slurm-cluster.sh down

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
