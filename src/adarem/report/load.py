"""Run directories to memory: each run read once, what can't be read named, nothing dropped and nothing made 0."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml

from adarem.report.run import OSCILLATION, RESULT_METRICS, Run, Trajectory, fingerprints, is_number, read_correct
from adarem.run.config import RunConfig, from_dict, hash_of, identity
from adarem.run.directory import SAFE_YAML, RunDir
from adarem.run.errors import UserError
from adarem.run.sweep import OWN_SCALE, directories, folder_name, read_campaign

__all__ = [
    "RESULT_METRICS",
    "OSCILLATION",
    "Sweep",
    "Sweeps",
    "Run",
    "Trajectory",
    "find_sweep",
    "fingerprints",
    "read_run",
    "read_sweep",
]

T = TypeVar("T")

SPLITS = ("train", "val", "test", "oscillation")  # of records in metrics.jsonl; the last in oscillation.jsonl
SHOWN_GAPS = 5  # spans of lost epochs that are named


@dataclass
class Sweep:
    """All runs of one grid on one data set at one scale."""

    folder: Path
    grid: dict[str, Any]
    runs: list[Run]
    unreadable: list[str]  # one line a directory that is no readable run

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def names(self) -> frozenset[str]:
        """Of its readable runs, ``<sweep>/<cell>``."""
        return frozenset(r.name for r in self.runs)

    @cached_property
    def rehearsal(self) -> str | None:
        """The rehearsal's line, or None when every run counts as a reproduction.

        A sweep without a readable run is told by its name: the paper's own setting has the grid's.
        """
        if not self.runs:
            return None if self.grid.get("name", self.name) == self.name else f"{self.name} holds no readable run"
        told = [r.rehearsal for r in self.runs if r.rehearsal]
        if len(told) in (0, len(self.runs)):
            return told[0] if told else None
        return f"{told[0]} ({len(told)} of {len(self.runs)} runs)"


class Sweeps:
    """The sweeps under ``runs_dir``, each read when it is first asked for and never again."""

    def __init__(self, runs_dir: Path, *read: Sweep) -> None:
        self.runs_dir = runs_dir
        self.unreadable: dict[str, str] = {}  # name to why, in one line
        self._read: dict[str, Sweep | None] = {c.name: c for c in read}

    def names(self) -> list[str]:
        """Short ones before long ones, so the paper's own setting before what is named after its differences."""
        return sorted((p.parent.name for p in self.runs_dir.glob("*/grid.yaml")), key=lambda name: (len(name), name))

    def get(self, name: str) -> Sweep | None:
        """None where there is no such sweep, and where it cannot be read, which ``unreadable`` then tells."""
        if name not in self._read:
            folder = self.runs_dir / name
            self._read[name] = None
            if name and (folder / "grid.yaml").exists():
                try:
                    self._read[name] = read_sweep(folder)
                except (UserError, OSError) as e:
                    self.unreadable[name] = str(e)
        return self._read[name]

    def holds(self, run: str) -> bool:
        """Whether ``<sweep>/<cell>`` is there and can be read."""
        sweep = self.get(run.partition("/")[0])
        return sweep is not None and run in sweep.names


def _attempt(read: Callable[[], T], empty: T, problems: list[str]) -> T:
    """A damaged file is a line in ``problems``, whatever it holds."""
    try:
        return read()
    except (UserError, OSError, ValueError, TypeError, KeyError, AttributeError) as e:
        problems.append(str(e) if isinstance(e, UserError) else f"{type(e).__name__}: {e}")
        return empty


def _check_result(config: RunConfig, result: dict[str, Any], metrics: list[dict[str, Any]]) -> list[str]:
    """What makes a result.json unfit for a table, in words."""
    wrong = []
    if not any(is_number(result.get(k)) for k in ("top1", "perplexity")):
        wrong.append("result.json says done and holds no finite final figure")
    if result.get("epochs") not in (None, config.scale.epochs):
        wrong.append(f"result.json is of epoch {result['epochs']}, the config asks for {config.scale.epochs}")
    last = [r for r in metrics if r["split"] == "val" and r["epoch"] == config.scale.epochs]
    told, final = (last[0].get("top1") if last else None), result.get("top1")
    if is_number(told) and is_number(final) and abs(told - final) > 1e-3:
        wrong.append(f"result.json has top1 {final:g}, metrics.jsonl {told:g} for that epoch")
    return wrong


def _columns(records: list[dict[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    """Arrays instead of a dict an epoch: a tenth of the memory for a thousand runs."""
    columns: dict[str, dict[str, np.ndarray]] = {}
    for split in SPLITS:
        of_split = [r for r in records if r["split"] == split]
        keys = sorted({k for r in of_split[:1] + of_split[-1:] for k in r} - {"split"})
        rows = [[r.get(key) for key in keys] for r in of_split]
        try:
            table = np.array(rows, dtype=float)  # None becomes NaN
        except (TypeError, ValueError):
            table = np.array([[v if is_number(v) else math.nan for v in row] for row in rows])
        if keys:
            columns[split] = dict(zip(keys, table.T.copy(), strict=True))
    return columns


def _trajectories(windows: Sequence[dict[str, Any]]) -> tuple[list[Trajectory], int]:
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


def _spans(epochs: np.ndarray) -> str:
    """``3, 7 to 9``."""
    spans = np.split(epochs, np.flatnonzero(np.diff(epochs) > 1) + 1)
    texts = [f"{of[0]} to {of[-1]}" if len(of) > 1 else str(of[0]) for of in spans]
    return ", ".join(texts[:SHOWN_GAPS]) + (" and others" if len(texts) > SHOWN_GAPS else "")


def _config(run: RunDir, sections: dict[str, Any]) -> RunConfig:
    """``run.config()``, sooner: what a thousand runs have alike is parsed once. Whatever is odd is left to it."""
    raw: dict[str, Any] = {}
    try:
        for text in re.split(r"\n(?=\w)", run.config_file.read_text()):
            if text not in sections:
                sections[text] = yaml.load(text, Loader=SAFE_YAML)
            raw |= sections[text] or {}
        return from_dict(raw)
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        return run.config()


def _gaps(run: Run) -> list[str]:
    """Records that training wrote and that are not there any more, in words."""
    told = []
    for split, epochs in run.lost.items():
        of = f"epoch{'s' * (len(epochs) > 1)} {_spans(epochs)}"
        if split == "oscillation":
            told.append(f"{run.dir.oscillation_file.name} has no window that ends with {of}")
        else:
            told.append(f"{run.dir.metrics_file.name} has no {split} record of {of}; hours from there on are unknown")
    return told


def read_run(path: Path, sections: dict[str, Any] | None = None) -> Run | str:
    """A run, or one line on why the directory is none. Never raises for what a directory holds.

    ``sections``: of config.yaml that were read before, by their text; those of this run are added.
    """
    run, problems = RunDir(path), []
    if not run.config_file.exists():
        return f"{path.parent.name}/{path.name}: holds no config.yaml, so no one can tell which cell it is"
    config = _attempt(lambda: _config(run, {} if sections is None else sections), None, problems)
    if config is None:
        return f"{path.parent.name}/{path.name}: {problems[0]}"
    settings = identity(config)
    status = _attempt(run.status, "failed", problems)
    result = _attempt(run.result, None, problems)

    def lines(file: Path, read: Callable[[], tuple[list[dict[str, Any]], int]]) -> list[dict[str, Any]]:
        """The records that belong to an epoch of this run; the others are counted in ``problems``."""
        records, damaged = _attempt(read, ([], 0), problems)
        whole = [r for r in records if 1 <= r["epoch"] <= config.scale.epochs and r.get("split", "") in ("", *SPLITS)]
        if damaged := damaged + len(records) - len(whole):
            problems.append(f"{damaged} unreadable line{'s' * (damaged > 1)} in {file.name}")
        return whole

    metrics = lines(run.metrics_file, run.read_metrics)
    windows = lines(run.oscillation_file, run.read_oscillation)
    if damaged := _attempt(run.damaged_attempts, 0, problems):
        problems.append(f"{damaged} unreadable line{'s' * (damaged > 1)} in {run.attempts_file.name}")
    trajectories, damaged = _trajectories(windows)
    if damaged:
        problems.append(f"{damaged} unreadable trajector{'ies' if damaged > 1 else 'y'} in {run.oscillation_file.name}")
    if status == "done" and (result or {}).get("config_hash") not in (None, hash_of(settings)):
        # Not thrown out: a later version that knows one more setting hashes the same file differently.
        problems.append("its config.yaml does not hash as when it was trained: an older version's run, or edited since")
    if status == "done" and (wrong := _check_result(config, result or {}, metrics)):
        problems += wrong
        status, result = "failed", None
    if status == "done":
        _attempt(lambda: read_correct(run, result), None, problems)
    attempts = _attempt(run.attempts, [], problems)
    columns = _columns(metrics + [r | {"split": "oscillation"} for r in windows])
    found = Run(
        run, config, settings, status, result or {}, attempts, columns, trajectories, run.progress() or {}, problems
    )
    problems += _gaps(found)
    return found


def read_sweep(folder: Path) -> Sweep:
    """Everything under ``runs/<sweep>/``. Raises UserError when the folder has no readable grid.yaml."""
    grid, sections = read_campaign(folder), {}
    runs, unreadable = [], []
    for directory in directories(folder):
        run = read_run(directory.path, sections)
        if isinstance(run, str):
            unreadable.append(run)
            continue
        lacking = [m for m in grid.get("metrics", []) if run.status == "done" and run.value(m) is None]
        if lacking:
            run.problems.append(f"done, but its final {' and '.join(lacking)} cannot be read")
        runs.append(run)
    return Sweep(folder, grid, runs, unreadable)


def find_sweep(grid: str, runs_dir: Path, data: str | None, scale: str | None = None) -> tuple[Path, str]:
    """The folder of a grid's runs, and a line on the choice where there was one (else empty).

    Without ``data``, the paper's own setting goes first, then the only other one.

    Raises:
        UserError: no run there, or several folders and no way to choose.
    """
    found = sorted(
        p.name
        for p in (runs_dir.iterdir() if runs_dir.is_dir() else ())
        if (p / "grid.yaml").exists() and (p.name == grid or p.name.startswith(f"{grid}-"))
    )
    type_this = f"make reproduce-{grid}, or adarem launch grid={grid}" + (f" data={data}" if data else "")
    if data is not None or scale is not None:
        data = data or "imagenet"
        name = folder_name(grid, data, scale or OWN_SCALE.get(data, "rehearsal"))
        if name not in found:
            others = f" (there are runs of {', '.join(found)})" if found else ""
            raise UserError(f"{runs_dir / name}: no runs of {grid} there{others}; type: {type_this}")
        return runs_dir / name, ""
    if not found:
        raise UserError(f"{runs_dir}: no runs of {grid} there; type: {type_this}")
    if grid in found:
        rest = [n for n in found if n != grid]
        note = f"Taken: {grid}. Also there: {', '.join(rest)} (choose with data=…)." if rest else ""
        return runs_dir / grid, note
    if len(found) > 1:
        raise UserError(f"{runs_dir}: runs of {' and '.join(found)} are there; choose with data=… (and scale=…)")
    return runs_dir / found[0], ""
