# Two commands do all the set-up: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Compute threads are the commands' business: one a process, as many processes as cores.
export OMP_NUM_THREADS = 1

.PHONY: help install quickstart theory test test-slurm test-integrations mutants slurm-up slurm-down lint clean

help:
	@echo "make quickstart   train the small table (some minutes), print it, write runs/quickstart/report.html"
	@echo "make theory       HAM's theory, measured: figures and numbers with bars in runs/theory (a minute or two)"
	@echo "make test         all tests (some minutes)"
	@echo "make test-slurm   tests on a Slurm cluster that they start on this machine (some minutes)"
	@echo "make test-integrations  HAM in the loops of timm, transformers and Lightning, which it installs (some minutes)"
	@echo "make mutants      wrong implementations of each method, which the tests must notice (some minutes)"
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
	$(BIN)/python -m pytest -m "not slurm and not integrations" -n auto --dist loadfile

test-slurm: install
	$(BIN)/python -m pytest -m slurm -n 2 --dist loadfile tests/slurm

test-integrations: $(VENV)/.integrations
	$(BIN)/python -m pytest -m integrations -n auto --dist loadgroup tests/integration tests/docs

$(VENV)/.integrations: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group integrations
	@touch $@

mutants: install
	$(BIN)/python tests/mutants/run.py

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
