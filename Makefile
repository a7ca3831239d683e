# `make demo` and `make test` need Python 3.11 or newer and nothing else: the environment is made in .venv.

PYTHON ?= python3
BIN := .venv/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet -c constraints.txt
# One thread a process: the networks here are small, and a second thread costs much where another process wants the core.
ONE := OMP_NUM_THREADS=1
PYTEST := $(ONE) $(BIN)/python -m pytest
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-gpu env lint format types layers docs bench clean

help:  ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.installed  ## Condense the handwritten digits and compare (about a minute after the first time)
	@$(ONE) $(BIN)/condensery demo

test: lint types layers docs  ## Everything that is checked before a change lands
	$(PYTEST) -n $(WORKERS)

test-slow: env  ## The tests that compute for minutes
	$(PYTEST) -n $(WORKERS) -m 'slow and not gpu'

test-gpu: env  ## The tests that need a CUDA device
	$(PYTEST) -m gpu

env: .venv/.installed-dev  ## The environment in .venv, with what developing needs

lint: env  ## Style and layout of the code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: env  ## Put the layout right, and what can be put right of the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: env  ## Types
	$(BIN)/mypy

layers: env  ## Which module may import which
	$(BIN)/lint-imports --no-cache

docs: env  ## The documentation into site/; a broken link fails
	$(BIN)/zensical build --clean --strict

bench: env  ## What there is to measure
	@echo "Benchmarks, each run as: $(ONE) $(BIN)/python benchmarks/NAME.py"
	@for file in benchmarks/*.py; do \
	  [ -e "$$file" ] || continue; \
	  printf '  %-32s %s\n' "$$file" "$$(sed -n '1s/^"""//;1s/"""$$//;1p' "$$file")"; \
	done

clean:  ## Remove the environment and everything that was built
	rm -rf .venv site .cache dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@echo "Making the environment in .venv"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try make PYTHON=python3.11")'
	@$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing condensery and what it needs (PyTorch is the large part)"
	@$(PIP) -e .
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing condensery, what it needs, and the tools for developing it"
	@$(PIP) -e '.[dev,hub,report,graph,search]'
	@touch .venv/.installed $@
