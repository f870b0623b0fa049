"""Run directories to memory: each run is read once, what cannot be read is named, nothing is dropped or set to 0."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray

from adarem.report.counted import counted
from adarem.report.run import (
    OSCILLATION,
    RESULT_METRICS,
    Fingerprints,
    FloatArray,
    Run,
    Trajectory,
    fingerprints,
    read_correct,
)
from adarem.run.batch_norm import recorded_numbers
from adarem.run.catalog import METRICS, default_scale
from adarem.run.config import RunConfig, from_dict
from adarem.run.directory import SAFE_YAML, RunDir, Status
from adarem.run.errors import UserError
from adarem.run.files import read_file
from adarem.run.halving import Place, read_places
from adarem.run.identity import hash_of, identity
from adarem.run.records import JsonRecord, count, is_number, number
from adarem.run.reproduction import Standing, seen_by, standing_of_run, standing_of_sweep
from adarem.run.stated import Stated
from adarem.run.sweep import SweepSpec, directories, read_sweep, sweep_name

__all__ = [
    "OSCILLATION",
    "RESULT_METRICS",
    "Fingerprints",
    "Run",
    "Sweep",
    "Sweeps",
    "Trajectory",
    "fingerprints",
    "load_sweep",
    "read_run",
]

T = TypeVar("T")

SPLITS = (
    "train",
    "val",
    "holdout",
    "test",
    "oscillation",
)  # of records in metrics.jsonl; the last in oscillation.jsonl
SHOWN_GAPS = 5  # spans of lost epochs that are named


@dataclass
class Sweep:
    """All runs of one grid on one data set at one scale."""

    folder: Path
    spec: SweepSpec
    runs: Sequence[Run]
    unreadable: Sequence[str]  # one line per directory that is no readable run, or is one that does not count

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def standing(self) -> Standing:
        """How its runs together stand to the paper."""
        return standing_of_sweep(self.spec, self.name, [r.standing for r in self.runs])

    @property
    def rehearsal(self) -> str | None:
        """One line on why it is a rehearsal; None of anything else."""
        return self.standing.rehearsal


class Sweeps:
    """The sweeps under ``runs_dir``, each read when it is first asked for and never again."""

    def __init__(self, runs_dir: Path, stated: Stated | None = None) -> None:
        """``stated``: what the paper states of settings, from which a variation is recognised."""
        self.runs_dir = runs_dir
        self.stated = stated
        self.unreadable: dict[str, str] = {}  # name of a sweep to one line on what is wrong with it
        self._read: dict[str, Sweep | None] = {}

    def names(self) -> list[str]:
        """Short ones before long ones, so the paper's own setting before what is named after its differences."""
        return sorted((p.parent.name for p in self.runs_dir.glob("*/grid.yaml")), key=lambda name: (len(name), name))

    def get(self, name: str) -> Sweep | None:
        """A sweep with at least one readable run; None where there is none, and ``unreadable`` then says why."""
        if name not in self._read:
            self._read[name] = None
            try:
                sweep = load_sweep(self.runs_dir / name, self.stated)
            except (UserError, OSError) as e:
                self.unreadable[name] = str(e)
            else:
                if sweep.runs:
                    self._read[name] = sweep
                else:
                    self.unreadable[name] = _no_run(sweep)
        return self._read[name]

    def matching(self, grid: str | None, data: str | None = None, scale: str | None = None) -> list[str]:
        """Names of the sweeps of a grid, or of all grids, on one data set or on all.

        Args:
            grid: name of a grid, or of one sweep.
            data: a data set; None: all, or ImageNet where ``scale`` is given.
            scale: None: the default scale of ``data``.

        Raises:
            UserError: there is none.
        """
        if grid is None:
            found = [name for name in self.names() if data is None or self._is_on(name, data)]
            if not found:
                on = f" on {data}" if data else ""
                raise UserError(
                    f"{self.runs_dir}: no runs{on} there; `adarem launch grid=table2 data=digits` makes some"
                )
            return found
        of_grid = [name for name in self.names() if self._is_of(name, grid)] or [n for n in self.names() if n == grid]
        type_this = f"adarem launch grid={grid}" + (f" data={data}" if data else "")
        if data is None and scale is None:
            if not of_grid:
                raise UserError(f"{self.runs_dir}: no runs of {grid} there; type: {type_this}")
            return of_grid
        data = data or "imagenet"
        scale = scale or default_scale(data)
        name = sweep_name(grid, data, scale)
        next_to_it = [n for n in of_grid if n != name and self._is_next_to(n, data, scale)]
        if name not in of_grid:
            if next_to_it:
                return next_to_it
            others = f" (there are runs of {', '.join(of_grid)})" if of_grid else ""
            raise UserError(f"{self.runs_dir / name}: no runs of {grid} there{others}; type: {type_this}")
        return [name, *next_to_it]

    def _is_next_to(self, name: str, data: str, scale: str) -> bool:
        """Whether a sweep of a grid has its data and scale, on a search's settings or on held-out images."""
        planned = self._planned(name)
        return planned is not None and (planned.data, planned.scale) == (data, scale)

    def _is_of(self, name: str, grid: str) -> bool:
        planned = self._planned(name)
        return planned.name == grid if planned else name == grid or name.startswith(f"{grid}-")

    def _is_on(self, name: str, data: str) -> bool:
        planned = self._planned(name)
        return planned is not None and planned.data == data

    def _planned(self, name: str) -> SweepSpec | None:
        """What grid.yaml says; None where it cannot be read, for which ``get`` has the reason."""
        try:
            return read_sweep(self.runs_dir / name)
        except UserError:
            return None


def _no_run(sweep: Sweep) -> str:
    first = f" ({sweep.unreadable[0]})" if sweep.unreadable else ""
    return f"{sweep.folder}: no run there can be read{first}; restore the runs, or plan the grid again"


def _attempt(read: Callable[[], T], empty: T, problems: list[str]) -> T:
    """A damaged file is a line in ``problems``, whatever it holds."""
    try:
        return read()
    except (UserError, OSError, ValueError, TypeError, KeyError, AttributeError) as e:
        problems.append(str(e) if isinstance(e, UserError) else f"{type(e).__name__}: {e}")
        return empty


def _check_result(config: RunConfig, result: JsonRecord, metrics: Sequence[JsonRecord]) -> list[str]:
    """What makes a result.json unfit for a table, in words."""
    wrong = []
    evaluated_on = config.data.evaluated_on
    top1 = "top1" if evaluated_on == "val" else "holdout_top1"
    if all(number(result, key) is None for key in (top1, "perplexity")):
        wrong.append("result.json says done and holds no finite final figure")
    if result.get("epochs") not in (None, config.scale.epochs):
        wrong.append(f"result.json is of epoch {result['epochs']}, the config asks for {config.scale.epochs}")
    last = next((r for r in metrics if r["split"] == evaluated_on and r["epoch"] == config.scale.epochs), {})
    recorded, final = number(last, "top1"), number(result, top1)
    if recorded is not None and final is not None and abs(recorded - final) > 1e-3:
        wrong.append(f"result.json has {top1} {final:g}, metrics.jsonl {recorded:g} for that epoch")
    return wrong


def _columns(records: Sequence[JsonRecord]) -> dict[str, dict[str, FloatArray]]:
    """Arrays instead of one dict per epoch: a tenth of the memory for a thousand runs."""
    columns: dict[str, dict[str, FloatArray]] = {}
    for split in SPLITS:
        of_split = [r for r in records if r["split"] == split]
        keys = sorted({k for r in of_split[:1] + of_split[-1:] for k in r} - {"split"})
        rows = [[r.get(key) for key in keys] for r in of_split]
        try:
            table = np.array(rows, dtype=float)  # None becomes NaN
        except (TypeError, ValueError):
            table = np.array([[v if is_number(v) else math.nan for v in row] for row in rows], dtype=float)
        if keys:
            columns[split] = dict(zip(keys, table.T.copy(), strict=True))
    return columns


def _trajectories(windows: Sequence[dict[str, object]]) -> tuple[list[Trajectory], int]:
    """Takes the trajectories out of the windows; and the number of those that cannot be read."""
    found, damaged = [], 0
    for window in windows:
        held = window.pop("trajectories", None) or []
        for record in held if isinstance(held, list) else [held]:
            trajectory = _trajectory(record)
            if trajectory is None:
                damaged += 1
            else:
                found.append(trajectory)
    return found, damaged


def _trajectory(record: object) -> Trajectory | None:
    if not isinstance(record, dict):
        return None
    parameter, from_step = record.get("parameter"), record.get("from_step")
    try:
        values = np.array(record.get("values"), dtype=float)
    except (TypeError, ValueError):
        return None
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        return None
    if not isinstance(parameter, str) or not isinstance(from_step, int):
        return None
    return Trajectory(parameter, from_step, values)


def _spans(epochs: NDArray[np.int64]) -> str:
    """``3, 7 to 9``."""
    spans = np.split(epochs, np.flatnonzero(np.diff(epochs) > 1) + 1)
    texts = [f"{span[0]} to {span[-1]}" if len(span) > 1 else str(span[0]) for span in spans]
    return ", ".join(texts[:SHOWN_GAPS]) + (" and others" if len(texts) > SHOWN_GAPS else "")


def _config(run: RunDir, sections: dict[str, Mapping[str, object]]) -> RunConfig:
    """``run.config()``, faster: what a thousand runs have alike is parsed once. Whatever is odd is left to it."""
    raw: dict[str, object] = {}
    try:
        written = read_file(run.config_file, 1 << 20).decode()
        if "&" in written:
            return run.config()
        for part in re.split(r"\n(?=\w)", written):
            if part not in sections:
                sections[part] = yaml.load(part, Loader=SAFE_YAML) or {}
            raw |= sections[part]
        return from_dict(raw)
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError):
        return run.config()


def _gaps(run: Run) -> list[str]:
    """Records that training wrote and that are not there any more, in words."""
    lines = []
    for split, epochs in run.lost.items():
        which = f"{'epochs' if len(epochs) > 1 else 'epoch'} {_spans(epochs)}"
        if split == "oscillation":
            lines.append(f"{run.dir.oscillation_file.name} has no window that ends with {which}")
        else:
            lines.append(
                f"{run.dir.metrics_file.name} has no {split} record of {which}; hours from there on are unknown"
            )
    return lines


def _unreadable(n: int, one: str, many: str, file: Path) -> str:
    return f"{n} unreadable {many if n > 1 else one} in {file.name}"


def read_run(
    path: Path,
    spec: SweepSpec | None = None,
    stated: Stated | None = None,
    sections: dict[str, Mapping[str, object]] | None = None,
) -> Run | str:
    """A run, or one line on why the directory is none. Never raises for what a directory holds.

    Args:
        path: ``runs/<sweep>/<run>/``.
        spec: of its sweep; None: that of the folder around it, where it can be read.
        stated: what the paper states of settings.
        sections: of config.yaml that were read before, by their text; those of this run are added.
    """
    run = RunDir(path)
    problems: list[str] = []
    if not run.config_file.exists():
        return f"{path.parent.name}/{path.name}: holds no config.yaml, so it is unknown which run it is"
    config = _attempt(lambda: _config(run, {} if sections is None else sections), None, problems)
    if config is None:
        return f"{path.parent.name}/{path.name}: {problems[0]}"
    settings = identity(config)
    status: Status = _attempt(run.status, "failed", problems)
    result: JsonRecord = _attempt(lambda: run.result() or {}, {}, problems)

    def lines(file: Path, read: Callable[[], tuple[list[dict[str, object]], int]]) -> list[dict[str, object]]:
        """The records that belong to an epoch of this run; the others are counted in ``problems``."""
        nothing: tuple[list[dict[str, object]], int] = ([], 0)
        records, damaged = _attempt(read, nothing, problems)
        epochs = range(1, config.scale.epochs + 1)
        fit = [r for r in records if count(r, "epoch") in epochs and r.get("split", "") in ("", *SPLITS)]
        if damaged := damaged + len(records) - len(fit):
            problems.append(_unreadable(damaged, "line", "lines", file))
        return fit

    metrics = lines(run.metrics_file, run.read_metrics)
    windows = lines(run.oscillation_file, run.read_oscillation)
    if damaged := _attempt(run.damaged_attempts, 0, problems):
        problems.append(_unreadable(damaged, "line", "lines", run.attempts_file))
    trajectories, damaged = _trajectories(windows)
    if damaged:
        problems.append(_unreadable(damaged, "trajectory", "trajectories", run.oscillation_file))
    if status == "done" and result.get("config_hash") not in (None, hash_of(settings)):
        # Its values are kept: a later version that knows one more setting hashes the same file differently.
        problems.append("its config.yaml does not hash as when it was trained: an older version's run, or edited since")
    if status == "done" and (wrong := _check_result(config, result, metrics)):
        problems += wrong
        status, result = "failed", {}
    if status == "done":
        _attempt(lambda: read_correct(run, result, config.data.evaluated_on), None, problems)
    attempts: Sequence[JsonRecord] = _attempt(lambda: tuple(run.attempts()), (), problems)
    columns = _columns([*metrics, *(window | {"split": "oscillation"} for window in windows)])
    evaluated = columns.get("val", {}).get("images" if config.data.kind == "images" else "tokens", np.empty(0))
    counts = evaluated[np.isfinite(evaluated)].astype(int).tolist()
    seen = seen_by(config, result, counts, recorded_numbers(config, metrics))
    standing = standing_of_run(config, spec or _spec_around(path), seen, stated)
    progress = run.progress() or {}
    found = Run(run, config, settings, status, result, attempts, columns, trajectories, progress, standing, problems)
    problems += _gaps(found)
    return found


def _spec_around(path: Path) -> SweepSpec | None:
    try:
        return read_sweep(path.parent)
    except UserError:
        return None


def load_sweep(folder: Path, stated: Stated | None = None) -> Sweep:
    """Everything under ``runs/<sweep>/``. Raises UserError when the folder has no readable grid.yaml."""
    spec = read_sweep(folder)
    sections: dict[str, Mapping[str, object]] = {}
    runs, unreadable = [], []
    no_places: dict[str, Place] = {}
    places = _attempt(lambda: read_places(folder, spec), no_places, [])
    for directory in directories(folder):
        run = read_run(directory.path, spec, stated, sections)
        if isinstance(run, str):
            unreadable.append(run)
            continue
        place = places.get(directory.path.name)
        if place is not None and place.state == "stopped" and run.status != "running":
            run.status = "stopped"
        lacking = [m for m in spec.metrics if run.status == "done" and run.value(m) is None]
        if (
            lacking
            and run.config.data.evaluated_on == "holdout"
            and all(METRICS[m].held_out for m in lacking if m in METRICS)
        ):
            run.problems.append("evaluated on held-out training images, so this table has no figure of it")
        elif lacking:
            run.problems.append(f"done, but its final {' and '.join(lacking)} cannot be read")
        runs.append(run)
    found = counted(runs, spec)
    return Sweep(folder, spec, found.runs, [*unreadable, *found.set_aside])
