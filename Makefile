# Every target does its own set-up: a virtual environment in .venv, filled once, and brought up to
# date when pyproject.toml or constraints.txt changes.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
# Images of containers often ask Python to keep no bytecode. Then each worker rewrites every test anew, and
# each process that tests start compiles every module: a tenth of the time that tests take.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
STAMP := .venv/.installed
# Content decides and not file times: a fresh checkout of the same versions asks for no network.
MADE_FROM = { $(BIN)/python --version; pwd; cat pyproject.toml constraints.txt; } 2>&1 | sha256sum

# Tests in one process more than there are processors, as some wait for others to answer; who has done
# his share takes of the others'.
PYTEST := -m pytest -n $(shell n=$$(nproc); echo $$((n < 7 ? n + 1 : 8))) --dist worksteal -rs
# What `make check` compares with.
BASE ?= main

.PHONY: help setup install demo check test test-slow test-all coverage differential lint lowest fuzz rehearsal \
  docs model site picture bench clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: ## Make .venv with the command .venv/bin/veilwatch
	@$(MADE_FROM) | cmp -s - $(STAMP) || $(MAKE) --no-print-directory install

install:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
	  f"Veilwatch needs Python 3.11 or newer, this is {v[0]}.{v[1]}: name another, make PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "Python cannot make virtual environments: install the package python3-venv" >&2; exit 1; }
	@echo "Setting up .venv (about 3 GB, some minutes the first time):"
	@# An environment that was moved, or whose interpreter is gone, is made anew.
	@{ grep -qsF '$(CURDIR)/.venv/bin' $(BIN)/pip && $(BIN)/pip --version >/dev/null 2>&1; } || \
	  $(PYTHON) -m venv --clear .venv
	@PYTHONUNBUFFERED=1 $(BIN)/python -m pip install --progress-bar off --constraint constraints.txt \
	  --editable '.[dev]' | sed -un 's/^Collecting \([A-Za-z0-9._-]*\).*/  \1/p'
	@$(MADE_FROM) > $(STAMP)
	@echo "Done: .venv/bin/veilwatch"

demo: setup ## Emulated traffic to alerts and a report in demo-output
	@$(BIN)/veilwatch demo --out demo-output

check: lint ## Before a commit: style, types, and the tests of what differs from main
	@tests=$$($(BIN)/python -m scripts.changed_tests $(BASE)); \
	  if [ -n "$$tests" ]; then $(BIN)/python $(PYTEST) -m "not slow" $$tests; \
	  else echo "no test belongs to what was changed"; fi

test: setup ## The tests, in minutes; one that lacks a tool or the real captures says so and is skipped
	@$(BIN)/python $(PYTEST) -m "not slow"

test-slow: setup ## What takes long: endurance, kills, demo, whole corpora, more examples
	@VEILWATCH_TEST_PROFILE=thorough $(BIN)/python $(PYTEST) -m "slow or property"

test-all: test test-slow ## All tests

coverage: setup ## The tests as `make test` runs them, and which lines of src they reach
	@$(BIN)/coverage erase
	@$(BIN)/coverage run $(PYTEST) -m "not slow"
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --skip-covered --sort=-cover

differential: setup ## Every real capture beside tshark, TCP stream by stream as well
	@VEILWATCH_DIFFERENTIAL=full $(BIN)/python $(PYTEST) tests/differential

lint: setup ## Style, types, and which room may import which
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/deptry src

lowest: ## Some tests with the lowest versions that are allowed, in an environment of its own
	@PYTHON=$(PYTHON) scripts/check_lowest.sh

fuzz: setup ## Half an hour of coverage-guided fuzzing (FUZZ_SECONDS for another time)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	@$(BIN)/veilwatch doctor --warm
	@$(BIN)/python -m fuzz.run

rehearsal: setup ## Infections in a mobile core's traffic, the sensor on its mirror, ESM behind (root)
	@$(BIN)/python -m rehearsal.run $(REHEARSAL)

model: setup ## Train the model that ships with the package: make model CORPUS=MANIFEST.csv
	@$(BIN)/python -m scripts.make_model $(CORPUS)

docs: setup ## Write what pages say of features, flows, sinks and settings from the code
	@$(BIN)/python scripts/make_docs.py

site: setup ## These pages as a site in site/
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

picture: setup ## Make the picture of the README anew, from the page of the demonstration (Chromium)
	@test -f demo-output/results/report.html || $(MAKE) --no-print-directory demo
	@$(BIN)/python -m scripts.make_picture

bench: setup ## Speed and memory, beside floors measured in the same run
	@$(BIN)/python benchmarks/throughput.py
	@$(BIN)/python benchmarks/memory.py

clean: ## Remove what was made here, except .venv
	@rm -rf demo-output rehearsal-output build dist site .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find src tests benchmarks rehearsal scripts -name __pycache__ -type d -prune -exec rm -rf {} +
