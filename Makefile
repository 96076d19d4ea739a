# Every target makes .venv if it is missing. PYTHON selects the interpreter for it.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: study ui test test-all chaos check format bench screenshots clean help
.DEFAULT_GOAL := study

study: .venv/.study ## install, and run the default study on the embedded names
	@echo "Running the study"
	$(BIN)/python studies/mlp.py

ui: .venv/.study ## open the MLflow UI on the studies in mlruns/
	$(BIN)/python studies/ui.py

test: .venv/.test ## run the fast tests (about 4 minutes)
	$(PYTEST) -m "not slow"

test-all: .venv/.all ## run all tests, also those marked slow (about 16 minutes)
	$(PYTEST)

N ?= 60
chaos: .venv/.test ## cause N faults (60) in small studies, and check that nothing is lost
	$(BIN)/python -m tests.chaos --faults $(N)

check: .venv/.dev ## run the linter, the formatter's check and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.dev ## rewrite the files as `make check` expects them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.bench ## run the benchmarks and write docs/benchmarks.md (about an hour and a half)
	$(BIN)/python tests/benchmarks/write_page.py

screenshots: .venv/.test ## make docs/trials.png from the default study, in Chromium
	$(BIN)/python docs/screenshots.py mlp

clean: ## remove .venv and caches, but not mlruns/
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' Makefile

.venv/bin/python:
	@echo "Making .venv"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

# One stamp file for each set of extras. A change of the dependencies installs again.
.venv/.study: EXTRAS :=
.venv/.test: EXTRAS := [test]
.venv/.dev: EXTRAS := [dev,test]
.venv/.bench: EXTRAS := [bench,test]
.venv/.all: EXTRAS := [test,ray]
LOG := .venv/install.log
.venv/.study .venv/.test .venv/.dev .venv/.bench .venv/.all: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing (about a minute)"
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt \
		-e '.$(EXTRAS)' > $(LOG) 2>&1 || { cat $(LOG) >&2; exit 1; }
	@touch $@
