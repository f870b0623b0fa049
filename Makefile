# `make` or `make help` lists the targets. Settings: IMAGENET=/data/imagenet  PTB=/data/ptb  SEEDS="0 1 2"
# OVERRIDES="scale.epochs=30 'runs_dir=/a b'": words for `adarem launch`, quoted as there
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
IMAGENET ?=
PTB ?=
SEEDS ?=
GRID ?=
OVERRIDES ?=
ROUNDS ?= 50
# They reach the scripts as they were given: make would expand a variable of the command line when it is used or exported.
SETTINGS := PYTHON IMAGENET PTB SEEDS GRID OVERRIDES ROUNDS
$(foreach name,$(SETTINGS),$(eval override $(name) := $$(value $(name))))
export $(SETTINGS)

HARNESS := .venv/.harness-ready
TESTS := .venv/.tests-ready

.PHONY: help setup reproduce-table1 reproduce-table2 reproduce-table3 reproduce-figure2 reproduce-lambda search-table3 report commit-rehearsal status doctor test torture lint docs docs-build

help: ## list every target
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/' \
	  | while IFS=$$'\t' read -r name text; do printf '  make %-20s %s\n' "$$name" "$$text"; done

setup: $(HARNESS) ## system packages, virtual environment and pinned Python packages

$(HARNESS): pyproject.toml constraints.txt scripts/setup.sh
	@scripts/setup.sh harness
	@touch $@

$(TESTS): $(HARNESS) scripts/setup.sh
	@scripts/setup.sh tests
	@touch $@

reproduce-table1: $(HARNESS) ## Table 1 and Figure 5: six networks, SGDM against AdaRem-S (rehearsal without IMAGENET=)
	@scripts/reproduce.sh table1

reproduce-table2: $(HARNESS) ## Table 2 and Figure 4: ResNet-18 under six optimizers (rehearsal without IMAGENET=)
	@scripts/reproduce.sh table2

reproduce-table3: $(HARNESS) ## Table 3: the AWD-LSTM under SGDM, Adam, AdaRem (rehearsal without PTB=)
	@scripts/reproduce.sh table3

search-table3: $(HARNESS) ## the search for Table 3's learning rates and betas; reproduce-table3 takes the settings that it selects
	@scripts/reproduce.sh table3_search

reproduce-figure2: $(HARNESS) ## Figures 1 and 2: oscillation of ResNet-18 under SGD, SGDM, Adam, AdaRem
	@scripts/reproduce.sh figure2

reproduce-lambda: $(HARNESS) ## AdaRem's λ: multiplied once an epoch, at every step, never; other values
	@scripts/reproduce.sh lambda

report: $(HARNESS) ## tables, figures and claims again, of all sweeps under runs/
	@.venv/bin/adarem report

commit-rehearsal: $(HARNESS) ## report the rehearsal of GRID=table2 into results/rehearsals/, and stage it for git
	@scripts/commit_rehearsal.sh "$$GRID"

status: $(HARNESS) ## the state of every run
	@.venv/bin/adarem status

doctor: $(HARNESS) ## what this machine has and needs
	@.venv/bin/adarem doctor

test: $(TESTS) ## all tests, with a real Slurm cluster where this machine can start one
	@.venv/bin/python -m pytest -n 2 --dist loadfile

torture: $(TESTS) ## kill training ROUNDS=50 times, continue it, compare the final bits with those of undisturbed runs
	@.venv/bin/python scripts/torture.py --rounds "$$ROUNDS"

lint: $(TESTS) ## ruff, check and format; mypy, strict, over src
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

docs: $(TESTS) ## the documentation as a site, at http://127.0.0.1:8000
	@NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs serve --livereload

docs-build: $(TESTS) ## the same into build/site; fails on a broken link or anchor
	@NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build
