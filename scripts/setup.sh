#!/usr/bin/env bash
# Installs what the harness (or, with "tests", its test suite) needs: Debian packages where it may, a virtual
# environment in .venv, and the pinned Python packages. Running it again repairs what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-harness}
python=${PYTHON:-python3}

fail() { echo "setup: $*" >&2; exit 1; }

# Installs Debian packages: as root, through sudo, or not at all with one line that says what to install.
debian() {
  local missing=()
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local become=()
  if ! command -v apt-get >/dev/null; then
    fail "no apt-get here; install these yourself (Debian's names): ${missing[*]}, then run make again"
  elif [ "$(id -u)" != 0 ]; then
    if sudo -n true 2>/dev/null; then become=(sudo -n); else
      fail "needs system packages and may not install them; ask for: sudo apt-get install ${missing[*]}"; fi
  fi
  echo "setup: installing ${missing[*]}"
  "${become[@]}" apt-get update -qq
  "${become[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

command -v "$python" >/dev/null || fail "$python: not found; install Python 3.10 or newer, or make PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  fail "$("$python" --version) is too old; install Python 3.10 or newer, or make PYTHON=/path/to/python3"

if [ "$what" = tests ]; then
  # A real Slurm cluster, a real browser and LaTeX for the tests; without root they are skipped, and say so.
  if [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; then debian slurm-wlm munge chromium texlive-latex-base texlive-latex-recommended; fi
  exit 0
fi

# What ffcv 1.0.2 builds with. Where conda or a module system provides them, pkg-config finds them and nothing is installed.
if ! { command -v g++ && pkg-config --exists opencv4 libturbojpeg; } >/dev/null 2>&1; then
  debian g++ pkg-config libopencv-dev libturbojpeg0-dev
fi
"$python" -c 'import os, sysconfig, ensurepip; assert os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))' \
  2>/dev/null || debian python3-venv python3-dev

[ -x .venv/bin/python ] || "$python" -m venv .venv
echo "setup: installing the pinned Python packages into .venv (a few minutes the first time)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[harness,ffcv,workspaces,dev,docs,examples]' \
  2> >(grep -v '^WARNING: Location' >&2) || fail "pip could not install the packages; its own message is above"
echo "setup: done"
