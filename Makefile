# `make` or `make help` lists the targets. Settings: IMAGENET=/data/imagenet  PTB=/data/ptb  SEEDS="0 1 2"
# OVERRIDES="scale.epochs=30 'runs_dir=/a b'": words for `adarem launch`, quoted as there
# PYTHON=python3.12: the interpreter of the virtual environment .venv, when it is made
# VENV="$CONDA_PREFIX" or "$VIRTUAL_ENV": an environment of your own in place of .venv; only `make setup` installs into it
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
IMAGENET ?=
PTB ?=
SEEDS ?=
GRID ?=
OVERRIDES ?=
ROUNDS ?= 50
# They reach the scripts as they were given: make would expand a variable of the command line when it is used or exported.
SETTINGS := PYTHON VENV IMAGENET PTB SEEDS GRID OVERRIDES ROUNDS
$(foreach name,$(SETTINGS),$(eval override $(name) := $$(value $(name))))
export $(SETTINGS)

# .venv is made and kept up to date by whatever target needs it; another environment is checked and used as it is.
ifeq ($(VENV),.venv)
SETUP := .venv/.harness-ready
HARNESS := .venv/.harness-ready
TESTS := .venv/.tests-ready
else
SETUP := .own-setup
HARNESS := .own-harness
TESTS := .own-tests
endif
BIN := "$$VENV"/bin

.PHONY: help setup .own-setup .own-harness .own-tests reproduce-table1 reproduce-table2 reproduce-table3 reproduce-figure2 reproduce-lambda search-table1 search-table2 search-table3 grid report commit-rehearsal status doctor test test-installs torture lint docs docs-build

help: ## list every target
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/' \
	  | while IFS=$$'\t' read -r name text; do printf '  make %-20s %s\n' "$$name" "$$text"; done

setup: $(SETUP) ## system packages, virtual environment and pinned Python packages

.venv/.harness-ready: pyproject.toml constraints.txt scripts/setup.sh
	@scripts/setup.sh harness
	@touch $@

.venv/.tests-ready: .venv/.harness-ready
	@scripts/setup.sh tests
	@touch $@

.own-setup:
	@scripts/setup.sh harness

.own-harness:
	@scripts/setup.sh look adarem

.own-tests:
	@scripts/setup.sh look adarem pytest ruff mypy

reproduce-table1: $(HARNESS) ## Table 1 and Figure 5: six networks, SGDM against AdaRem-S (rehearsal without IMAGENET=)
	@scripts/reproduce.sh table1

reproduce-table2: $(HARNESS) ## Table 2 and Figure 4: ResNet-18 under six optimizers (rehearsal without IMAGENET=)
	@scripts/reproduce.sh table2

reproduce-table3: $(HARNESS) ## Table 3: the AWD-LSTM under SGDM, Adam, AdaRem (rehearsal without PTB=)
	@scripts/reproduce.sh table3

search-table1: $(HARNESS) ## a search for Table 1's settings on held-out images: 16 trials an optimizer and network, by halving
	@scripts/reproduce.sh table1_search search-table1

search-table2: $(HARNESS) ## a search for Table 2's and Figure 2's settings on held-out images: 16 trials an optimizer, by halving
	@scripts/reproduce.sh table2_search search-table2

search-table3: $(HARNESS) ## the search for Table 3's learning rates and betas
	@scripts/reproduce.sh table3_search search-table3

reproduce-figure2: $(HARNESS) ## Figures 1 and 2: oscillation of ResNet-18 under SGD, SGDM, Adam, AdaRem
	@scripts/reproduce.sh figure2

reproduce-lambda: $(HARNESS) ## AdaRem's λ: multiplied once an epoch, at every step, never; other values
	@scripts/reproduce.sh lambda

grid: $(HARNESS) ## plan, prepare, launch and report any grid: GRID=mine is configs/grid/mine.yaml
	@scripts/reproduce.sh "$$GRID" grid

report: $(HARNESS) ## tables, figures and claims again, of all sweeps under runs/
	@$(BIN)/adarem report

commit-rehearsal: $(HARNESS) ## report the rehearsal of GRID=table2 into results/rehearsals/, and stage it for git
	@scripts/commit_rehearsal.sh "$$GRID"

status: $(HARNESS) ## the state of every run
	@$(BIN)/adarem status

doctor: $(HARNESS) ## what this machine has and needs
	@$(BIN)/adarem doctor

test: $(TESTS) ## all tests but test-installs, with a real Slurm cluster where this machine can start one
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-installs: $(TESTS) ## set-ups from nothing: each Python that is here, the containers' install lines (gigabytes, up to an hour)
	@$(BIN)/python -m pytest -m installs

torture: $(TESTS) ## kill training ROUNDS=50 times, continue it, compare the final bits with those of undisturbed runs
	@$(BIN)/python scripts/torture.py --rounds "$$ROUNDS"

lint: $(TESTS) ## ruff, check and format; mypy, strict, over src
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: $(TESTS) ## the documentation as a site, at http://127.0.0.1:8000
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --livereload

docs-build: $(TESTS) ## the same into build/site; fails on a broken link or anchor
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
