"""One run as it was when it was read: its metrics, curves and hours, and which of its records are lost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from adarem.run.config import EvaluationSplit, RunConfig
from adarem.run.directory import RunDir, Status
from adarem.run.errors import UserError
from adarem.run.records import JsonRecord, count, number, section, text
from adarem.run.reproduction import Standing
from adarem.run.sweep import overrides_text

FloatArray: TypeAlias = NDArray[np.float64]

# What the report reads of result.json, in the order of runs.csv.
RESULT_METRICS = (
    "top1", "top5", "holdout_top1", "holdout_top5", "perplexity", "val_loss", "holdout_loss", "train_loss", "best_top1",
    "best_holdout_top1", "best_epoch", "epochs", "steps", "parameters", "seconds", "gpu_hours", "images_per_s",
    "tokens_per_s",
)  # fmt: skip
# Of steps.jsonl, over the complete network.
WATCHED = (
    "loss", "lr", "grad_norm", "weight_norm", "update_norm", "update_to_weight", "b_positive", "b_mean", "rate_spread",
)  # fmt: skip
MOST_STEPS = 128  # of a run that are shown
MEANS = {  # over all epochs, or all windows of training
    "mean_train_loss": ("train", "loss"),
    "mean_q_mean": ("oscillation", "q_mean"),
    "mean_q_median_with_gradient": ("oscillation", "q_median_with_gradient"),
}
OSCILLATION = ("q_mean", "q_median_with_gradient", "share_without_gradient")  # of the last window


@dataclass(frozen=True)
class Trajectory:
    """The values of one parameter over a span of steps: before the first step, and after each."""

    parameter: str
    from_step: int
    values: FloatArray


@dataclass
class Run:
    """One run directory as it was when it was read."""

    dir: RunDir
    config: RunConfig
    settings: Mapping[str, object]  # the config's dotted keys that decide the result, paths and cluster left out
    status: Status
    result: JsonRecord  # empty unless done or diverged
    attempts: Sequence[JsonRecord]
    columns: Mapping[str, Mapping[str, FloatArray]]  # split to key to one value per epoch, NaN where there is none
    trajectories: Sequence[Trajectory]  # where oscillation was tracked
    progress: JsonRecord
    standing: Standing
    problems: list[str] = field(default_factory=list)  # in words; shown under the table

    @property
    def name(self) -> str:
        return f"{self.dir.path.parent.name}/{self.dir.path.name}"

    def value(self, metric: str) -> float | None:
        """A metric after the final epoch of a run that is done: of result.json or, for Q, of the last window; or one of
        MEANS over all of training, which a run that lacks an epoch or a window does not have."""
        if self.status != "done":
            return None
        if metric in MEANS:
            split, key = MEANS[metric]
            values = self.curve(split, key)[:, 1]
            window = self.config.train.oscillation_window if split == "oscillation" else 1
            return float(values.mean()) if len(values) == math.ceil(self.config.scale.epochs / window) else None
        if self.result.get(metric) is not None:
            return number(self.result, metric)
        windows = self.curve("oscillation", metric)
        if not len(windows) or windows[-1, 0] != self.config.scale.epochs:
            return None
        return float(windows[-1, 1])

    @property
    def epoch(self) -> int:
        """Epochs completed, by progress.json and metrics.jsonl."""
        recorded = [number(self.progress, "epoch"), *(float(c["epoch"][-1]) for c in self.columns.values())]
        return max((int(e) for e in recorded if e is not None), default=0)

    @property
    def state(self) -> str:
        """The text of a cell for a run without a value."""
        return {
            "planned": "—",
            "running": f"ep {self.epoch}/{self.config.scale.epochs}",
            "interrupted": f"stopped ep {self.epoch}/{self.config.scale.epochs}",
            "paused": f"paused ep {self.epoch}/{self.config.scale.epochs}",
            "stopped": f"stopped at rung {self.epoch}",
            "failed": "failed",
            "diverged": "div.",
            # result.json lacks the value, or has it of held-out training images under another name
            "done": "failed" if self.config.data.evaluated_on == "val" else "held out",
        }[self.status]

    @cached_property
    def overrides(self) -> str:
        """The settings off the grid's axes: ``weight_decay=0.0005``, empty for the grid's own."""
        return overrides_text(self.config.overrides)

    @property
    def rehearsal(self) -> str | None:
        """One line on why it is a rehearsal; None of anything else."""
        return self.standing.rehearsal

    def column(self, split: str, key: str) -> FloatArray:
        """One value for every recorded epoch of ``column(split, "epoch")``; NaN where it has none. May be empty."""
        of_split = self.columns.get(split, {})
        if key in of_split:
            return of_split[key]
        return np.full(len(of_split["epoch"]) if "epoch" in of_split else 0, np.nan)

    def curve(self, split: str, key: str) -> FloatArray:
        """(epoch, value), of shape (n, 2), where ``metrics.jsonl`` has a finite value."""
        epochs, values = self.column(split, "epoch"), self.column(split, key)
        known = np.isfinite(values)
        return np.column_stack([epochs[known], values[known]])

    @property
    def parts(self) -> Mapping[str, tuple[str, str]]:
        """Split and key of the seconds that an epoch spent on each part of training."""
        return {
            "train": ("train", "seconds_train"),
            "evaluate": (self.config.data.evaluated_on, "seconds_eval"),
            "checkpoint": ("train", "seconds_checkpoint"),
        }

    @cached_property
    def due(self) -> Mapping[str, NDArray[np.int64]]:
        """The epochs that each split must have a record of: up to the last of a run that is done, else to the last
        recorded."""
        n, t, evaluated_on = self.config.scale.epochs, self.config.train, self.config.data.evaluated_on
        recorded = [self.column(split, "epoch")[-1:] for split in ("train", evaluated_on)]
        last = n if self.status == "done" else int(np.concatenate([[0], *recorded]).max())
        epochs = np.arange(1, last + 1)
        due = {"train": epochs, evaluated_on: epochs[(epochs % t.eval_every == 0) | (epochs == n)]}
        if t.oscillation:
            due["oscillation"] = epochs[(epochs % t.oscillation_window == 0) | (epochs == n)]
        return due

    @property
    def lost(self) -> Mapping[str, NDArray[np.int64]]:
        """The epochs, by split, whose record was due and is not there. That of an unfinished run's last may follow."""
        lost = {}
        for split, due in self.due.items():
            recorded = self.column(split, "epoch")
            if not np.array_equal(recorded, due):
                lost[split] = np.setdiff1d(due, recorded.astype(np.int64))
        if self.status != "done":
            last = len(self.due["train"])
            lost = {split: epochs[epochs < last] for split, epochs in lost.items()}
        return {split: epochs for split, epochs in lost.items() if len(epochs)}

    @cached_property
    def seconds(self) -> Mapping[str, FloatArray]:
        """By part (train, evaluate, checkpoint), one value for every epoch from 1 on: NaN where its record is lost, 0
        where no evaluation was due."""
        spent = {}
        for part, (split, key) in self.parts.items():
            spent[part] = np.zeros(len(self.due["train"]))
            spent[part][self.due[split] - 1] = np.nan
            spent[part][self.column(split, "epoch").astype(int) - 1] = self.column(split, key)
        return spent

    def spent(self, part: str) -> float:
        """Seconds of one part over all epochs, NaN where a record is lost. An epoch under way counts as far as it is
        recorded."""
        seconds = self.seconds[part].copy()
        if self.status != "done":
            seconds[-1:] = np.nan_to_num(seconds[-1:])
        return float(seconds.sum())

    @cached_property
    def hours(self) -> FloatArray:
        """For every epoch from 1 on: the epoch, the hours of training, evaluation and checkpoints up to its end, and
        these times the ranks of each. NaN from the first epoch on whose record is lost.

        What an attempt lost is left out. Where an epoch's record has no world size, it is the run's.
        """
        epochs, spent = self.due["train"], np.sum(list(self.seconds.values()), axis=0) / 3600.0
        ranks = np.full(len(epochs), number(self.result, "world_size") or self.config.cluster.world_size, dtype=float)
        recorded = self.curve("train", "world_size")
        ranks[recorded[:, 0].astype(int) - 1] = recorded[:, 1]
        return np.column_stack([epochs, np.cumsum(spent), np.cumsum(spent * ranks)])

    @cached_property
    def steps(self) -> Mapping[str, FloatArray]:
        """Columns of the watched steps, ``step`` and WATCHED; NaN where there is none. Read when first asked for.

        Of many steps every 2nd, 4th, 8th ..., so that MOST_STEPS are not exceeded. Unreadable ones join ``problems``.
        """
        records, damaged = [], 0
        try:
            lines = self.dir.read_steps(MOST_STEPS)
        except OSError as e:
            self.problems.append(f"{self.dir.steps_file.name} cannot be read ({e.strerror})")
        else:
            records = [r for r in lines.records if count(r, "step") is not None]
            damaged = lines.damaged + len(lines.records) - len(records)
        if damaged:
            word = "lines" if damaged > 1 else "line"
            self.problems.append(f"{damaged} unreadable {word} in {self.dir.steps_file.name}")
        columns = {key: [number(r, key) for r in records] for key in ("step", *WATCHED)}
        return {key: np.array(values, dtype=float) for key, values in columns.items()}

    @property
    def commits(self) -> Sequence[str]:
        """The commit of every attempt, ``+dirty`` where there were uncommitted changes."""
        return [text(a, "commit") + ("+dirty" if a.get("dirty") else "") for a in self.attempts if a.get("commit")]

    def correct(self) -> Mapping[str, NDArray[np.bool_]] | None:
        """Which validation images were right, by metric, in dataset order; None where it kept none that fit its result.

        ``problems`` says why they do not fit.
        """
        try:
            return read_correct(self.dir, self.result, self.config.data.evaluated_on)
        except (UserError, OSError):
            return None


def read_correct(run: RunDir, result: JsonRecord, split: EvaluationSplit) -> Mapping[str, NDArray[np.bool_]] | None:
    """correct.npz, checked against the result.json that it belongs to; None where there is none.

    Args:
        split: whose images it is of.

    Raises:
        UserError: it is damaged, or of other images or another evaluation than the result.
    """
    bits = run.correct()
    if bits is None:
        return None
    images = count(section(section(result, "fingerprint"), split), "num_images") or 0
    for metric in ("top1", "top5"):
        stated = number(result, metric if split == "val" else f"{split}_{metric}")
        right = bits.get(metric)
        if right is None or stated is None:
            reason = f"{run.correct_file.name} or {run.result_file.name} has no {metric}"
        elif right.size != images:
            reason = f"{run.correct_file.name} is of {right.size:,} images, {run.result_file.name} of {images:,}"
        elif round(stated * images / 100) != np.count_nonzero(right):
            share = 100 * right.mean()
            reason = f"{run.correct_file.name} has {metric} {share:.2f}, {run.result_file.name} {stated:.2f}"
        else:
            continue
        raise UserError(f"{reason}; the run is not compared image by image")
    return bits


class Fingerprints(NamedTuple):
    """Content hashes of the data that a finished run was trained and evaluated on; empty where unknown."""

    train: str  # held-out images included
    evaluated_on: str


def fingerprints(run: Run) -> Fingerprints:
    prints = section(run.result, "fingerprint")
    splits = ("train", run.config.data.evaluated_on)
    return Fingerprints(*(text(section(prints, split), "content_hash") for split in splits))
