"""Virtual environments that hold a few of the packages installed here, linked and not downloaded, and no adarem."""

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@dataclass(frozen=True)
class Venv:
    """A virtual environment, and a folder in which its commands run."""

    path: Path
    folder: Path

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        (found,) = self.path.glob("lib/python*/site-packages")
        return found

    def install(self, *arguments: str) -> None:
        """``pip install`` of a wheel or a source, for which everything that it requires must be there."""
        # Without --no-deps: the links are complete only if pip finds each requirement among them.
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "--isolated", "install", "--no-index"]
        done = subprocess.run([*pip, *arguments], capture_output=True, text=True, env=clean_environment(self.folder))
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment, for instance ``adarem``, in its folder, with nothing of this checkout."""
        return subprocess.run(
            [str(self.path / "bin" / command[0]), *command[1:]],
            cwd=self.folder,
            env=clean_environment(self.folder) | environment,
            capture_output=True,
            text=True,
            timeout=600,
        )


def make_venv(place: Path, packages: Iterable[str]) -> Venv:
    """A virtual environment with ``packages`` (``ffcv``, ``torch``) and all that they require, and an empty folder.

    The packages are links to those of the running Python.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place / "venv")], check=True)
    (place / "empty").mkdir()
    venv = Venv(place / "venv", place / "empty")
    for name in closure(packages):
        link(importlib.metadata.distribution(name), venv.site_packages)
    return venv


def closure(packages: Iterable[str]) -> set[str]:
    """The packages and all that they require here, in canonical spelling."""
    found: set[str] = set()
    asked = [Requirement(p) for p in packages]
    seen = set()
    while asked:
        requirement = asked.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *sorted(requirement.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            found.add(name)
            lines = map(Requirement, importlib.metadata.distribution(name).requires or ())
            asked += [r for r in lines if r.marker is None or r.marker.evaluate({"extra": extra})]
    return found


def link(distribution: importlib.metadata.Distribution, site_packages: Path) -> None:
    """Links the top-level files and folders of a package into another environment."""
    root = Path(str(distribution.locate_file("")))
    for name in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
        target = site_packages / name
        if not target.exists():
            target.symlink_to(root / name)


def clean_environment(home: Path) -> dict[str, str]:
    """This process's variables without those that lead back to the checkout or to the user's own settings."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "ADAREM_CONFIGS", "PIP_FIND_LINKS")
    kept = {k: v for k, v in os.environ.items() if k not in dropped}
    return kept | {"HOME": str(home.parent), "WANDB_MODE": "disabled"}
