#!/usr/bin/env bash
# make reproduce-GRID: the embedded rehearsal on this machine, or with IMAGENET=/data/imagenet (Table 3: PTB=/data/ptb)
# the paper's scale, through Slurm where there is sbatch and on this machine's GPUs where there is not.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${VENV:-.venv}/bin
grid=$1

fail() { echo "reproduce-$grid: $*" >&2; exit 2; }

case $grid in
  table3*) variable=PTB; data=ptb; embedded=pydoc; on_slurm=slurm_one
           holds="ptb.train.txt, ptb.valid.txt and ptb.test.txt" ;;
  *) variable=IMAGENET; data=imagenet; embedded=digits; on_slurm=slurm
     holds="train/<wnid>/*.JPEG and val/<wnid>/*.JPEG" ;;
esac
overrides=("grid=$grid")
root=${!variable:-}
if [ -z "$root" ]; then
  overrides+=("data=$embedded")
else
  [ -d "$root" ] || fail "$variable=$root: no such folder; it holds $holds"
  overrides+=("data=$data" "data.root=\${oc.env:$variable}")  # composing reads the variable: any path, nothing to quote
  if command -v sbatch >/dev/null; then
    overrides+=("cluster=$on_slurm")
  else
    gpus=$( { nvidia-smi -L 2>/dev/null || true; } | grep -c '^GPU' || true)
    [ "$gpus" -gt 0 ] || fail "no sbatch and no GPU here; run it on a cluster's login node, or leave $variable out for a rehearsal"
    [ "$data" = imagenet ] || gpus=1
    overrides+=(cluster=local cluster.device=cuda "cluster.ranks_per_node=$gpus" cluster.threads_per_rank=0)
  fi
fi
if [ -n "${SEEDS:-}" ]; then
  read -rd '' -a seeds <<<"$SEEDS" || true
  overrides+=("seeds=[$(IFS=,; echo "${seeds[*]}")]")
fi
# OVERRIDES is split as a shell splits a command line, and nothing in it is executed.
exec "$bin"/python -c '
import os, shlex, sys
try:
    extra = shlex.split(os.environ.get("OVERRIDES", ""))
except ValueError as e:
    print(f"{sys.argv[1]}: OVERRIDES: {e}; quote it as after `adarem launch`", file=sys.stderr)
    sys.exit(2)
os.execv(sys.argv[2], [*sys.argv[2:], *extra])' "reproduce-$grid" "$bin"/adarem launch "${overrides[@]}"
