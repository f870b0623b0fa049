#!/usr/bin/env bash
# make reproduce-GRID: the embedded rehearsal on this machine, or with IMAGENET=/data/imagenet (Table 3: PTB=/data/ptb)
# the paper's scale, through Slurm where there is sbatch and on this machine's GPUs where there is not.
set -euo pipefail
cd "$(dirname "$0")/.."
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
  quoted=${root//\\/\\\\}; quoted=${quoted//\"/\\\"}
  overrides+=("data=$data" "data.root=\"$quoted\"")
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
  read -ra seeds <<<"$SEEDS"
  overrides+=("seeds=[$(IFS=,; echo "${seeds[*]}")]")
fi
read -ra extra <<<"${OVERRIDES:-}"
exec .venv/bin/adarem launch "${overrides[@]}" "${extra[@]}"
