"""The training state through a checkpoint, and checkpoints of version 0.1."""

import dataclasses
from pathlib import Path

import pytest
import torch

from adarem.train.checkpoint import CheckpointWriter, find_newest, load
from adarem.train.metrics import EpochTime
from adarem.train.state import PartialEpoch, TrainingState
from tests.support import ROOT

OLD = ROOT / "tests" / "golden" / "runs" / "interrupted"


def test_every_field_survives_a_checkpoint(tmp_path: Path) -> None:
    partial = PartialEpoch(({"loss": 1.5, "tokens": 3.0}, {"loss": 0.5, "tokens": 4.0}), EpochTime(2.5, 0.25, 7))
    state = TrainingState(5, partial, 0.5, 9.0, 42.0, 3, 0.1)
    assert all(getattr(state, f.name) != f.default for f in dataclasses.fields(state))
    writer = CheckpointWriter(tmp_path)
    writer.save(5, {"training": state.to_record()})
    writer.wait()
    assert TrainingState.from_record(load(find_newest(tmp_path).path)["training"]) == state


@pytest.mark.parametrize("run", sorted(p.parent.name for p in OLD.glob("*/*/checkpoints")))
def test_checkpoints_of_format_3_are_read(run: str) -> None:
    (path,) = OLD.glob(f"*/{run}/checkpoints/step-*.pt")
    old = torch.load(path, map_location="cpu", weights_only=True)
    assert old["format"] == 3
    record = load(path)
    state = TrainingState.from_record(record["training"])
    position = old["position"]
    for name in ("step", "seconds", "checkpoint_seconds", "best", "best_epoch", "train_loss"):
        assert getattr(state, name) == position[name]
    assert state.partial_epoch is not None
    assert [list(row.values()) for row in state.partial_epoch.totals] == position["totals"]
    assert list(dataclasses.astuple(state.partial_epoch.time)) == position["spent"]
    assert record["content_hashes"] == old["data"] and record["identity"] == old["identity"]
    assert record["task"]["hidden"] is old["task"] is None or torch.equal(
        record["task"]["hidden"][0][0], old["task"][0][0]
    )
    assert (record["task"]["average"] is None) == (old["average"] is None)
