# The environment is .venv in this checkout; every target brings it in line with requirements.lock first.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-gpu test-vendor-models check bench pictures lock

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
ARGS ?=

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## all set-up: .venv from requirements.lock, and blm itself (cheap when nothing changed)
	@PYTHON="$(PYTHON)" sh tools/setup.sh

demo: setup ## the whole story, small, on a CPU: collect, curate, train, evaluate
	$(BIN)/blm demo $(ARGS)

test: setup ## the test suite without the slow, GPU and vendor-model tests
	$(PYTEST) -m "not slow and not gpu and not vendor_models" $(ARGS)

test-slow: setup ## tests that take minutes
	$(PYTEST) -m "slow and not gpu and not vendor_models" $(ARGS)

test-gpu: setup ## tests that need a CUDA device
	$(PYTEST) -m gpu $(ARGS)

test-vendor-models: setup ## checks of our robot models against their makers' (needs the packages that hold those)
	$(PYTEST) -m vendor_models $(ARGS)

check: setup ## lint, format, types and allowed imports
	@status=0; for tool in "ruff check ." "ruff format --check ." "pyright" "lint-imports --no-logo"; do \
		echo "== $$tool"; $(BIN)/$$tool || status=1; done; exit $$status

bench: setup ## run every script under benchmarks/ (one: make bench ARGS=benchmarks/NAME.py)
	@set -e; for script in $(or $(ARGS),$(sort $(wildcard benchmarks/*.py))); do \
		echo "== $$script"; $(BIN)/python "$$script"; done

pictures: setup ## draw the pictures of the documentation again (docs/pictures)
	$(BIN)/python tools/pictures.py

lock: setup ## resolve requirements.lock again from pyproject.toml (UPGRADE=1 takes newer releases)
	$(BIN)/uv pip compile --quiet --universal --python-version "$$(cat .python-version)" --generate-hashes --no-header \
		--extra sim --extra hardware --extra teleop --extra train --extra rerun --extra language --extra scale --extra dev \
		$(if $(UPGRADE),--upgrade) pyproject.toml -o requirements.lock
