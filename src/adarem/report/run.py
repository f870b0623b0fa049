"""One run as it stood when it was read: its figures, curves and hours, and what of its records is lost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from adarem.report.seen import not_genuine
from adarem.run.config import RunConfig
from adarem.run.directory import RunDir, Status
from adarem.run.errors import UserError
from adarem.run.schema import variant

FloatArray: TypeAlias = NDArray[np.float64]

# What the report reads of result.json, first in the order of runs.csv.
RESULT_METRICS = (
    "top1", "top5", "perplexity", "val_loss", "train_loss", "best_top1", "best_epoch", "epochs", "steps",
    "parameters", "seconds", "gpu_hours", "images_per_s", "tokens_per_s",
)  # fmt: skip
OSCILLATION = ("q_mean", "q_median_with_gradient", "share_without_gradient")  # of the last window

# Where an epoch's seconds stand: split and key.
PARTS = {
    "train": ("train", "seconds_train"),
    "evaluate": ("val", "seconds_eval"),
    "checkpoint": ("train", "seconds_checkpoint"),
}


@dataclass(frozen=True)
class Trajectory:
    """The values of one parameter over a span of steps: before the first step, and after each."""

    parameter: str
    from_step: int
    values: FloatArray


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
    trajectories: Sequence[Trajectory]  # of single parameters over spans of steps, where oscillation was tracked
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
        return float(value) if is_number(value) else None

    @property
    def epoch(self) -> int:
        """Epochs completed, by progress.json and metrics.jsonl."""
        told = [self.progress.get("epoch"), *(c["epoch"][-1].item() for c in self.columns.values())]
        return max((int(e) for e in told if is_number(e)), default=0)

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
    def overrides(self) -> str:
        """The settings off the grid's axes: ``weight_decay=0.0005``, empty for the grid's own."""
        return variant(self.config.overrides)

    @cached_property
    def rehearsal(self) -> str | None:
        """None for a run that counts as a reproduction, else one line on why not: its config, or the data it saw."""
        unit = "images" if self.config.data.kind == "images" else "tokens"
        return self.config.rehearsal or not_genuine(self.config, self.result, self.column("val", unit))

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
    def due(self) -> dict[str, np.ndarray]:
        """The epochs that each split must have a record of: up to the last of a run that is done, else to the last
        recorded."""
        n, t = self.config.scale.epochs, self.config.train
        recorded = [self.column(split, "epoch")[-1:] for split in ("train", "val")]
        last = n if self.status == "done" else int(np.concatenate([[0], *recorded]).max())
        epochs = np.arange(1, last + 1)
        due = {"train": epochs, "val": epochs[(epochs % t.eval_every == 0) | (epochs == n)]}
        if t.oscillation:
            due["oscillation"] = epochs[(epochs % t.oscillation_window == 0) | (epochs == n)]
        return due

    @property
    def lost(self) -> dict[str, np.ndarray]:
        """The epochs, by split, whose record was due and is not there. An unfinished run's last may be yet to come."""
        lost = {}
        for split, due in self.due.items():
            there = self.column(split, "epoch")
            if not np.array_equal(there, due):
                lost[split] = np.setdiff1d(due, there)
        if self.status != "done":
            last = len(self.due["train"])
            lost = {split: epochs[epochs < last] for split, epochs in lost.items()}
        return {split: epochs for split, epochs in lost.items() if len(epochs)}

    @cached_property
    def seconds(self) -> dict[str, np.ndarray]:
        """By part (train, evaluate, checkpoint), one value for every epoch from 1 on: NaN where its record is lost, 0
        where no evaluation was due."""
        spent = {}
        for part, (split, key) in PARTS.items():
            spent[part] = np.zeros(len(self.due["train"]))
            spent[part][self.due[split] - 1] = np.nan
            spent[part][self.column(split, "epoch").astype(int) - 1] = self.column(split, key)
        return spent

    def spent(self, part: str) -> float:
        """Seconds of one part over all epochs, NaN where a record is lost. An epoch under way counts as far as it is
        told."""
        seconds = self.seconds[part].copy()
        if self.status != "done":
            seconds[-1:] = np.nan_to_num(seconds[-1:])
        return float(seconds.sum())

    @cached_property
    def hours(self) -> np.ndarray:
        """For every epoch from 1 on: the epoch, the hours of training, evaluation and checkpoints up to its end, and
        these times the ranks of each. NaN from the first epoch on whose record is lost.

        What an attempt lost is left out. Where an epoch's record has no world size, it is the run's.
        """
        epochs, spent = self.due["train"], sum(self.seconds.values()) / 3600.0
        ranks = np.full(len(epochs), float(self.result.get("world_size") or self.config.cluster.world_size))
        told = self.curve("train", "world_size")
        ranks[told[:, 0].astype(int) - 1] = told[:, 1]
        return np.column_stack([epochs, np.cumsum(spent), np.cumsum(spent * ranks)])

    def correct(self) -> dict[str, np.ndarray] | None:
        """Which validation images were right, by metric, in dataset order; None where it kept none that fit its result.

        ``problems`` says why they do not fit.
        """
        try:
            return read_correct(self.dir, self.result)
        except (UserError, OSError):
            return None


def read_correct(run: RunDir, result: dict[str, Any]) -> dict[str, np.ndarray] | None:
    """correct.npz, held against the result.json that it belongs to; None where there is none.

    Raises:
        UserError: it is damaged, or of other images or another evaluation than the result.
    """
    bits = run.correct()
    if bits is None:
        return None
    images = ((result.get("fingerprint") or {}).get("val") or {}).get("num_images") or 0
    for metric in ("top1", "top5"):
        told, right = result.get(metric), bits.get(metric)
        if right is None or not is_number(told):
            reason = f"{run.correct_file.name} or {run.result_file.name} has no {metric}"
        elif right.size != images:
            reason = f"{run.correct_file.name} is of {right.size:,} images, {run.result_file.name} of {images:,}"
        elif round(told * images / 100) != np.count_nonzero(right):
            share = 100 * right.mean()
            reason = f"{run.correct_file.name} has {metric} {share:.2f}, {run.result_file.name} {told:.2f}"
        else:
            continue
        raise UserError(f"{reason}; the run is not compared image by image")
    return bits


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _fingerprint(result: dict[str, Any], split: str) -> str:
    part = (result.get("fingerprint") or {}).get(split) or {}
    return str(part.get("content_hash", ""))


def fingerprints(run: Run) -> tuple[str, str]:
    """Content hashes of the training and validation data that a finished run saw; empty where unknown."""
    return _fingerprint(run.result, "train"), _fingerprint(run.result, "val")
