# `make demo` and `make test` set up everything they need in .venv; nothing else has to be installed.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0 # what the tests run with; any version that pyproject.toml allows will do
BIN := $(VENV)/bin

.PHONY: demo test format bench docs clean

demo: $(VENV)/.installed
	$(BIN)/unfade demo

test: $(VENV)/.tools
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist loadfile

format: $(VENV)/.tools
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/perceptual.py

docs: $(VENV)/.tools
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV)

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(strip $(TORCH))"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.tools: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@
