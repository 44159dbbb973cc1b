# CI runs exactly `make test`.
PYTHON ?= python3
VENV   ?= .venv
INSTALLED := .venv-installed
BIN    := $(VENV)/bin
SEEDS  ?= 20000
CIRCLES ?= 50
INPUTS ?= 10000000
EXAMPLES ?= 20000
JOBS   ?= $(shell nproc)
ARGS   ?=
# Python and pytest keep what they have compiled. Without that, each process of a test compiles all its modules again.
unexport PYTHONDONTWRITEBYTECODE
# Rings that need only Python: two processes run them, while the image for the rings with containers is built.
PURE   := tests/unit tests/scenarios tests/simulation

.PHONY: help demo docs quick test lint types check tests bench failovers simulate ownership votes circle fuzz chaos faults clean

help:            ## list these targets
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/: .*## /\t/' | expand -t 12

$(BIN)/colo: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (make PYTHON=python3.12 ...)"; exit 2; }
	@# A second interpreter over an existing environment would break it.
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# As users install it: not editable, and compiled where there is a C compiler (a minute or two after each change).
$(INSTALLED)/bin/colo: pyproject.toml hatch_build.py $(shell find services proto -name '*.py')
	test -x $(INSTALLED)/bin/python || $(PYTHON) -m venv $(INSTALLED)
	$(INSTALLED)/bin/python -m pip install --quiet --disable-pip-version-check --force-reinstall .
	@touch $@

demo: $(BIN)/colo ## run the whole pipeline on this machine, live, in half a minute (root)
	$(BIN)/colo demo $(ARGS)

docs: $(BIN)/colo ## generate the reference from the code, and build the pages as a site in out/docs
	$(BIN)/python docs/tools/generate.py
	$(BIN)/mkdocs build --quiet --strict --clean --config-file docs/tools/mkdocs.yml

quick: $(BIN)/colo ## while you work: lint, types, unit and scenarios without the slow tests (less than a minute on two idle cores)
	@# Lint and types run beside the tests. The last line says when they have failed, because their output is at the top.
	@$(MAKE) --no-print-directory lint types & checks=$$!; status=0; \
	$(BIN)/pytest -q -n 4 -m 'not slow' tests/unit tests/scenarios $(ARGS) || status=1; \
	wait $$checks || { status=1; echo "lint or types have failed: see the first lines"; }; \
	exit $$status

test: lint types tests ## everything that CI checks: lint, types, and every ring of tests

lint: $(BIN)/colo ## ruff: lint, format, and the imports that pure cores may not have
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(BIN)/colo ## mypy --strict
	$(BIN)/mypy

tests: $(BIN)/colo ## every ring of tests that this machine can run (slow ones included)
	@PYTHONPATH=tests $(BIN)/python -m containers.engine & status=0; set -x; \
	$(BIN)/pytest -n 2 $(PURE) $(ARGS) || [ $$? = 5 ] || status=1; \
	wait; \
	$(BIN)/pytest $(PURE:%=--ignore=%) $(ARGS) || [ $$? = 5 ] || status=1; \
	exit $$status

bench: $(INSTALLED)/bin/colo ## benchmarks of the installed package: medians and ratios, nothing is asserted
	$(INSTALLED)/bin/python -m tests.bench $(ARGS)

simulate: $(BIN)/colo ## runs of the deterministic simulation: SEEDS=20000
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

failovers: $(INSTALLED)/bin/colo ## many failovers under load, and the stalls that clients see (root): ARGS='--runs 20'
	$(INSTALLED)/bin/python -m tests.bench failover $(ARGS)

ownership: $(BIN)/colo ## search for two writers to the LAN under deaths, cuts, recorded and forged claims: EXAMPLES=20000
	PYTHONPATH=tests $(BIN)/python -m ownership_search --examples $(EXAMPLES) --jobs $(JOBS) $(ARGS)

votes: $(BIN)/colo ## both ways cut, a dead host, a store without a majority, with a real etcd in the lab (root): ARGS='--runs 50'
	PYTHONPATH=tests $(BIN)/python -m votes $(ARGS)

circle: $(BIN)/colo ## the leader dies under load and is repaired, over and over, in the lab's symmetric wiring (root): CIRCLES=50
	PYTHONPATH=tests $(BIN)/python -m circles --circles $(CIRCLES) $(ARGS)

fuzz: $(BIN)/colo ## mutated frames, batches and byte streams: INPUTS=10000000
	$(BIN)/python -m tests.fuzz --inputs $(INPUTS) $(ARGS)

chaos: $(BIN)/colo ## faults against the pair in containers, one at a time, under load: ARGS='--rounds 10'
	PYTHONPATH=tests $(BIN)/python -m chaos $(ARGS)

faults: $(BIN)/colo ## faults against the pair in the lab, two at a time, under load (root): ARGS='--pairs 250 --seed 7'
	PYTHONPATH=tests $(BIN)/python -m faults $(ARGS)

clean: ## remove everything that the targets above have made
	find proto services tests docs -name __pycache__ -prune -exec rm -rf {} +
	rm -rf $(VENV) $(INSTALLED) out/docs .pytest_cache .mypy_cache .ruff_cache .hypothesis
