"""How far a run has come, and what a checkpoint of it holds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NotRequired, TypedDict, cast

from adarem.train.metrics import EpochTime
from adarem.train.oscillation import OscillationState


@dataclass(frozen=True)
class PartialEpoch:
    """The current epoch, where an attempt was interrupted within it."""

    totals: tuple[Mapping[str, float], ...]  # of each rank, by the names of TaskInfo.totals
    time: EpochTime


@dataclass
class TrainingState:
    """What a checkpoint holds next to the state of the model, the optimizer and the task."""

    step: int = 0  # optimizer steps done
    partial_epoch: PartialEpoch | None = None
    checkpoint_seconds: float = 0.0  # that the loop waited for checkpoints since the last record
    seconds: float = 0.0  # of training, over all attempts
    best: float | None = None  # the primary metric's best value over the evaluations so far
    best_epoch: int = 0  # epochs completed then
    train_loss: float | None = None  # mean over the last complete epoch

    def to_record(self) -> "TrainingRecord":
        return cast(TrainingRecord, asdict(self))

    @classmethod
    def from_record(cls, record: "TrainingRecord") -> "TrainingState":
        partial = record["partial_epoch"]
        begun = None if partial is None else PartialEpoch(tuple(partial["totals"]), EpochTime(**partial["time"]))
        return cls(
            step=record["step"],
            partial_epoch=begun,
            checkpoint_seconds=record["checkpoint_seconds"],
            seconds=record["seconds"],
            best=record["best"],
            best_epoch=record["best_epoch"],
            train_loss=record["train_loss"],
        )


class EpochTimeRecord(TypedDict):
    """An ``EpochTime`` in a checkpoint."""

    seconds: float
    waited_seconds: float
    count: int


class PartialEpochRecord(TypedDict):
    """A ``PartialEpoch`` in a checkpoint."""

    totals: Sequence[Mapping[str, float]]
    time: EpochTimeRecord


class TrainingRecord(TypedDict):
    """A ``TrainingState`` in a checkpoint."""

    step: int
    partial_epoch: PartialEpochRecord | None
    checkpoint_seconds: float
    seconds: float
    best: float | None
    best_epoch: int
    train_loss: float | None


class CheckpointRecord(TypedDict):
    """A checkpoint's content, but for its ``format``: plain values and tensors, read without executing anything."""

    identity: Mapping[str, object]  # settings that decide the result, see run.config.identity
    content_hashes: Mapping[str, str]  # split to that of its data
    model: dict[str, object]
    optimizer: dict[str, object]
    scaler: dict[str, object]
    training: TrainingRecord
    task: Mapping[str, object]
    oscillation: OscillationState | None
    evaluated: NotRequired[dict[str, object]]  # the last one's, of an optimizer that averages: the model as evaluated


# Columns of the totals in format 3, by their number: of images and of text.
_FORMAT_3_TOTALS = {4: ("loss", "top1", "top5", "images"), 2: ("loss", "tokens")}


def from_format_3(record: Mapping[str, object]) -> CheckpointRecord:
    """A checkpoint of version 0.1 in today's form."""
    old: Mapping[str, Any] = record
    training = dict(old["position"])
    rows, spent = training.pop("totals"), training.pop("spent")
    training["partial_epoch"] = None
    if spent:  # empty after a complete epoch
        seconds, waited_seconds, count = spent
        training["partial_epoch"] = {
            "totals": tuple(dict(zip(_FORMAT_3_TOTALS[len(row)], row, strict=True)) for row in rows),
            "time": {"seconds": seconds, "waited_seconds": waited_seconds, "count": count},
        }
    oscillation = old["oscillation"]
    if oscillation is not None:
        watch = oscillation["watch"]
        done = [{"from_step": step, "values": values} for step, values in watch["done"]]
        oscillation = {k: v for k, v in oscillation.items() if k != "watch"}
        oscillation["trajectories"] = {"step": watch["step"], "rows": watch["rows"], "done": done}
    return {
        "identity": old["identity"],
        "content_hashes": old["data"],
        "model": old["model"],
        "optimizer": old["optimizer"],
        "scaler": old["scaler"],
        "training": cast(TrainingRecord, training),
        "task": {"hidden": old["task"], "average": old["average"]},
        "oscillation": oscillation,
    }
