# What one does with a clone of regfs. On Debian and Ubuntu each target brings what it needs by itself.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
READY := $(VENV)/.ready
LOCKS := requirements/build.txt requirements/dev.txt
WORKERS ?= $(shell nproc)
PYTEST_ARGS ?=

# A registry server that setup-system unpacked for us.
export PATH := $(PATH):$(CURDIR)/.tools/usr/bin

.PHONY: help venv demo test check bench lock clean

help: ## what there is to do
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

venv: $(READY) ## .venv with regfs in it: .venv/bin/regfs

$(READY): $(LOCKS) pyproject.toml scripts/make-venv
	scripts/setup-system venv
	scripts/make-venv
	touch $@

demo: $(READY) ## a real registry, mounted, read, and one tag of it deleted
	@scripts/setup-system demo
	@scripts/demo

test: $(READY) ## the whole test suite, on real registries and mounts (PYTEST_ARGS=…, WORKERS=…)
	scripts/setup-system test
	$(VENV)/bin/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

check: $(READY) ## lint, format, types, and which room may import which
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest -q tests/test_imports.py

bench: $(READY) ## measure, and write benchmarks/results.md
	scripts/setup-system bench
	scripts/make-peers
	$(VENV)/bin/python -m benchmarks

lock: ## renew requirements/*.txt: the newest versions that pyproject.toml allows, with the hashes of what is published
	scripts/lock

clean: ## remove what the other targets made, the lock excepted
	rm -rf $(VENV) .tools build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name '*.egg-info' -prune -exec rm -rf {} +
	find . -name __pycache__ -prune -exec rm -rf {} +
