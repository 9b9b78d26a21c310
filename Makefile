# Every goal does its own set-up. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup quickstart test lint format types contracts unit cluster-tests container-tests cluster cluster-stop lock bench table chaos
MAKEFLAGS += --no-print-directory
BIN := .venv/bin
TESTS := $(BIN)/python -m pytest --must-run --durations=15

# $(call stage,NAME,COMMAND): run it, and say how long it took.
define stage
@printf '\n== %s\n' '$(1)'; began=$$(date +%s); code=0; { $(2); } || code=$$?; \
printf '== %s: %s s\n' '$(1)' "$$(($$(date +%s) - began))"; exit $$code
endef

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

setup:  ## .venv from the locks; done again only when they change (PYTHON=... chooses the interpreter)
	@images/venv.sh

quickstart: setup  ## three seeds of a tiny transformer learn to add, on this machine
	@$(BIN)/launch configs/quickstart.yaml

test:  ## everything: set-up, lint, types, import contracts, all tests on a real Slurm
	$(call stage,setup,images/venv.sh)
	$(call stage,lint,$(MAKE) lint)
	$(call stage,types,$(MAKE) types)
	$(call stage,contracts,$(MAKE) contracts)
	$(call stage,unit tests,$(MAKE) unit)
	$(call stage,cluster tests,$(MAKE) cluster-tests)
	$(call stage,container tests,$(MAKE) container-tests)

lint: setup  ## ruff, on code and on its form
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

format: setup  ## let ruff put the code into form
	@$(BIN)/ruff format

types: setup  ## mypy, strict
	@$(BIN)/mypy
	@MYPYPATH=slurm $(BIN)/mypy slurm/cluster

contracts: setup  ## who may import whom
	@$(BIN)/lint-imports --no-cache

unit: setup  ## all tests but those on Slurm and in containers
	@$(TESTS) -n 2 --ignore=tests/cluster --ignore=tests/container tests

cluster-tests: setup  ## the tests on Slurm (as root, or with a sudo that asks nothing; installs Debian's packages)
	@$(TESTS) -n 2 --dist loadfile tests/cluster

container-tests: setup  ## the tests in Docker and Apptainer on Slurm (as root, or with such a sudo; installs Debian's packages)
	@$(TESTS) -n 2 --dist loadfile tests/container

cluster: setup  ## start a real four-node Slurm on this machine, CONTAINERS=1 with Docker and Apptainer (docs/testcluster.md)
	@slurm/testcluster start --install $(if $(CONTAINERS),--containers)

cluster-stop:  ## stop it; keeps the user's home
	@slurm/testcluster stop

lock: setup  ## write the locks anew from pyproject.toml (UPGRADE=1 takes the newest versions)
	@$(BIN)/python images/lock.py $(if $(UPGRADE),--upgrade)

table: setup  ## docs/causes.md: each cause on each set-up and version of Slurm, from real runs (as root; about ten minutes)
	@$(BIN)/python tests/table.py

chaos: setup  ## docs/chaos.md: `launch chaos` on a real Slurm in every engine, and without one (as root; about an hour)
	@$(BIN)/python tests/chaos_matrix.py

bench: setup  ## measurements, as medians
	@for file in tests/bench/bench_*.py; do echo "== $$file"; $(BIN)/python "$$file" || exit 1; done
