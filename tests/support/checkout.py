"""A copy of the checkout to work in: what git tracks, and a ``.venv`` whose commands run the copy's code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT


def copy_checkout(place: Path) -> Path:
    """Copies the files that git tracks, and those that it does not ignore, to ``place``."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, place / name
        if source.is_file():  # and not removed since
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    commands = place / ".venv" / "bin"
    commands.mkdir(parents=True)
    for command in Path(sys.executable).parent.iterdir():
        if command.name.startswith("python"):
            called = f"{sys.executable}"
        elif command.name == "adarem":
            called = f"{sys.executable} -m adarem"
        elif command.is_file() and os.access(command, os.X_OK):
            called = f"{command}"
        else:
            continue
        shim = commands / command.name
        shim.write_text(f'#!/bin/sh\nPYTHONPATH="{place}/src${{PYTHONPATH:+:$PYTHONPATH}}" exec {called} "$@"\n')
        shim.chmod(0o755)
    for ready in (".harness-ready", ".tests-ready"):  # for make
        (place / ".venv" / ready).touch()
    return place
