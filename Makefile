.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench lock clean

# The first Python on PATH that is new enough; `make PYTHON=/path/to/python …` chooses another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS ?=

help: ## show this list
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.ready ## make .venv with everything pinned in requirements.lock

.venv/.ready: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo >&2 "twbench needs Python 3.11 or newer, and none is on PATH:"; \
		echo >&2 "  install one, or name it: make setup PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo >&2 "$(PYTHON) is no Python 3.11 or newer: make setup PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo >&2 "$(PYTHON) has no venv module (Debian, Ubuntu: apt install python3-venv)"; exit 2; }
	@echo "setting up .venv ($$($(PYTHON) --version)) ..."
	@$(PYTHON) -m venv --clear .venv
	@echo "installing what requirements.lock pins ..."
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@
	@echo "ready: $(BIN)/twbench"

demo: setup ## the whole story in about 70 seconds
	@$(BIN)/twbench demo $(ARGS)

test: setup ## all tests (ARGS='-k time_wait' for some)
	@$(BIN)/python -m pytest $(ARGS)

check: setup ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: setup ## measure everything beside its peers: 12 minutes (ARGS=--quick)
	@$(BIN)/python bench/run.py $(ARGS)

# uv resolves for all Pythons and processors at once; pip, which everyone has, installs the result.
lock: setup ## remake requirements.lock (ARGS=--upgrade for newer versions)
	@mkdir -p build
	@test -x build/uv/bin/uv || { $(PYTHON) -m venv build/uv && build/uv/bin/pip install -q uv; }
	@cp requirements.lock build/requirements.lock
	@build/uv/bin/uv pip compile pyproject.toml --group dev --extra peers --extra compare --quiet $(ARGS) \
		--universal --python-version 3.11 --generate-hashes --no-config \
		--default-index https://pypi.org/simple --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header --output-file build/requirements.lock
	@{ sed -n '/^#/p;/^#/!q' requirements.lock; grep -v '^#' build/requirements.lock; } > build/lock
	@mv build/lock requirements.lock

clean: ## remove what make made (results stay)
	@rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find twbench tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
