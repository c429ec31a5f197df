# Two commands on a fresh machine: `make demo` and `make test`. Everything is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint bench clean

demo: .venv/installed-demo
	$(BIN)/python jobs/tag.py --set output.path=out/tag

test: lint
	$(BIN)/python -m pytest

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed-test
	$(BIN)/python benchmarks/engine.py

clean:
	rm -rf out .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

.venv/bin/python:
	$(PYTHON) -m venv .venv

# torch first and by its exact version: pip then takes the build that this machine offers for it.
.venv/installed-demo: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) --editable .
	touch $@

.venv/installed-test: .venv/installed-demo
	$(PIP) --editable ".[test,bench]"
	touch $@
