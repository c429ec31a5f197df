# Two commands on a fresh machine: `make demo` and `make test`. Everything is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
# A benchmark is a module that can be tried with --smoke; one of them needs a GPU.
BENCHMARKS := $(filter-out $(if $(wildcard /dev/nvidia0),,bench-gpu),\
	$(patsubst benchmarks/%.py,bench-%,$(shell grep -l '"--smoke"' benchmarks/*.py)))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint docs bench $(BENCHMARKS) clean
.NOTPARALLEL:

demo: .venv/installed-demo
	$(BIN)/python jobs/tag.py --log words --log-rows --set output.path=out/tag

test: lint
	$(BIN)/python -m pytest

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The reference pages anew, then the site into build/site.
docs: .venv/installed-test
	$(BIN)/python docs/reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# One after the other into out/bench/*.md, each from `make bench-<name>`; `make -k bench` goes on after one that fails.
bench: $(BENCHMARKS)
	$(BIN)/python -m benchmarks.plot out/bench/engine.json out/bench/engine.svg

bench-engine: OPTIONS := --json out/bench/engine.json

$(BENCHMARKS): bench-%: .venv/installed-test
	mkdir -p out/bench
	$(BIN)/python -m benchmarks.$* $(OPTIONS) > out/bench/$*.md

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
	$(PIP) --editable ".[test,bench,docs]"
	touch $@
