#!/usr/bin/env bash
# make reproduce-GRID: the embedded rehearsal on this machine, or with IMAGENET=/data/imagenet the paper's scale, through
# Slurm where there is sbatch and on this machine's GPUs where there is not.
set -euo pipefail
cd "$(dirname "$0")/.."
grid=$1

fail() { echo "reproduce-$grid: $*" >&2; exit 2; }

overrides=("grid=$grid")
if [ -z "${IMAGENET:-}" ]; then
  overrides+=(data=digits)
else
  [ -d "$IMAGENET" ] || fail "IMAGENET=$IMAGENET: no such folder; it holds train/<wnid>/*.JPEG and val/<wnid>/*.JPEG"
  quoted=${IMAGENET//\\/\\\\}; quoted=${quoted//\"/\\\"}
  overrides+=(data=imagenet "data.root=\"$quoted\"")
  if command -v sbatch >/dev/null; then
    overrides+=(cluster=slurm)
  else
    gpus=$( { nvidia-smi -L 2>/dev/null || true; } | grep -c '^GPU' || true)
    [ "$gpus" -gt 0 ] || fail "no sbatch and no GPU here; run it on a cluster's login node, or leave IMAGENET out for a rehearsal"
    overrides+=(cluster=local cluster.device=cuda "cluster.ranks_per_node=$gpus" cluster.threads_per_rank=0)
  fi
fi
if [ -n "${SEEDS:-}" ]; then
  read -ra seeds <<<"$SEEDS"
  overrides+=("seeds=[$(IFS=,; echo "${seeds[*]}")]")
fi
read -ra extra <<<"${OVERRIDES:-}"
exec .venv/bin/adarem launch "${overrides[@]}" "${extra[@]}"
