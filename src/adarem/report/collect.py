"""Run directories to memory: each run read once, what can't be read named, nothing dropped and nothing made 0."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from adarem.campaign import OWN_SCALE, folder_name, read_campaign
from adarem.config import RunConfig, hash_of, identity
from adarem.errors import UserError
from adarem.rundir import RunDir, Status
from adarem.schema import variant

T = TypeVar("T")

SPLITS = ("train", "val", "test", "oscillation")  # of records in metrics.jsonl; the last in oscillation.jsonl

# What the report reads of result.json, first in the order of runs.csv.
FIGURES = (
    "top1", "top5", "perplexity", "val_loss", "train_loss", "best_top1", "best_epoch", "epochs", "steps",
    "parameters", "seconds", "gpu_hours", "images_per_s", "tokens_per_s",
)  # fmt: skip
OSCILLATION = ("q_mean", "q_median_with_gradient", "share_without_gradient")  # of the last window


@dataclass
class Run:
    """One run directory as it stood when it was read."""

    dir: RunDir
    config: RunConfig
    settings: dict[str, Any]  # the config's dotted keys that decide the result, paths and cluster left out
    status: Status
    result: dict[str, Any]  # empty unless done or diverged
    attempts: list[dict[str, Any]]
    columns: dict[str, dict[str, np.ndarray]]  # split to key to one value an epoch, NaN where there is none
    trajectories: list[Any]  # of single parameters over spans of steps, where oscillation was tracked
    progress: dict[str, Any]
    problems: list[str] = field(default_factory=list)  # in words; shown under the table

    @property
    def name(self) -> str:
        return f"{self.dir.path.parent.name}/{self.dir.path.name}"

    def value(self, metric: str) -> float | None:
        """The final epoch's figure of a run that is done, from result.json or, for Q, from the last window."""
        if self.status != "done":
            return None
        value = self.result.get(metric)
        if value is None and len(windows := self.curve("oscillation", metric)):
            value = windows[-1, 1].item() if windows[-1, 0] == self.config.scale.epochs else None
        return float(value) if _is_number(value) else None

    @property
    def epoch(self) -> int:
        """Epochs completed, by progress.json and metrics.jsonl."""
        told = [self.progress.get("epoch"), *(c["epoch"][-1].item() for c in self.columns.values())]
        return max((int(e) for e in told if _is_number(e)), default=0)

    @property
    def state(self) -> str:
        """A cell's text for a run without a figure."""
        return {
            "planned": "—",
            "running": f"ep {self.epoch}/{self.config.scale.epochs}",
            "interrupted": f"stopped ep {self.epoch}/{self.config.scale.epochs}",
            "failed": "failed",
            "diverged": "div.",
            "done": "failed",  # done without this figure: result.json lacks it
        }[self.status]

    @cached_property
    def variant(self) -> str:
        """The settings off the grid's axes: ``weight_decay=0.0005``, empty for the grid's own."""
        return variant(self.config.overrides)

    def column(self, split: str, key: str) -> np.ndarray:
        """One value for every recorded epoch of ``column(split, "epoch")``; NaN where it has none. May be empty."""
        of_split = self.columns.get(split, {})
        return of_split.get(key, np.full(len(of_split.get("epoch", ())), np.nan))

    def curve(self, split: str, key: str) -> np.ndarray:
        """(epoch, value), of shape (n, 2), where ``metrics.jsonl`` has a finite value."""
        epochs, values = self.column(split, "epoch"), self.column(split, key)
        there = np.isfinite(values)
        return np.column_stack([epochs[there], values[there]])

    @cached_property
    def hours(self) -> np.ndarray:
        """Epoch, the hours of training, evaluation and checkpoints up to its end, and these times the ranks of each.

        What an attempt lost is left out. Where an epoch's record has no world size, it is the run's.
        """
        epochs = np.union1d(self.column("train", "epoch"), self.column("val", "epoch"))
        spent = np.zeros(len(epochs))
        ranks = np.full(len(epochs), float(self.result.get("world_size") or self.config.cluster.world_size))
        told = self.curve("train", "world_size")
        ranks[np.searchsorted(epochs, told[:, 0])] = told[:, 1]
        for split, key in (("train", "seconds_train"), ("train", "seconds_checkpoint"), ("val", "seconds_eval")):
            at = np.searchsorted(epochs, self.column(split, "epoch"))
            spent[at] += np.nan_to_num(self.column(split, key)) / 3600.0
        return np.column_stack([epochs, np.cumsum(spent), np.cumsum(spent * ranks)])


@dataclass
class Campaign:
    """All runs of one grid on one data set at one scale."""

    folder: Path
    grid: dict[str, Any]
    runs: list[Run]
    unreadable: list[str]  # one line a directory that is no readable run

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def rehearsal(self) -> str | None:
        """The rehearsal's line, or None when every run counts as a reproduction."""
        return next((r.config.rehearsal for r in self.runs if r.config.rehearsal), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
    if not any(_is_number(result.get(k)) for k in ("top1", "perplexity")):
        wrong.append("result.json says done and holds no finite final figure")
    if result.get("epochs") not in (None, config.scale.epochs):
        wrong.append(f"result.json is of epoch {result['epochs']}, the config asks for {config.scale.epochs}")
    last = [r for r in metrics if r["split"] == "val" and r["epoch"] == config.scale.epochs]
    told, final = (last[0].get("top1") if last else None), result.get("top1")
    if _is_number(told) and _is_number(final) and abs(told - final) > 1e-3:
        wrong.append(f"result.json has top1 {final:g}, metrics.jsonl {told:g} for that epoch")
    return wrong


def _columns(records: list[dict[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    """Arrays instead of a dict an epoch: a tenth of the memory for a thousand runs."""
    columns: dict[str, dict[str, np.ndarray]] = {}
    for split in SPLITS:
        of_split = [r for r in records if r["split"] == split]
        for key in sorted({k for r in of_split[:1] + of_split[-1:] for k in r} - {"split"}):
            values = [r.get(key) for r in of_split]
            try:
                column = np.array(values, dtype=float)  # None becomes NaN
            except (TypeError, ValueError):
                column = np.array([v if _is_number(v) else math.nan for v in values])
            columns.setdefault(split, {})[key] = column
    return columns


def read_run(path: Path) -> Run | str:
    """A run, or one line on why the directory is none. Never raises for what a directory holds."""
    run, problems = RunDir(path), []
    if not run.config_file.exists():
        return f"{path.parent.name}/{path.name}: holds no config.yaml, so no one can tell which cell it is"
    config = _attempt(run.config, None, problems)
    if config is None:
        return f"{path.parent.name}/{path.name}: {problems[0]}"
    settings = identity(config)
    status = _attempt(run.status, "failed", problems)
    result = _attempt(run.result, None, problems)
    metrics, damaged = _attempt(run.read_metrics, ([], 0), problems)
    whole = [r for r in metrics if isinstance(r["epoch"], int) and r["split"] in SPLITS]
    damaged += _attempt(run.damaged_attempts, 0, problems) + len(metrics) - len(whole)
    if damaged:
        problems.append(f"{damaged} unreadable line{'s' * (damaged > 1)} in metrics.jsonl or attempts.jsonl")
    if status == "done" and (result or {}).get("config_hash") not in (None, hash_of(settings)):
        # Not thrown out: a later version that knows one more setting hashes the same file differently.
        problems.append("its config.yaml does not hash as when it was trained: an older version's run, or edited since")
    if status == "done" and (wrong := _check_result(config, result or {}, whole)):
        problems += wrong
        status, result = "failed", None
    attempts = _attempt(run.attempts, [], problems)
    windows = _attempt(run.oscillation, [], problems) if run.oscillation_file.exists() else []
    trajectories = [t for r in windows for t in r.pop("trajectories", None) or []]
    columns = _columns(whole + [r | {"split": "oscillation"} for r in windows])
    return Run(
        run, config, settings, status, result or {}, attempts, columns, trajectories, run.progress() or {}, problems
    )


def read_runs(folder: Path) -> Campaign:
    """Everything under ``runs/<campaign>/``. Raises UserError when the folder has no readable grid.yaml."""
    grid = read_campaign(folder)
    runs, unreadable = [], []
    for path in sorted(p for p in folder.iterdir() if p.is_dir()):
        d = RunDir(path)
        if not any(f.exists() for f in (d.config_file, d.attempts_file, d.metrics_file, d.result_file, d.checkpoints)):
            continue  # Slurm's logs and the like
        run = read_run(path)
        (unreadable.append(run) if isinstance(run, str) else runs.append(run))
    return Campaign(folder, grid, runs, unreadable)


def find_campaign(grid: str, runs_dir: Path, data: str | None, scale: str | None = None) -> tuple[Path, str]:
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


def _fingerprint(result: dict[str, Any], split: str) -> str:
    part = (result.get("fingerprint") or {}).get(split) or {}
    return str(part.get("content_hash", ""))


def fingerprints(run: Run) -> tuple[str, str]:
    """Content hashes of the training and validation data that a finished run saw; empty where unknown."""
    return _fingerprint(run.result, "train"), _fingerprint(run.result, "val")
