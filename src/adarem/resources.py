"""Finds what the code needs next to itself: configs, Slurm scripts and the paper's numbers. Standard library only."""

import os
from pathlib import Path

from adarem.run.errors import UserError

_CHECKOUT = Path(__file__).parents[2]


def config_dir() -> Path:
    """The ``configs/`` folder: $ADAREM_CONFIGS, that of the working directory, or that of the checkout.

    Raises:
        UserError: none of them holds run.yaml.
    """
    asked = os.environ.get("ADAREM_CONFIGS")
    places = [Path(asked)] if asked else [Path.cwd() / "configs", _CHECKOUT / "configs"]
    for place in places:
        if (place / "run.yaml").is_file():
            return place.resolve()
    raise UserError(f"{places[0]}: no run.yaml there; run from a checkout, or set ADAREM_CONFIGS to its configs folder")


def slurm_script(name: str) -> Path:
    """``slurm/<name>`` of the checkout, else of the working directory. Raises UserError where neither has it."""
    for root in (_CHECKOUT, Path.cwd()):
        if (root / "slurm" / name).is_file():
            return root / "slurm" / name
    raise UserError(f"slurm/{name}: not found; start `adarem launch` in a checkout of the repository")


def find_paper_file(name: str, results_dir: Path) -> Path | None:
    """``<results_dir>/paper/<name>``, else that of the checkout, else None."""
    places = [results_dir / "paper" / name, _CHECKOUT / "results" / "paper" / name]
    return next((p for p in places if p.exists()), None)


def paper_file(name: str, results_dir: Path) -> Path:
    """As ``find_paper_file``. Raises UserError where there is no such file."""
    path = find_paper_file(name, results_dir)
    if path is None:
        raise UserError(
            f"{results_dir / 'paper' / name}: no such file; the repository has the paper's numbers in results/paper/"
        )
    return path
