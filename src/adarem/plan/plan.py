"""Control plane, first half: a grid file and the user's overrides become run directories.

Which cells a grid has and what they are called; ``adarem.plan.compose`` makes the config of each. Everything is
composed and checked before the first file is written; planning twice changes nothing.
"""

import itertools
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adarem.plan.compose import AXES, check, compose_cell, compose_grid, composing, labels, parse, values
from adarem.plan.selection import winners
from adarem.run.config import MODELS, SEEDS, GridFile, RunConfig, build, check_name, nearest
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.schema import variant
from adarem.run.sweep import campaign_scale, folder_name, write_campaign

METRICS = ("top1", "top5", "perplexity", "val_perplexity", "q_mean")  # as the report knows them; a test compares


@dataclass(frozen=True)
class Cell:
    """One run of a plan; ``new`` when no run directory stood there before."""

    run: RunDir
    config: RunConfig
    new: bool


@dataclass(frozen=True)
class Plan:
    """A composed and checked grid. Nothing is on disk before ``write``."""

    folder: Path  # runs/<campaign>
    runs_dir: Path
    results_dir: Path
    grid: dict[str, Any]
    cells: list[Cell]

    def write(self) -> None:
        """Freezes every cell's run directory and the grid file beside them."""
        write_campaign(self.folder, self.grid)
        for cell in self.cells:
            cell.run.freeze(cell.config)

    def describe(self) -> str:
        """The cells as a plain table, and where they lie."""
        rows = [("cell", "model", "optimizer", "lr", "weight decay", "seed", "status")]
        for cell in self.cells:
            c = cell.config
            status = "new" if cell.new else cell.run.status()
            rows.append(
                (
                    c.cell,
                    c.model.label,
                    c.optimizer.label,
                    f"{c.optimizer.lr:g}",
                    f"{c.optimizer.weight_decay:g}",
                    str(c.seed),
                    status,
                )
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        table = ["  ".join(word.ljust(w) for word, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        c = next((cell.config for cell in self.cells if cell.config.rehearsal), self.cells[0].config)
        head = [
            f"{self.grid['name']}: {self.grid['title']}",
            f"{c.data.label}, {c.scale.epochs} epochs, global batch {c.scale.global_batch_size}, {c.schedule.name} "
            f"schedule, {c.cluster.nodes} x {c.cluster.ranks_per_node} ranks on {c.cluster.device} ({c.cluster.name})",
        ]
        if c.rehearsal:
            head.append(f"REHEARSAL: {c.rehearsal}")
        if self.grid.get("winners"):
            head.append(f"selection: {self.grid['selection']}")
        new = sum(cell.new for cell in self.cells)
        return "\n".join([*head, "", *table, "", f"{len(self.cells)} cells, {new} new, in {self.folder}"])


def make_plan(overrides: list[str]) -> Plan:
    """Composes and checks every cell of a grid.

    Args:
        overrides: Hydra overrides. A comma-separated value is an axis of the grid; one of an axis that the grid has
            replaces it (``optimizer=sgdm,adarem``); any other becomes a further axis (``optimizer.lr=0.1,0.2``).

    Raises:
        UserError: one line that names the key and the nearest valid name.
    """
    given = parse(overrides)
    with composing():
        grid, runs_dir, results_dir = compose_grid([o.input_line for o in given.values() if not o.is_sweep_override()])
        _check_grid(grid)
        axes_given = {k for k, o in given.items() if k in grid["axes"] or o.is_sweep_override()}
        shared = [o.input_line for k, o in given.items() if k not in axes_given]
        # What the grid itself settles, where the user does not settle it otherwise.
        settled = [s for s in grid.get("settings") or [] if s.split("=")[0].lstrip("+~") not in given]
        axes = {k: [str(v) for v in of_axis] for k, of_axis in grid["axes"].items()}
        axes |= {k: values(o) for k, o in given.items() if k in axes_given}
        seeds = _seeds(given["seeds"].value() if "seeds" in given else grid["seeds"])
        off_axes = [o for k, o in given.items() if k not in axes_given]
        choices = _choices(grid, axes, set(given))
        first = compose_cell(choices[0], seeds[0], [*settled, *shared], off_axes)
        best, chosen = _winners(grid.get("winners"), runs_dir, first)
        cells = []
        for choice in choices:
            won = [f"{k}={v}" for k, v in best.get(choice["optimizer"], {}).items() if k not in given]
            cells += [compose_cell(choice, seed, [*settled, *won, *shared], off_axes) for seed in seeds]
    scale = campaign_scale(first.data.name, first.scale.name, all(c.rehearsal is None for c in cells))
    folder = runs_dir / folder_name(grid["name"], first.data.name, scale)
    _check_library_models({c.model.name for c in cells if c.model.kind == "images"} - set(MODELS))
    runs = [RunDir(folder / c.cell) for c in cells]
    twice = {c.cell for c in cells if sum(c.cell == d.cell for d in cells) > 1}
    if twice:
        raise UserError(
            f"two cells of the grid have the same name {sorted(twice)[0]}: the same value twice on an axis?"
        )
    for run, config in zip(runs, cells, strict=True):
        run.check(config)
    grid |= {"axes": axes, "seeds": seeds, "data": first.data.name, "scale": scale}
    grid |= {"labels": _labels(grid, cells)}
    grid["selection"] = "; ".join(filter(None, [grid.get("selection"), chosen]))
    planned = [Cell(r, c, not r.config_file.exists()) for r, c in zip(runs, cells, strict=True)]
    return Plan(folder, runs_dir, results_dir, grid, planned)


def _check_grid(grid: Any) -> None:
    """Whether a grid file, and what overrides made of it, has the shape of one. Inside of ``composing``.

    Raises:
        UserError: an unknown, missing or ill-typed key, a name that fits no file, an empty axis, an unknown setting.
    """
    g = build(GridFile, grid, "grid")
    for key in ("name", "paper", "figure", "winners"):
        if (value := getattr(g, key)) is not None:
            check_name(f"grid.{key}", value)
    if unknown := [m for m in g.metrics if m not in METRICS]:
        raise UserError(f"grid.metrics={list(g.metrics)}: {unknown[0]}: {nearest(unknown[0], METRICS)}")
    if not g.metrics:
        raise UserError(f"grid.metrics=[]: needs at least one of {', '.join(METRICS)}")
    for key in ("model", "optimizer"):
        if key not in g.axes:
            raise UserError(f"grid.axes.{key}: missing; every grid has this axis, if only of one value")
    for key, tried in _mapping("grid.axes", g.axes).items():
        if "." not in key and key not in AXES:
            raise UserError(f"grid.axes.{key}: no axis; {nearest(key, AXES)}, or a dotted key such as optimizer.lr")
        _check_tried(f"grid.axes.{key}", key, tried)
    for label, settings in (g.variants or {}).items():
        where = f"grid.variants.{label}"
        for key, value in _mapping(where, settings).items():
            _check_tried(where, key, [value])
    for optimizer, search in (g.search or {}).items():
        check([f"optimizer={optimizer}"], "grid.search")
        for key, tried in _mapping(f"grid.search.{optimizer}", search).items():
            _check_tried(f"grid.search.{optimizer}.{key}", key, tried)
    check(list(g.settings or ()), "grid.settings")


def _check_tried(where: str, key: str, tried: Any) -> None:
    """Raises UserError unless ``tried`` is a list of values that a cell can have under ``key``."""
    if not isinstance(tried, list) or not tried:
        raise UserError(f"{where}={tried}: needs a list of at least one value")
    for value in tried:
        if not isinstance(value, str | int | float):
            raise UserError(f"{where}={tried}: needs names and numbers, not {value}")
    check([f"{key}={value}" for value in tried], where)


def _mapping(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{where}={value}: needs a mapping of settings, for instance {{optimizer.lr: ...}}")
    return value


def _choices(grid: Mapping[str, Any], axes: Mapping[str, list[str]], given: set[str]) -> list[dict[str, str]]:
    """Every place in the grid, by key: the axes' product, times its variants, times what a search varies for the
    optimizer alone. What the user settles leaves the latter two, and a place that is then there twice counts once.
    """
    variants = list((grid.get("variants") or {"": {}}).values())
    found = []
    for of_axes in itertools.product(*axes.values()):
        choice = dict(zip(axes, of_axes, strict=True))
        search = (grid.get("search") or {}).get(choice["optimizer"], {})
        searched = {k: [str(v) for v in tried] for k, tried in search.items() if k not in given}
        for settings in variants:
            own = choice | {k: str(v) for k, v in settings.items() if k not in given}
            found += [own | dict(zip(searched, tried, strict=True)) for tried in itertools.product(*searched.values())]
    return [c for i, c in enumerate(found) if c not in found[:i]]


def _labels(grid: Mapping[str, Any], cells: list[RunConfig]) -> dict[str, dict[str, str]]:
    """What the report prints for models, optimizers and settings, cells included that stand in no plan."""
    found = labels()
    for c in cells:  # networks of a library stand in no file
        found["model"].setdefault(c.model.name, c.model.label)
    found["settings"] = {variant(settings): label for label, settings in (grid.get("variants") or {}).items()}
    return found


def _winners(search: str | None, runs_dir: Path, first: RunConfig) -> tuple[dict[str, dict[str, Any]], str]:
    """The settings that the grid's search found on the same data and scale, and a line on where settings come from."""
    if search is None:
        return {}, ""
    scale = campaign_scale(first.data.name, first.scale.name, first.rehearsal is None)
    folder = runs_dir / folder_name(search, first.data.name, scale)
    if not (folder / "grid.yaml").exists():
        return {}, f"settings of configs/tuned, no {folder.name} in {folder.parent.name}"
    return winners(folder)


def _seeds(seeds: Any) -> list[int]:
    seeds = seeds if isinstance(seeds, list) else [seeds]
    if any(type(seed) is not int or seed not in SEEDS for seed in seeds):
        raise UserError(
            f"seeds={seeds}: needs a list of integers of 0 or more, below 2**32, for instance seeds=[0,1,2]"
        )
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds={seeds}: needs at least one seed, and each once")
    return seeds


def _check_library_models(names: set[str]) -> None:
    """A misspelt timm: or torchvision: name must not wait for the queue. A child looks it up: no torch here."""
    if names:
        done = subprocess.run(
            [sys.executable, "-m", "adarem.train.models.library", *sorted(names)], capture_output=True, text=True
        )
        if done.returncode:
            raise UserError((done.stderr.strip().splitlines() or ["adarem.train.models.library could not be run"])[-1])
