# Every target makes .venv when it is missing. PYTHON picks the interpreter that makes it.
PYTHON ?= python3
BIN := .venv/bin
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: study ui test check format bench screenshots clean
.DEFAULT_GOAL := study

study: .venv/.study ## install, and run the default study on the embedded names
	$(BIN)/python studies/mlp.py

ui: .venv/.study ## open the MLflow UI on the studies in mlruns/
	$(BIN)/python studies/ui.py

test: .venv/.test ## install the test extra, and run the tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: .venv/.dev ## lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.dev ## rewrite the files as `make check` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.bench ## run the benchmarks and print their tables
	$(BIN)/python tests/benchmarks/bench_trainer.py
	$(BIN)/python tests/benchmarks/bench_population.py
	$(BIN)/python tests/benchmarks/bench_study.py
	$(BIN)/python tests/benchmarks/bench_overhead.py
	$(BIN)/python tests/benchmarks/bench_search.py
	$(BIN)/python tests/benchmarks/bench_target.py

screenshots: .venv/.test ## make docs/*.png from the default study, in Chromium
	$(BIN)/python docs/screenshots.py mlp

.venv/bin/python:
	$(PYTHON) -m venv .venv

# One stamp for each set of extras; a change of the dependencies installs again.
.venv/.study: EXTRAS :=
.venv/.test: EXTRAS := [test]
.venv/.dev: EXTRAS := [dev,test]
.venv/.bench: EXTRAS := [bench,test]
.venv/.study .venv/.test .venv/.dev .venv/.bench: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.$(EXTRAS)'
	@touch $@

clean: ## remove .venv and caches, never mlruns/
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
