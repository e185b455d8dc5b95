# The one door: people and CI come in through the same targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:

SETUP := scripts/setup.sh
BIN := .venv/bin
# As in `make serve ARGS="--model nvidia/canary-1b-v2"` and `make test ARGS="-k queue"`.
ARGS ?=

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## Start the service, transcribe the clips in examples/audio, stop it
	@$(SETUP) client
	@$(BIN)/python scripts/demo.py $(ARGS)

.PHONY: test
test: ## Run the tests (ARGS="-k queue" for some of them)
	@$(SETUP) dev
	@$(BIN)/python -m pytest $(ARGS)

.PHONY: serve
serve: ## Serve the embedded checkpoint (ARGS="--model nvidia/canary-1b-v2" for another)
	@$(SETUP) runtime
	@$(BIN)/aviary serve $(ARGS)

.PHONY: lint
lint: ## Check style, types and the direction of imports
	@$(SETUP) dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

.PHONY: format
format: ## Rewrite the code in the project's format
	@$(SETUP) dev
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: typecheck
typecheck: ## Check types only
	@$(SETUP) dev
	$(BIN)/mypy

.PHONY: bench
bench: ## Compare with NeMo on this machine
	@$(SETUP) dev
	@$(BIN)/python benchmarks/decoder.py $(ARGS)

.PHONY: docs
docs: ## Build the documentation into site/
	@$(SETUP) dev
	$(BIN)/mkdocs build --strict

.PHONY: wheel-check
wheel-check: ## Build the wheel, install it in a clean environment, start it from an empty folder
	@$(SETUP) dev
	@$(BIN)/python scripts/wheel_check.py

# Existing pins stay unless UPGRADE=1.
.PHONY: lock
lock: COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header $(if $(UPGRADE),--upgrade)
lock: ## Write the lock files again after a change of dependencies (UPGRADE=1 for newer versions)
	@test -x $(BIN)/uv || $(SETUP) dev
	$(COMPILE) --extra nemo --group dev pyproject.toml -o requirements-dev.lock
	$(COMPILE) --constraint requirements-dev.lock pyproject.toml -o requirements.lock
	$(COMPILE) --constraint requirements-dev.lock --group client -o requirements-client.lock

.PHONY: clean
clean: ## Remove the environment and caches (not build/, where training keeps its state)
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage dist site
	find . -name __pycache__ -prune -exec rm -rf {} +
