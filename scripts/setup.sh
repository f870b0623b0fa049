#!/usr/bin/env bash
# setup.sh harness      installs what the harness needs: Debian packages where it may, the environment VENV (.venv, made
#                       with PYTHON where it is missing), and the pinned Python packages. Again: repairs what is missing.
# setup.sh container    the same as a user of the image needs it: no tools of development, nothing that leads back here
# setup.sh tests        installs what tests, docs and examples need besides
# setup.sh look NAME    installs nothing: is VENV an environment that has these modules?
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-harness}
environment=${VENV-.venv}
python=${PYTHON:-python3}
oldest=$(sed -n 's/^requires-python = ">=\([0-9]*\.[0-9]*\).*/\1/p' pyproject.toml)

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

# new_enough INTERPRETER REMEDY
new_enough() {
  "$1" -c "import sys; sys.exit(sys.version_info < (${oldest/./, }))" || fail "$1: $("$1" --version 2>&1) is too old; $2"
}

# packages WORDS: pip's, for what to install
packages() {
  echo "setup: installing the pinned Python packages into $environment (a few minutes the first time)"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt "$@" \
    2> >(grep -v '^WARNING: Location' >&2) || fail "pip could not install the packages; its own message is above"
  echo "setup: done"
}

[ -n "$environment" ] || fail "VENV: empty; activate an environment first, or leave VENV out"

case $what in
look)
  shift
  [ -x "$environment/bin/python" ] || fail "VENV=$environment: no bin/python there; make setup VENV=$(printf %q "$environment") makes it"
  new_enough "$environment/bin/python" "take an environment with Python $oldest or newer, or leave VENV out"
  for module in "$@"; do
    "$environment/bin/python" -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec(sys.argv[1]))' "$module" ||
      fail "VENV=$environment: $module is not installed there; make setup VENV=$(printf %q "$environment") installs the pinned packages into it"
  done
  exit ;;
tests)
  # A real Slurm cluster, a real browser, LaTeX and a real data set for the tests; without root they are skipped, and say so.
  if [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; then debian slurm-wlm munge chromium texlive-latex-base texlive-latex-recommended dataset-fashion-mnist; fi
  packages -e '.[dev,docs,examples]'
  exit ;;
esac

if [ -x "$environment/bin/python" ]; then
  remedy="remove $environment and run make again"
  [ "$environment" = .venv ] || remedy="take an environment with Python $oldest or newer, or leave VENV out"
  new_enough "$environment/bin/python" "$remedy"
else
  remedy="install Python $oldest or newer, or make PYTHON=/path/to/python3"
  command -v "$python" >/dev/null || fail "$python: not found; $remedy"
  new_enough "$python" "$remedy"
fi

# What ffcv 1.0.2 builds with. Where conda or a module system provides them, pkg-config finds them and nothing is installed.
if ! { command -v g++ && pkg-config --exists opencv4 libturbojpeg; } >/dev/null 2>&1; then
  debian g++ pkg-config libopencv-dev libturbojpeg0-dev
fi

if [ ! -x "$environment/bin/python" ]; then
  "$python" -c 'import os, sysconfig, ensurepip; assert os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))' \
    2>/dev/null || debian python3-venv python3-dev
  "$python" -m venv "$environment"
fi
case $what/$environment in
container/*) packages --no-cache-dir '.[harness,ffcv,workspaces]' ;;
harness/.venv) packages -e '.[harness,ffcv,workspaces]' ;;
*) packages -e '.[harness,ffcv,workspaces,dev,docs,examples]' ;; # nothing installs into it later
esac
