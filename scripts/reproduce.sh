#!/usr/bin/env bash
# make reproduce-GRID, make grid GRID=...: any grid of configs/grid, on embedded data on this machine, or with
# IMAGENET=/data/imagenet (a grid on the Penn Treebank: PTB=/data/ptb) at the paper's scale, through Slurm where there is
# sbatch and on this machine's GPUs where there is not. Other data that the grid's settings or OVERRIDES name are taken.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin
grid=${1:-}
name=${2:-reproduce-$grid}

fail() { echo "$name: $*" >&2; exit 2; }

[ -n "$grid" ] || fail "GRID: missing; give the name of a file of configs/grid, for instance GRID=table2"

# Which data the run is on: OVERRIDES', else the grid's own, else nothing; and whether OVERRIDES say what is trained.
# A grid that is no file is `adarem launch`'s to refuse.
found=$("$bin"/python -c '
import os, re, shlex, sys
from adarem.resources import config_files
from adarem.run.errors import UserError
import yaml
try:
    given = shlex.split(os.environ.get("OVERRIDES", ""))
except ValueError as e:
    sys.exit(f"{sys.argv[2]}: OVERRIDES: {e}; quote it as after `adarem launch`")
settings = []
try:
    settings = yaml.safe_load(config_files("grid")[sys.argv[1]].read_text())["settings"]
except (UserError, KeyError, TypeError, OSError, ValueError, yaml.YAMLError):
    pass
named = [f"given:{s}" for s in given] + [str(s) for s in settings if settings]
print(next((s.replace("data=", "", 1) for s in named if s.removeprefix("given:").startswith("data=")), ""))
print(any(re.match(r"[+~]*(grid|scale|data|model|optimizer|schedule|train)\b", s) for s in given))
' "$grid" "$name") || exit 2
data=${found%$'\n'*}
own=${found##*$'\n'}

overrides=("grid=$grid")
case $data in
  ptb) variable=PTB; embedded=pydoc; on_slurm=slurm_one; holds="ptb.train.txt, ptb.valid.txt and ptb.test.txt" ;;
  ""|imagenet) variable=IMAGENET; data=imagenet; embedded=digits; on_slurm=slurm
               holds="train/<wnid>/*.JPEG and val/<wnid>/*.JPEG" ;;
  *) variable= ;;
esac
root=${variable:+${!variable:-}}
if [ -z "$variable" ]; then
  :  # as the grid's settings or OVERRIDES say
elif [ -z "$root" ]; then
  overrides+=("data=$embedded")
  # They have a committed search with equal budgets for all optimizers: at the paper's rates some networks train badly
  # on them. Settings of the user's own go without it.
  searched=results/rehearsals/${grid}_search-$embedded/selected.yaml
  [ "$own" = True ] || [ ! -f "$searched" ] || overrides+=("grid.settings_from=$searched")
  case "$embedded $grid ${OVERRIDES:-}" in
    *cluster*|*model*|*scale=*|*scale.global*|*scale.micro*) ;;  # as OVERRIDES say
    "digits table"[12]*|"digits figure2"*|"digits lambda"*)
      overrides+=(cluster=rehearsal scale.micro_batch_size=32) ;;  # the same runs, sooner: configs/cluster/rehearsal.yaml
  esac
else
  [ -d "$root" ] || fail "$variable=$root: no such folder; it holds $holds"
  overrides+=("data=$data" "data.root=\${oc.env:$variable}")  # composing reads the variable: any path, nothing to quote
  if command -v sbatch >/dev/null; then
    overrides+=("cluster=$on_slurm")
  else
    gpus=$( { nvidia-smi -L 2>/dev/null || true; } | grep -c '^GPU' || true)
    [ "$gpus" -gt 0 ] || fail "no sbatch and no GPU here; run it on a cluster's login node, or leave $variable out for embedded data"
    [ "$data" = imagenet ] || gpus=1
    overrides+=(cluster=local cluster.device=cuda "cluster.ranks_per_node=$gpus" cluster.threads_per_rank=0)
    case "$data ${OVERRIDES:-}" in
      imagenet*scale*) ;;  # a batch of the user's own
      imagenet*) [ $((16 % gpus)) -ne 0 ] || overrides+=(scale.micro_batch_size=64) ;;  # as each of the paper's 16 GPUs
    esac
  fi
fi
if [ -n "${SEEDS:-}" ]; then
  read -rd '' -a seeds <<<"$SEEDS" || true
  overrides+=("seeds=[$(IFS=,; echo "${seeds[*]}")]")
fi
# OVERRIDES is split as a shell splits a command line, and nothing in it is executed.
exec "$bin"/python -c '
import os, shlex, sys
os.execv(sys.argv[1], [*sys.argv[1:], *shlex.split(os.environ.get("OVERRIDES", ""))])
' "$bin"/adarem launch "${overrides[@]}"
