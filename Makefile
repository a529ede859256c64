# Everything here needs Python 3.11 or newer and make, and nothing else: each target
# first builds .venv from pyproject.toml and constraints.txt when either has changed (benches
# build .venv-bench, which holds what they measure beside ckptstore too).

PYTHON ?= python3
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -le 8 ] && echo $$n || echo 8)

BIN := .venv/bin
READY := .venv/ready
BENCH := .venv-bench/bin
BENCH_READY := .venv-bench/ready

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test prove lint format bench bench-s3 bench-growth bench-gpu docs clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | while IFS='	' read -r name what; do \
		printf '  make %-12s %s\n' "$$name" "$$what"; done

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

# What a bench is told, such as BENCH_OPTIONS='--state 6GB --rounds 9'.
bench: $(BENCH_READY) ## time saves and loads beside their peers (about 12 minutes, 12 GB of memory)
	$(BENCH)/python -m tests.bench $(BENCH_OPTIONS)

bench-s3: $(BENCH_READY) ## time uploads and downloads beside their peers, on servers of its own
	$(BENCH)/python -m tests.bench.s3 $(BENCH_OPTIONS)

bench-growth: $(BENCH_READY) ## time stores of up to 100,000 versions, on SQLite and PostgreSQL
	$(BENCH)/python -m tests.bench.growth $(BENCH_OPTIONS)

bench-gpu: $(BENCH_READY) ## the same as bench on a GPU, if there is one
	$(BENCH)/python -m tests.bench.gpu $(BENCH_OPTIONS)

docs: $(READY) ## run every snippet in README.md and docs/, follow every link between pages
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) tests/docs

clean: ## remove .venv, caches and what was built
	rm -rf .venv .venv-bench build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY) $(BENCH_READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "ckptstore needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1):" \
			"name another with 'make PYTHON=/path/to/python3.12 ...'" >&2; exit 1; }
	$(PYTHON) -m venv $(@D)
	PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
		$(@D)/bin/python -m pip install --quiet --editable '.[$(EXTRA)]'
	@touch $@

$(READY): EXTRA := dev
$(BENCH_READY): EXTRA := bench
