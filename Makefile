# The two commands: `make demo` and `make test`.
# Every target does its own set-up, in .venv, from the pins in requirements/. Needed: Python 3.11+ and make.
#
#   make test PROCESSES=8     test processes side by side (4)
#   make test COVERAGE=1      with branch coverage
#   make soak MINUTES=120     faults injected for that long (30), and a table
#   make bench PEERS=1        beside other libraries, too: ABSURD_SCHEMA=absurd.sql for Absurd
#   make api PORT=8000        the sign-up demo over HTTP
#   make mutants          shows that the tests go red without the guards
#   make demo PYTHON=python3.13

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
PROCESSES ?= 4
MINUTES ?= 30
ROUNDS ?= 5
FLOWS ?= 1000
PORT ?= 8000

BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --no-deps

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The tests start hundreds of processes: each would compile the source again.
unexport PYTHONDONTWRITEBYTECODE
# pyright: do not ask the network whether there is a newer one.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# The tests' databases are kept in memory where there is room for them: that saves a tenth of the time.
export PYTEST_DEBUG_TEMPROOT ?= $(shell free=$$(df -Pm /dev/shm 2>/dev/null | awk 'END { print $$4 }'); \
	[ "$${free:-0}" -gt 4000 ] && echo /dev/shm || echo "$${TMPDIR:-/tmp}")

.PHONY: demo test checks lint types mypy pyright bench soak mutants docs api assets clean

demo: .venv/installed
	$(BIN)/python examples/crash_and_resume.py

test: checks assets
ifdef COVERAGE
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(PROCESSES) --dist worksteal
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
else
	$(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal
endif

# Side by side; the set-up that they share comes first.
checks: .venv/tools
	$(MAKE) --no-print-directory -j2 lint mypy pyright docs

lint: .venv/tools
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest -q tests/unit/test_layout.py

types: mypy pyright

mypy: .venv/tools
	$(BIN)/mypy

pyright: .venv/tools
	$(BIN)/pyright --pythonpath $(BIN)/python

# With peers, a PostgreSQL server is measured too, and docs/benchmarks.* hold the figures.
ifdef PEERS
bench: .venv/tools .venv/peers/installed
	$(BIN)/python -m benchmarks --rounds $(ROUNDS) --flows $(FLOWS) --page docs --peers .venv/peers/bin/python \
		$(if $(ABSURD_SCHEMA),--absurd-schema $(ABSURD_SCHEMA))
else
bench: .venv/installed
	$(BIN)/python -m benchmarks --rounds $(ROUNDS)
endif

# All cases on both stores; one of the trials' tests may run for as long as the soak does.
soak: mutants
	PERSISTASAURUS_ALL_CASES=1 $(BIN)/python -m pytest -q -n $(PROCESSES) --dist worksteal tests/flows tests/web
	PERSISTASAURUS_SOAK_MINUTES=$(MINUTES) $(BIN)/python -m pytest --timeout=0 tests/crash/test_soak.py

# Takes each guard away from a copy of the source: tests must go red.
mutants: .venv/tools
	$(BIN)/python -m tests.mutants

docs: .venv/installed
	$(BIN)/python docs/check_links.py

# The demo's server. On loopback, with its API reference at /scalar.
api: .venv/tools assets
	$(BIN)/uvicorn examples.signup.api:app --host 127.0.0.1 --port $(PORT)

# What the pages load in a browser. Without npm they say so, and all else works.
assets: .venv/assets

clean:
	rm -rf .venv node_modules src/persistasaurus/web/static build dist htmlcov .coverage .coverage.* \
		.hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- set-up: each file is touched when its step is done, and made again when what it depends on changes ---

.venv/runtime: requirements/runtime.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer was found. Name one: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(PIP_INSTALL) -r requirements/runtime.txt
	@touch $@

# --no-build-isolation: the pinned hatchling builds, instead of one that pip would fetch for the occasion.
.venv/installed: .venv/runtime pyproject.toml
	$(PIP_INSTALL) --no-build-isolation --editable .
	$(BIN)/python -m pip check
	@touch $@

.venv/tools: .venv/installed requirements/extras.txt requirements/tools.txt
	$(PIP_INSTALL) -r requirements/extras.txt -r requirements/tools.txt
	$(BIN)/python -m pip check
	@touch $@

# The peers want other versions of what they share with us.
.venv/peers/installed: .venv/runtime benchmarks/requirements-peers.txt
	$(BIN)/python -m venv --clear .venv/peers
	.venv/peers/bin/python -m pip install --quiet --no-deps -r benchmarks/requirements-peers.txt
	.venv/peers/bin/python -m pip check
	@touch $@

# No stamp without npm: the next run looks for it again.
.venv/assets: .venv/tools package.json package-lock.json .npmrc .ci/assets.py src/persistasaurus/web/_assets.py
	@if command -v npm >/dev/null; then \
		npm ci --loglevel=error && $(BIN)/python .ci/assets.py && touch $@; \
	else $(BIN)/python .ci/assets.py --missing; fi
