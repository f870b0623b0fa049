#!/usr/bin/env bash
# container-install.sh: adarem with FFCV into /opt/adarem of a bare Debian, out of the files next to this script's folder.
# Dockerfile and apptainer.def run it as root; what it leaves behind is only read.
set -euo pipefail
cd "$(dirname "$0")/.."
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 VENV=/opt/adarem
apt-get update -qq
apt-get install -y -qq --no-install-recommends ca-certificates python3 python3-dev python3-venv >/dev/null
scripts/setup.sh container
rm -rf /var/lib/apt/lists/* /root/.cache
useradd --uid 1000 --create-home adarem # a default; any other user works too
