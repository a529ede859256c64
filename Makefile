# Everything here needs Python 3.11 or newer and make, and nothing else: each target
# first builds .venv from pyproject.toml and constraints.txt when either has changed.

PYTHON ?= python3
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -le 8 ] && echo $$n || echo 8)

BIN := .venv/bin
READY := .venv/ready

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test prove lint format bench docs clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | while IFS='	' read -r name what; do \
		printf '  make %-8s %s\n' "$$name" "$$what"; done

demo: $(READY) ## train on real images, be killed, resume, serve the best, tidy up: on a folder and on S3
	$(BIN)/python -m examples.demo

# One thread a worker: the cores are shared out among the tests already.
test: $(READY) ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

prove: $(READY) ## try to lose something in bulk, and write docs/reliability.md (about twenty minutes)
	$(BIN)/python -m tests.prove

lint: $(READY) ## check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(READY) ## mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY) ## time saves and loads beside torch.save and safetensors (minutes, 8 GB of memory)
	$(BIN)/python -m tests.bench

docs: $(READY) ## run every snippet in README.md and docs/, follow every link between pages
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) tests/docs

clean: ## remove .venv, caches and what was built
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "ckptstore needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1):" \
			"name another with 'make PYTHON=/path/to/python3.12 ...'" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
		$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
