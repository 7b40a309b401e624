# Thin targets over Python entry points. `make` alone lists them.
# PYTHON=... chooses the interpreter (3.11 or newer) that .venv is made with.

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; exit; }; done; echo python3)
BIN := .venv/bin
JOBS ?= 4
FLOW ?=
ONLY ?=
ROUNDS ?= 5
MINUTES ?= 10
KINDS ?=
SPLIT ?=
ARGS ?=
WORKERS ?= 3
# Keeps the output of checks that run side by side apart; make 3.81 (macOS) cannot.
SYNC := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
LOCKS := run build embedded dev envoy
CHECKS := check-format check-lint check-types check-imports check-protos check-sizes check-locks check-deploy

.DEFAULT_GOAL := help
.PHONY: help setup setup-run run demo compiled test test-long bench soak check $(CHECKS) protos format lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## make .venv with everything that development needs
	@$(PYTHON) tools/setup_env.py dev

setup-run:
	@$(PYTHON) tools/setup_env.py run

run: setup-run ## start everything on this machine and print how to call it (ARGS="--port 9000")
	@$(BIN)/lictor up $(ARGS)

demo: setup-run ## walk the example flows against a fresh stack (FLOW=name, SPLIT=1 for four processes)
	@$(BIN)/lictor demo $(if $(FLOW),--flow $(FLOW)) $(if $(SPLIT),--split) $(ARGS)

# Tests start some hundred processes. Where PYTHONDONTWRITEBYTECODE is set, each would compile the tree again.
# What does not compile is told by the checks and tests.
compiled: setup
	@$(BIN)/python -m compileall -qq services shared clients/python/lictor tests || true

test: compiled ## run the tests, three files at a time (ARGS="-k word", WORKERS=0 for one after the other)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

test-long: compiled ## run the long consistency and fault tests, those that measure nothing three at a time
	@$(BIN)/python tools/long_tests.py $(WORKERS) $(ARGS)

bench: setup ## measure against baselines, needs h2load (ONLY=a,b ROUNDS=5); see docs/performance.md
	@$(BIN)/python -m tests.bench --rounds $(ROUNDS) $(if $(ONLY),--only $(ONLY)) $(ARGS)

soak: setup ## load the envoy transport for a while and watch its memory (MINUTES=10, KINDS=a,b)
	@$(BIN)/python -m tests.bench.soak --minutes $(MINUTES) $(if $(KINDS),--kinds $(KINDS)) $(ARGS)

check: setup ## format, lint, types, import rules, contract, sizes, lock files, deploy/: all of them, then fail
	@$(MAKE) --no-print-directory -k -j $(JOBS) $(SYNC) $(CHECKS)

check-format:
	@$(BIN)/ruff format --check --quiet . || { echo "format: run make format"; exit 1; }

check-lint:
	@$(BIN)/ruff check --quiet .

check-types:
	@$(BIN)/pyright

check-imports:
	@PYTHONPATH=. $(BIN)/lint-imports

check-protos:
	@$(BIN)/python tools/protos.py check && $(BIN)/python tools/errors_doc.py check && $(BIN)/python tools/events_doc.py check

check-sizes:
	@$(BIN)/python tools/sizes.py

check-locks:
	@$(BIN)/python tools/lockfiles.py

check-deploy:
	@$(BIN)/python tools/deploy_check.py

protos: setup ## make the Python stubs, docs/errors.md and docs/events.md
	@$(BIN)/python tools/protos.py make && $(BIN)/python tools/errors_doc.py make && $(BIN)/python tools/events_doc.py make

format: setup ## format the code and fix what can be fixed by itself
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

lock: ## pin requirements/*.in anew (needs uv)
	@command -v uv >/dev/null || { echo "lock: uv is not installed; see its site for how"; exit 1; }
	@for name in $(LOCKS); do uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-header --no-annotate \
		requirements/$$name.in -o requirements/$$name.txt || exit 1; done

clean: ## remove what the tools leave; .venv and .lictor (your data) stay
	@rm -rf build .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info clients/python/*.egg-info
	@find services shared clients tools tests -name __pycache__ -type d -prune -exec rm -rf {} +
