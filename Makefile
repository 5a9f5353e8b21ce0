# SPDX-License-Identifier: Apache-2.0
# Every command sets up what it needs: a virtual environment in .venv, made by uv from requirements.lock.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV_VERSION := 0.13.9
PACKAGES := proto chassis gateway $(wildcard svc-*)
MODULES := $(foreach package,$(filter-out proto,$(PACKAGES)),$(package)/$(subst -,_,$(package)))
# One folder of tests at a time: they share the name `tests`, which mypy takes for one package.
TESTS := $(wildcard chassis/tests gateway/tests svc-*/tests tests)
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help

.PHONY: help
help: ## List every command
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock $(addsuffix /pyproject.toml,$(PACKAGES))
	@$(PYTHON) -c 'import sys; sys.exit("Dangol needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Say which one: make PYTHON=python3.12 …" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	@echo "Setting up $(VENV) …"
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode -r requirements.lock
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation $(foreach package,$(PACKAGES),-e ./$(package))
	@touch $@

.PHONY: setup
setup: $(READY) ## Make the virtual environment

.PHONY: run
run: $(READY) ## Run the whole platform on this machine (Ctrl-C stops it)
	@exec $(BIN)/python -m deploy.local

.PHONY: demo
demo: $(READY) ## Drive the running platform with a simulated shop (ARGS="--customers 500")
	@exec $(BIN)/python -m demo $(ARGS)

# The browser script is tested in Debian's Chromium; where it cannot be installed, its tests say so and are skipped.
.PHONY: chromium
chromium: ## Install Chromium for the tests of the browser script (Debian or Ubuntu, as root)
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null || exit 0; \
	  echo "Installing Chromium …"; export DEBIAN_FRONTEND=noninteractive; \
	  timeout 120 apt-get -qq update >/dev/null 2>&1; \
	  timeout 300 apt-get -qq install -y --no-install-recommends chromium chromium-driver >/dev/null 2>&1 \
	    || echo "Chromium cannot be installed; the tests that need it will be skipped."; }

# Tests wait more than they work: for processes to start, leases to end, messages to come again.
WORKERS ?= 3

.PHONY: test
test: $(READY) chromium ## Run every test, in WORKERS processes (ARGS="-k merge" chooses)
	$(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder $(ARGS)

.PHONY: check
check: $(READY) ## Lint, format, types, import rules, contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(MODULES) deploy demo bench proto/generate.py conftest.py
	@for tests in $(TESTS); do echo "mypy $$tests"; $(BIN)/mypy $$tests || exit 1; done
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/python proto/generate.py --check

.PHONY: fix
fix: $(READY) ## Format, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: proto
proto: $(READY) ## Generate code and descriptors from proto/
	$(BIN)/buf lint
	$(BIN)/python proto/generate.py

.PHONY: bench
bench: $(READY) ## Measure, and write the tables of bench/README.md (ARGS="ingest freshness" chooses)
	@exec $(BIN)/python -m bench $(ARGS)

.PHONY: k8s-validate
k8s-validate: $(READY) ## Render the Kubernetes manifests and check them against the schemas
	$(BIN)/python -m deploy.k8s.validate

.PHONY: lock
lock: ## Pin the newest allowed versions of requirements.in
	@test -x $(BIN)/uv || ($(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv==$(UV_VERSION))
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-header --no-emit-index-url -o requirements.lock requirements.in

.PHONY: clean
clean: ## Remove the virtual environment and caches (data stays)
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
