"""Reads what real wandb wrote offline for a run."""

import json
import struct
from collections.abc import Iterator
from typing import Any

from adarem.run.directory import RunDir
from adarem.tracking.sync import sync


def records(run: RunDir) -> Iterator[object]:
    """The records of the newest offline run: protobufs in LevelDB's log format."""
    from wandb.proto import wandb_internal_pb2

    newest = max(run.path.glob("wandb/offline-run-*"), key=lambda p: p.stat().st_mtime)
    data = next(newest.glob("run-*.wandb")).read_bytes()
    block, position, parts = 32768, 7, b""  # the file begins with a header of 7 bytes
    while position + 7 <= len(data):
        if block - position % block < 7:
            position += block - position % block
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # complete, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def started(run: RunDir) -> Any:
    """The record of how the run was started: name, group, tags, config."""
    return next(r.run for r in records(run) if r.WhichOneof("record_type") == "run")


def summary(run: RunDir) -> dict[str, Any]:
    """What the run's summary ends as; keys that wandb makes itself and dicts of its aggregates included."""
    found = {}
    for record in records(run):
        if record.WhichOneof("record_type") == "summary":
            found |= {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.summary.update}
    return found


def definitions(run: RunDir) -> dict[str, tuple[str, set[str]]]:
    """Metric or pattern to its step metric and what of it goes into the summary."""
    found = {}
    for record in records(run):
        if record.WhichOneof("record_type") == "metric":
            m = record.metric
            found[m.name or m.glob_name] = (m.step_metric, {f.name for f, on in m.summary.ListFields() if on})
    return found


def history(run: RunDir) -> list[dict[str, Any]]:
    """The logged rows, in order."""
    rows = []
    for record in records(run):
        if record.WhichOneof("record_type") == "history":
            rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item})
    return rows


def replayed(run: RunDir) -> RunDir:
    """The run, after an offline copy of it was written."""
    import wandb

    sync(run, follow=False, mode="offline")
    wandb.teardown()
    return run


def own_summary(run: RunDir) -> dict[str, Any]:
    """The metrics of the run, without what wandb aggregates and counts itself."""
    automatic = ("train/", "val/", "oscillation/", "_")
    return {
        k: v
        for k, v in summary(run).items()
        if not k.startswith(automatic) and k not in ("epoch", "hours", "device_hours")
    }
