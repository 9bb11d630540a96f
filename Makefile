# Everything on a fresh machine needs Python 3.11 or newer, make and the package registry.
PYTHON ?= python3
BIN := .venv/bin

# What the peers do in `make bench`: about half an hour on two cores, after the environments are built. To their own best,
# which takes hours: make bench PEERS="--rows palate rectools-sasrec palate".
PEERS ?= --quick --steps 8
# Tests use one thread each, so several files of them run at a time; some longer proofs measure times, and run alone.
TOGETHER := -n auto --maxprocesses 4 --dist loadfile

.PHONY: demo test test-all check format bench page clean

demo: .venv/installed           ## train on a real shop's data and write a report
	$(BIN)/palate demo --out runs/demo

test: .venv/installed-dev       ## the test suite
	$(BIN)/python -m pytest $(TOGETHER)

test-all: .venv/installed-dev   ## the test suite with the longer proofs
	$(BIN)/python -m pytest -m "slow or not slow"

check: .venv/installed-dev      ## format, lint, types, import order
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev     ## put the source into form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/installed-dev      ## measurements side by side
	$(BIN)/python -m bench.prepare
	$(BIN)/python -m bench.step --write
	$(BIN)/python -m bench.scale --write
	$(BIN)/python -m bench.peers.run $(PEERS) --write peers

page:                           ## build the page that palate serve shows; needs Node 20 or newer
	cd page && npm ci --ignore-scripts --no-audit --no-fund && npm run build

clean:                          ## forget the environment and all runs
	rm -rf .venv runs

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1,<26.2"

# torch comes first and alone: with another torch in reach, other packages may pull in a far larger build.
.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[train,serve]"
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt --group dev
	@touch $@
