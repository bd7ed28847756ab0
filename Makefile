# Everyday commands; `make` lists them. CI runs `.ci/run`.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3

# Passed on to pytest, or to the benchmark: make test ARGS="-n 0 -k cursor"
ARGS ?=

FAST := tests/core tests/test_hub.py tests/test_layout.py tests/test_model.py

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Create .venv and install streamer and the test dependencies
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -r tests/requirements.lock
	$(BIN)/pip install -q --no-build-isolation --no-deps -e clients/python -e .

.PHONY: fast
fast: $(BIN)/pytest ## Run the tests of the core, hub, model and layout (about 25 s)
	$(BIN)/pytest $(FAST) $(ARGS)

.PHONY: test
test: $(BIN)/pytest ## Run all tests but the nightly ones
	$(BIN)/pytest $(ARGS)

.PHONY: check
check: $(BIN)/ruff ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: nightly
nightly: $(BIN)/pytest ## Run the tests that take minutes or need root, one at a time
	$(BIN)/pytest -n 0 -m "nightly or privileged" $(ARGS)

.PHONY: bench
bench: $(BIN)/python ## Run all benchmarks and write bench/RESULTS.md (about 90 min)
	$(BIN)/pip install -q --no-build-isolation -e clients/python -e '.[bench]'
	$(BIN)/python -m bench.everything $(ARGS)

# mutmut keeps its results in mutants/: the next run goes on where this one ended.
MINUTES ?= 15

.PHONY: mutants
mutants: $(BIN)/python ## Look for changes that no test notices, in 15 minutes (MINUTES=60)
	$(BIN)/pip install -q --no-build-isolation -e clients/python -e '.[mutants]'
	-timeout --signal=INT $(MINUTES)m $(BIN)/mutmut run $(ARGS)
	$(BIN)/mutmut results | grep survived || echo "none survived so far"

$(BIN)/%:
	@echo "$@ is missing; run: make setup" >&2
	@exit 1
