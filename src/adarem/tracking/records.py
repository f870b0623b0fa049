"""What wandb gets of a run: its curves, row by row, and its summary. Everything is read from the run's directory."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from adarem.run.config import RunConfig
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.records import JsonRecord, count, number, section
from adarem.tracking.naming import network_key

if TYPE_CHECKING:
    import wandb

# Metrics of which wandb keeps the best value next to the last.
_BEST: dict[str, Literal["min", "max"]] = {
    "train/loss": "min", "val/loss": "min", "val/top1": "max", "val/top5": "max", "val/perplexity": "min",
    "holdout/loss": "min", "holdout/top1": "max", "holdout/top5": "max",
}  # fmt: skip
_NOT_LOGGED = ("split", "step", "epoch", "time", "trajectories")  # of a record
_FINAL = (  # of result.json
    "status", "top1", "top5", "perplexity", "val_perplexity", "val_loss", "train_loss", "best_epoch", "gpu_hours",
    "holdout_top1", "holdout_top5", "best_holdout_top1", "holdout_loss",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """The values of one step."""

    step: int
    values: Mapping[str, object]


def define_metrics(session: "wandb.Run", network: str) -> None:
    """Defines for wandb which metrics are drawn over epochs and what of each goes into the summary.

    Args:
        network: ``network_key`` of the run.
    """
    session.define_metric("epoch")
    for axis in ("hours", "device_hours"):
        session.define_metric(axis, hidden=True)
    for pattern in ("train/*", "val/*", "holdout/*", "oscillation/*"):
        session.define_metric(pattern, step_metric="epoch", summary="last")
    for name, best in _BEST.items():
        session.define_metric(name, step_metric="epoch", summary=f"{best},last")
    session.define_metric(f"{network}/*", step_metric="epoch", summary="none")  # copies of metrics above
    for pattern in ("watch/*", "watch_layers/*", "live/*"):
        session.define_metric(pattern, summary="none")


def rows(run: RunDir, config: RunConfig) -> list[Row]:
    """Every record of the run in order of step, under the keys that wandb has them by.

    ``hours`` and ``device_hours`` are those of training, evaluation and checkpoints so far, as in the report, whenever
    and wherever they are sent to wandb.

    Raises:
        UserError: a record has no step.
    """
    oscillation = [r | {"split": "oscillation"} for r in run.oscillation()]
    network, ranks = network_key(config), config.cluster.world_size
    hours = device_hours = 0.0
    found = []
    records = run.metrics() + oscillation
    if any(count(r, "step") is None for r in records):
        raise UserError(f"{run.path}: a record of a finished epoch has no step; remove its line and send the run again")
    for record in sorted(records, key=lambda r: count(r, "step") or 0):
        split, ranks = record["split"], count(record, "world_size") or ranks
        spent = sum(number(record, k) or 0.0 for k in ("seconds_train", "seconds_checkpoint", "seconds_eval")) / 3600
        hours, device_hours = hours + spent, device_hours + spent * ranks
        values = {f"{split}/{k}": v for k, v in record.items() if k not in _NOT_LOGGED and v is not None}
        top1 = number(values, "val/top1")
        own = {
            "train_loss": values.get("train/loss"),
            "test_error": None if top1 is None else 100.0 - top1,
            "val_perplexity": values.get("val/perplexity"),
        }
        values |= {f"{network}/{k}": v for k, v in own.items() if v is not None}
        axes = {"epoch": record["epoch"], "hours": hours, "device_hours": device_hours}
        found.append(Row(count(record, "step") or 0, axes | values))
    return found


def watched_row(record: JsonRecord) -> Row | None:
    """A line of steps.jsonl under the keys that wandb has it by; None of one without a step.

    Of the parts of the network only the update-to-weight ratio: each key is a panel there.
    """
    if (step := count(record, "step")) is None:
        return None
    values = {f"watch/{k}": value for k in record if k != "step" and (value := number(record, k)) is not None}
    layers = section(record, "layers")
    ratios = {name: number(section(layers, name), "update_to_weight") for name in layers}
    values |= {f"watch_layers/{name}": ratio for name, ratio in ratios.items() if ratio is not None}
    return Row(step, values)


def live_values(progress: JsonRecord) -> dict[str, object]:
    """What a run's progress file says within an epoch."""
    shown = {f"live/{k}": progress.get(k) for k in ("loss", "images_per_s", "tokens_per_s")}
    return {k: v for k, v in shown.items() if v is not None}


def summary(run: RunDir, config: RunConfig, result: JsonRecord | None) -> dict[str, object]:
    """The run's metrics in one row: final ones once it is finished, before that the newest and the best so far.

    Args:
        result: of result.json; None while the run is not finished.
    """
    records, windows = run.metrics(), run.oscillation()
    train, val = ([r for r in records if r["split"] == split] for split in ("train", "val"))
    attempt = (run.attempts() or [{}])[-1]
    seconds = sum(_values(train, "seconds_train"))
    waited = sum((number(r, "data_wait") or 0.0) * (number(r, "seconds_train") or 0.0) for r in train)
    found = {
        "status": attempt.get("why") or run.status(),
        "commit": attempt.get("commit"),
        "best_top1": max(_values(val, "top1"), default=None),
        "best_top5": max(_values(val, "top5"), default=None),
        "best_val_perplexity": min(_values(val, "perplexity"), default=None),
        "q_mean": _last(windows, "q_mean"),
        "q_median_with_gradient": _last(windows, "q_median_with_gradient"),
        "images_per_s": statistics.median(_values(train, "images_per_s") or [0.0]) or None,
        "tokens_per_s": statistics.median(_values(train, "tokens_per_s") or [0.0]) or None,
        "data_wait": waited / seconds if seconds else None,
        "base_lr": config.optimizer.lr * config.scale.lr_factor,
        "last_lr": _last(train, "lr"),
    } | {k: v for k, v in (result or {}).items() if k in _FINAL}
    return {k: v for k, v in found.items() if v is not None}


def _values(records: Iterable[JsonRecord], key: str) -> list[float]:
    return [value for r in records if (value := number(r, key)) is not None]


def _last(records: Iterable[JsonRecord], key: str) -> float | None:
    return next(reversed(_values(records, key)), None)
