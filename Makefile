# One environment in $(VENV), made once and shared by every target.
# `make` alone lists the targets.

PYTHON ?= python3
VENV ?= .venv
# Index of torch wheels to use instead of PyPI's CUDA build, e.g. that of PyTorch's CPU wheels.
TORCH_INDEX ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# HASHES=1: only files with the SHA-256 of requirements.hashes (Linux, x86-64, Python 3.11).
LOCKED := $(if $(HASHES),--require-hashes -r requirements.hashes,-r requirements.lock)
# The CUDA libraries of torch's default build: not wanted with wheels from another index.
GPU_ONLY := ^(nvidia|cuda|triton)

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-slow coverage lowest hashes test-browser chaos bench lab tables docs doctor clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## Create the environment in .venv (the other targets do it by themselves)

# The stamp comes last: an interrupted installation is taken up again.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2])' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make environments: on Debian and Ubuntu, install python3-venv." >&2; \
	  exit 1; }
	@echo "Creating the environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@rm -f $(INSTALLED)
ifeq ($(strip $(TORCH_INDEX)),)
	@echo "Installing the versions of requirements.lock (torch with CUDA: a few GB, some minutes)"
	$(BIN)/pip install --quiet --disable-pip-version-check $(LOCKED)
else
	@echo "Installing torch from $(TORCH_INDEX)"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --index-url $(TORCH_INDEX) \
	  $$(grep -E '^(torch|torchvision)==' requirements.lock)
	@echo "Installing the other versions of requirements.lock"
	@grep -vE '$(GPU_ONLY)|^(torch|torchvision)==' requirements.lock > $(VENV)/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r $(VENV)/requirements.txt
endif
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $(INSTALLED)

# One thread: on images of 64 pixels a second one costs more than it brings. (Exported, not set in front of
# the command: that would take a shell, and a signal that make passes on would end the shell alone.)
quickstart chaos: export OMP_NUM_THREADS = 1

quickstart: $(INSTALLED)  ## Seven methods on Digits-LT: table, figures, executed notebook
	@$(BIN)/hml run notebooks/00_quickstart.ipynb
	@echo
	@cat my_results/tables/quickstart.md
	@echo
	@echo "Table:    my_results/tables/quickstart.md"
	@echo "Figures:  $$(ls my_results/figures/quickstart_*.png | tr '\n' ' ')"
	@echo "Notebook: my_results/notebooks/00_quickstart.ipynb"
	@echo "Pages:    $(BIN)/hml report"

# Tests at a time, one more than there are cores on a small machine: some wait for processes that they
# start. Those of one file share what they train. Files with slow tests come first.
JOBS ?= 3
PYTEST := -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder

test: $(INSTALLED)  ## Run the tests, but for the slow ones
	@$(BIN)/python $(PYTEST) -m 'not browser and not slow'

test-slow: $(INSTALLED)  ## The slow tests: more recipes, engines and images for the same promises
	@$(BIN)/python $(PYTEST) -m 'slow and not browser'

coverage: $(INSTALLED)  ## All tests once more: what none touches; fails below 90 % of a file of hml_core
	@$(BIN)/python -c 'import pytest_cov' 2>/dev/null || \
	  $(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@$(BIN)/python $(PYTEST) --cov --cov-report term --cov-report html:build/coverage \
	  --cov-report json:build/coverage.json
	@$(BIN)/python .ci/covered.py build/coverage.json

# An environment of its own, with each direct requirement at its lower bound; before a release.
lowest:  ## All tests with the lowest versions that pyproject.toml allows (some minutes and GB more)
	@$(PYTHON) -m venv $(VENV)-lowest
	@$(PYTHON) .ci/requirements.py lowest > $(VENV)-lowest/constraints.txt
	$(VENV)-lowest/bin/pip install --quiet --disable-pip-version-check \
	  -c $(VENV)-lowest/constraints.txt --editable '.[cluster,lab,test]' setuptools
	@$(VENV)-lowest/bin/python $(PYTEST)

hashes: $(INSTALLED)  ## Write requirements.hashes: the lock with the SHA-256 of each file, as pip tells
	@$(BIN)/pip install --quiet --disable-pip-version-check --dry-run --ignore-installed --no-deps \
	  --report $(VENV)/report.json -r requirements.lock
	@$(BIN)/python .ci/requirements.py hashes $(VENV)/report.json > requirements.hashes

# Debian: apt install chromium. CHROMIUM names another one.
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

test-browser: $(INSTALLED)  ## JupyterLab, the gallery and the site in a headless Chromium
	@test -n "$(CHROMIUM)" || { echo "No Chromium was found: on Debian, apt install chromium; or make \
	CHROMIUM=/path/to/it test-browser" >&2; exit 1; }
	@$(BIN)/python -c 'import playwright' 2>/dev/null || \
	  $(BIN)/pip install --quiet --disable-pip-version-check -e '.[browser]'
	@HML_CHROMIUM="$(CHROMIUM)" $(BIN)/python -m pytest -q -m browser tests/browser

chaos: $(INSTALLED)  ## Kill, fill, damage, race: what happens to the runs (about 7 minutes)
	@$(BIN)/python -m tests.chaos

DEVICE ?= cpu

bench: $(INSTALLED)  ## Speed, as ratios measured here: 10 minutes on a CPU; DEVICE=cuda on a GPU
	@$(BIN)/python -m benchmarks --device $(DEVICE)

# JupyterLab saves what it shows: it opens copies, which git ignores. A copy stays as its owner left it.
lab: $(INSTALLED)  ## Open JupyterLab on your copies of the notebooks, in my_notebooks/
	@mkdir -p my_notebooks
	@for path in notebooks/*.ipynb; do \
	  copy=my_$$path; \
	  if [ ! -e "$$copy" ]; then \
	    cp "$$path" "$$copy.new" && mv "$$copy.new" "$$copy" || { rm -f "$$copy.new"; exit 1; }; \
	  elif [ "$$path" -nt "$$copy" ]; then \
	    echo "$$path is newer than your $$copy: remove that one to get it."; fi; \
	done
	@$(BIN)/jupyter lab --notebook-dir=. my_notebooks

tables: $(INSTALLED)  ## The full 200-epoch CIFAR-LT tables and the audit (needs a GPU: hours on one)
	$(BIN)/hml prepare cifar10 --data-root data
	$(BIN)/hml prepare cifar100 --data-root data
	$(BIN)/hml batch notebooks/batches/tables.yaml --resume

docs: $(INSTALLED)  ## The site, in site/: pages, executed notebooks, reference of the code, search
	@$(BIN)/python -c 'import myst_nb, pydata_sphinx_theme, sphinx' 2>/dev/null || \
	  $(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs]'
	@$(BIN)/hml site

doctor: $(INSTALLED)  ## Say what works on this machine and what is missing
	@$(BIN)/hml doctor

clean:  ## Remove caches and the environment; results and my_* stay
	rm -rf $(VENV) $(VENV)-lowest .coverage .coverage.* .pytest_cache .ruff_cache .hypothesis *.egg-info build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
