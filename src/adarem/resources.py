"""Finds configs, Slurm scripts and the paper's numbers: the user's own, then those of the checkout or of the package.

An installed package has them in its folder ``shipped/``, where setup.py puts them; a checkout has them at its top, also
for an editable install. Standard library only.
"""

import os
from pathlib import Path

from adarem.run.errors import UserError

_PACKAGE = Path(__file__).parent
_REINSTALL = "the installation is incomplete; run `pip install --force-reinstall --no-deps adarem`"


def _shipped(name: str) -> Path:
    """A folder of the repository, given by its path there: the package's copy, else that of the checkout."""
    inside = _PACKAGE / "shipped" / name
    return inside if inside.is_dir() else _PACKAGE.parents[1] / name


def shipped_configs() -> Path:
    """The ``configs/`` that come with adarem. Raises UserError where the installation lacks them."""
    place = _shipped("configs")
    if not (place / "run.yaml").is_file():
        raise UserError(f"{place}: no run.yaml there; {_REINSTALL}")
    return place


def config_dirs() -> list[Path]:
    """The folders of configs, of which the first that has a file counts: the user's own, if any, and adarem's.

    The user's own is $ADAREM_CONFIGS, else ``configs/`` in the current folder. It may hold as little as one file.

    Raises:
        UserError: $ADAREM_CONFIGS names no folder; adarem's own are not there.
    """
    shipped, asked = shipped_configs(), os.environ.get("ADAREM_CONFIGS")
    own = Path(asked).absolute() if asked else Path.cwd() / "configs"
    if asked and not own.is_dir():
        raise UserError(f"ADAREM_CONFIGS={asked}: no such folder; name a folder of configs, or unset it")
    return [own, shipped] if own.is_dir() and not own.samefile(shipped) else [shipped]


def config_files(group: str) -> dict[str, Path]:
    """The files of a group by name, ``{"adam": .../configs/optimizer/adam.yaml}``; the user's own before adarem's.

    Raises:
        UserError: one is a link to nowhere, in whose place Hydra would take adarem's own without a word.
    """
    found = {p.stem: p for place in reversed(config_dirs()) for p in (place / group).glob("[!.]*.yaml")}
    for path in found.values():
        if not path.exists():
            raise UserError(f"{path}: cannot be read (No such file or directory); fix the link, or remove it")
    return found


def config_groups() -> set[str]:
    """The names of all groups, the user's own among them."""
    return {p.name for place in config_dirs() for p in place.iterdir() if p.is_dir() and not p.name.startswith(".")}


def shipped_scripts() -> Path:
    """The folder of the Slurm scripts that come with adarem."""
    return _shipped("slurm")


def slurm_script(name: str) -> Path:
    """``slurm/<name>`` of the current folder, else adarem's own. Raises UserError where there is neither."""
    for place in (Path.cwd() / "slurm", shipped_scripts()):
        if (place / name).is_file():
            return place / name
    raise UserError(f"{shipped_scripts() / name}: no such file; {_REINSTALL}")


def find_paper_file(name: str, results_dir: Path) -> Path | None:
    """``<results_dir>/paper/<name>``, else the one that comes with adarem, else None."""
    places = [results_dir / "paper" / name, _shipped("results/paper") / name]
    return next((p for p in places if p.exists()), None)


def paper_file(name: str, results_dir: Path) -> Path:
    """As ``find_paper_file``. Raises UserError where there is no such file."""
    path = find_paper_file(name, results_dir)
    if path is None:
        raise UserError(f"{results_dir / 'paper' / name}: no such file, and none of this name comes with adarem")
    return path
