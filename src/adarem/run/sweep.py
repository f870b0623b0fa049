"""A campaign: the runs of one grid on one set of data, ``runs/<campaign>/``, and the names of its cells.

Standard library and yaml only.
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.files import write_atomically

# The scale at which a set of data is used where nothing else is said; any other goes into a campaign's name.
OWN_SCALE = {"imagenet": "paper", "ptb": "paper_text", "pydoc": "rehearsal_text"}


def folder_name(grid: str, data: str, scale: str) -> str:
    """Name of the folder under runs/ for a grid: ``table2`` for the paper's own setting, else with what differs."""
    words = [grid]
    if data not in ("imagenet", "ptb"):
        words.append(data)
    if scale != OWN_SCALE.get(data, "rehearsal"):
        words.append(scale)
    return "-".join(words)


def campaign_scale(data: str, scale: str, reproduces: bool) -> str:
    """The scale in a campaign's name: ``trial`` where the name would be a reproduction's and a cell of it is none.

    One shorter run in ``runs/table2`` would make a rehearsal of the whole table.
    """
    of_paper = data in ("imagenet", "ptb") and scale == OWN_SCALE[data]
    return "trial" if of_paper and not reproduces else scale


def write_campaign(folder: Path, grid: dict[str, Any]) -> None:
    """Keeps the grid's title, axes, layout and selection rule beside its runs, for the report."""
    text = "# Written by `adarem plan` for `adarem report`.\n" + yaml.safe_dump(
        grid, sort_keys=False, allow_unicode=True
    )
    write_atomically(folder / "grid.yaml", text)


def read_campaign(folder: Path) -> dict[str, Any]:
    """Raises UserError when the folder was not made by ``adarem plan``, or its grid.yaml is damaged."""
    path = folder / "grid.yaml"
    try:
        grid = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: no grid.yaml there; `adarem plan` makes it") from None
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror}); mend that, or plan the grid again") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not text; plan the grid again") from None
    except (yaml.YAMLError, ValueError):
        raise UserError(f"{path}: not valid YAML; plan the grid again") from None
    if not isinstance(grid, dict):
        raise UserError(f"{path}: holds no mapping; plan the grid again")
    if wrong := [k for k, fits in _FITS.items() if k in grid and not fits(grid[k])]:
        raise UserError(f"{path}: {wrong[0]}: not as `adarem plan` writes it; plan the grid again")
    return grid


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


# What stands under the keys that the report reads.
_FITS: dict[str, Callable[[Any], bool]] = {
    "name": lambda v: isinstance(v, str),
    "axes": lambda v: isinstance(v, dict) and all(map(_are_names, v.values())),
    "metrics": _are_names,
    "seeds": lambda v: isinstance(v, list),
    "heading": lambda v: v is None or isinstance(v, str),
    "labels": lambda v: isinstance(v, dict) and all(isinstance(of, dict) for of in v.values()),
}


_LONGEST_NAME = 180  # characters; wandb and Slurm add their own


def cell_name(model: str, optimizer: str, seed: int, overrides: dict[str, Any]) -> str:
    """``resnet18-adarem-s0``; overrides off the axes join it: ``resnet18-adarem-weight_decay=0.0005-s0``."""
    words = [model, optimizer, *(f"{k.rsplit('.', 1)[-1]}={v}" for k, v in sorted(overrides.items())), f"s{seed}"]
    name = re.sub(r"[^A-Za-z0-9_.=+-]+", "_", "-".join(words))
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256("-".join(words).encode()).hexdigest()[:12]  # file systems take 255 characters
    return f"{name[: _LONGEST_NAME - 14]}--{digest}"


def runs_in(folder: Path) -> list[RunDir]:
    """The runs of one campaign, in order of name."""
    if not folder.is_dir():
        return []
    return [RunDir(p) for p in sorted(folder.iterdir()) if (p / "config.yaml").exists()]


def directories(folder: Path) -> list[RunDir]:
    """Whatever under ``runs/<campaign>/`` holds a file of a run, in order of name; Slurm's logs and the like do not."""
    runs = [RunDir(p) for p in sorted(folder.iterdir()) if p.is_dir()]
    return [
        r
        for r in runs
        if any(f.exists() for f in (r.config_file, r.attempts_file, r.metrics_file, r.result_file, r.checkpoints))
    ]
