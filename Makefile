# Every target makes what it needs on a fresh machine: a Python >= 3.11 is all that must be there.
# The first run installs into .venv; later runs see from the stamp files that nothing has changed.

VENV := .venv
BIN := $(VENV)/bin
FIND_PYTHON := for python in python3 python3.13 python3.12 python3.11 python; do \
	"$$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; \
	done

# Extras that are installed together with the one that a target needs: one call of pip is faster than three.
EXTRAS :=
PIP_OPTIONS :=
comma := ,

.PHONY: demo test lint format docs bench clean

demo: $(VENV)/installed
	$(BIN)/skyloom demo --out skyloom-demo

test: $(VENV)/installed-test
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/installed-docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

bench: $(VENV)/installed-bench
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) docs/_build skyloom-demo .mypy_cache .ruff_cache .pytest_cache

$(BIN)/python:
	@python=$$($(FIND_PYTHON)); \
	test -n "$$python" || { echo "Skyloom needs Python 3.11 or newer, and found none"; exit 1; }; \
	"$$python" -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) --editable ".[$*$(EXTRAS:%=$(comma)%)]"
	@touch $(VENV)/installed $@ $(patsubst %,$(VENV)/installed-%,$(subst $(comma), ,$(EXTRAS)))
