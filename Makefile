# Everything a person types. `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RATINGS ?=
FORMAT ?=
CONFIG ?=
STATE ?= .recsys
PORT ?= 3000

.DEFAULT_GOAL := help
.PHONY: help install run ui test test-slow contracts check clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo
	@echo "Options: RATINGS=path-or-s3-url FORMAT=... CONFIG=file.yaml STATE=folder PORT=number"

install: $(VENV)/installed ## make .venv with everything in it (the other targets do it when needed)

# A change of the dependencies installs again; pip's own speed decides how long that takes.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): about 200 packages, a few minutes the first time"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: $(VENV)/installed ## from ratings to recommendations; RATINGS=... for your own
	@$(BIN)/recsys-assets run --state '$(STATE)' \
		$(if $(RATINGS),--ratings '$(RATINGS)') \
		$(if $(FORMAT),--format '$(FORMAT)') \
		$(if $(CONFIG),--config '$(CONFIG)')

ui: $(VENV)/installed ## open the Dagster UI on what has been run
	$(BIN)/recsys-assets ui --state '$(STATE)' --port $(PORT)

test: $(VENV)/installed ## run the tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not slow'

test-slow: $(VENV)/installed ## run the tests that take minutes too
	$(BIN)/python -m pytest -n 2 --dist loadgroup

contracts: $(VENV)/installed ## run unmodified AWS clients on the local services and write docs/clients.md
	@status=0; \
	RECSYS_TEST_WRITE_RESULTS=1 $(BIN)/python -m pytest -m slow recsys_assets_tests/contract || status=$$?; \
	$(BIN)/python -m recsys_assets_tests.contract.page; exit $$status

check: $(VENV)/installed ## lint, types and the rules of who may import what
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: ## stop the local services and remove what the other targets made
	@if test -x $(BIN)/recsys-assets; then $(BIN)/recsys-assets services stop --state '$(STATE)'; fi
	rm -rf $(VENV) '$(STATE)' .nux .tmp_dagster_home_* *.egg-info build dist
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find recsys_assets recsys_assets_tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
