"""The wandb mirror: complete, one run a cell, and never in training's way. Real wandb, offline."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adarem import exitcodes, mirror
from adarem.mirror import run_id
from adarem.rundir import RunDir

from .training import StopAtStep


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
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def history(run: RunDir) -> list[dict]:
    rows = []
    for record in records(run):
        if record.WhichOneof("record_type") == "history":
            rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item})
    return rows


def test_an_offline_run_holds_everything_also_after_an_interruption(
    tiny_run: Callable[..., Path], run_here: Callable[..., int]
) -> None:
    run = RunDir(tiny_run("wandb.mode=offline", "optimizer=adarem"))
    config = run.config()
    assert run_here(run.path, StopAtStep(6, "SIGTERM")) == exitcodes.REQUEUE
    assert run_here(run.path) == exitcodes.OK
    started = next(r.run for r in records(run) if r.WhichOneof("record_type") == "run")
    assert started.run_id == run_id(run, config)
    assert (started.display_name, started.run_group) == (
        "shufflenet_v2_0.5-adarem-global_batch_size=288-s0",
        "table2-digits-smoke",
    )
    assert {"AdaRem", "ShuffleNetV2-0.5", "rehearsal"} <= set(started.tags)
    assert started.project == "adarem"
    settings = {i.key: json.loads(i.value_json) for i in started.config.update}
    assert settings["optimizer"]["lam"] == 0.999
    # the newest run alone tells the whole story, from the first epoch on
    epochs = [row for row in history(run) if "epoch" in row]
    of = {split: [r for r in epochs if f"{split}/loss" in r] for split in ("train", "val")}
    for split in ("train", "val"):
        truth = [m for m in run.metrics() if m["split"] == split]
        assert [r["epoch"] for r in of[split]] == [m["epoch"] for m in truth] == [1, 2]
        assert [r[f"{split}/loss"] for r in of[split]] == [m["loss"] for m in truth]
    summary = {}
    for record in records(run):
        if record.WhichOneof("record_type") == "summary":
            summary |= {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.summary.update}
    assert summary["top1"] == run.result()["top1"] and summary["status"] == "done"


def test_the_id_is_stable_and_tells_cells_apart(tiny_run: Callable[..., Path]) -> None:
    a, b = RunDir(tiny_run("optimizer=adam")), RunDir(tiny_run("optimizer=adarem"))
    assert run_id(a, a.config()) == run_id(a, a.config()) != run_id(b, b.config())


@pytest.mark.parametrize("failure", ["raise RuntimeError('no wandb today')", "import time; time.sleep(3600)"])
def test_a_wandb_that_fails_or_hangs_costs_no_step(
    failure: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_run: Callable[..., Path],
    run_here: Callable[..., int],
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "wandb.py").write_text(failure)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setattr(mirror, "_FINISH_SECONDS", 1.0)
    run = RunDir(tiny_run("wandb.mode=online", "scale.epochs=1"))
    assert run_here(run.path) == exitcodes.OK
    assert run.status() == "done"
    if "RuntimeError" in failure:
        assert "no wandb today" in (run.path / "wandb.log").read_text()


def test_online_only_with_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_run: Callable[..., Path]) -> None:
    config = RunDir(tiny_run("wandb.mode=auto")).config()
    for name in ("WANDB_MODE", "WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert mirror.wandb_mode(config) == "offline"
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password 0123\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert mirror.wandb_mode(config) == "online"
    (tmp_path / ".netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    assert mirror.wandb_mode(config) == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert mirror.wandb_mode(config) == "disabled"
