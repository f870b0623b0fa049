#!/usr/bin/env bash
# make commit-rehearsal GRID=table2: reports the rehearsal of a grid into results/rehearsals/, the only results besides
# the paper's numbers that git keeps, and stages it. What `adarem report` writes by default is ignored by git.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin
grid=${1:-}
case $grid in
  "") echo "commit-rehearsal: GRID: missing; give the name of a grid, for instance GRID=table2" >&2; exit 2 ;;
  table3*) data=pydoc ;;
  *) data=digits ;;
esac
sweep=("grid=$grid" "data=$data")
[ ! -d "runs/$grid-$data-searched" ] || sweep=("grid=$grid-$data-searched")  # what `make reproduce-$grid` trains
"$bin"/adarem report "${sweep[@]}" results_dir=results/rehearsals
git add --all results/rehearsals
git status --short results/rehearsals
echo "staged; look at it, then: git commit"
