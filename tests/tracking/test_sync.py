"""The copy in wandb: complete, one wandb run per run, and never in training's way. Real wandb, offline."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adarem.run import exitcodes
from adarem.run.directory import RunDir
from adarem.run.records import count
from adarem.tracking import sync as module
from adarem.tracking.naming import run_id
from tests.support.sweeps import finish, make_config, write_grid
from tests.support.training import StopAtStep
from tests.support.wandb_files import history, records, replayed, started, summary


def test_an_offline_run_holds_everything_also_after_an_interruption(
    tiny_run: Callable[..., Path], run_here: Callable[..., int]
) -> None:
    run = RunDir(tiny_run("wandb.mode=offline", "optimizer=adarem", "train.watch_every=2"))
    config = run.config()
    assert run_here(run.path, StopAtStep(6, "SIGTERM")) == exitcodes.REQUEUE
    assert run_here(run.path) == exitcodes.OK
    run_record = started(run)
    assert run_record.run_id == run_id(run, config)
    cell = "ShuffleNetV2-0.5 · AdaRem (global batch size 288)"
    assert run_record.display_name == f"{cell} · seed 0"
    assert (run_record.run_group, run_record.job_type) == (f"table2-digits-smoke · {cell}", "train")
    assert set(run_record.tags) == {
        "table2-digits-smoke", "AdaRem", "ShuffleNetV2-0.5", "embedded digits", "rehearsal"
    }  # fmt: skip
    assert run_record.notes.startswith("REHEARSAL: embedded digits, 2 epochs")
    assert run_record.project == "adarem"
    settings = {i.key: json.loads(i.value_json) for i in run_record.config.update}
    assert settings["optimizer"]["lam"] == 0.999 and settings["cell"] == config.run_name == run.path.name
    assert (settings["campaign"], settings["table_cell"]) == ("table2-digits-smoke", cell)
    # the newest run is complete, from the first epoch on
    epochs = [row for row in history(run) if "epoch" in row]
    of = {split: [r for r in epochs if f"{split}/loss" in r] for split in ("train", "val")}
    for split in ("train", "val"):
        truth = [m for m in run.metrics() if m["split"] == split]
        assert [r["epoch"] for r in of[split]] == [m["epoch"] for m in truth] == [1, 2]
        assert [r[f"{split}/loss"] for r in of[split]] == [m["loss"] for m in truth]
    assert [r["ShuffleNetV2_0_5/test_error"] for r in of["val"]] == [100 - r["val/top1"] for r in of["val"]]
    watched = [row for row in history(run) if "watch/grad_norm" in row]
    truth = run.read_steps().records
    assert [r["step"] for r in truth] == [r["_step"] for r in watched] == [2, 4, 6, 8]
    assert [r["watch/b_positive"] for r in watched] == [r["b_positive"] for r in truth]
    assert [r["watch_layers/stage3"] for r in watched] == [r["layers"]["stage3"]["update_to_weight"] for r in truth]
    assert summary(run)["top1"] == run.result()["top1"] and summary(run)["status"] == "done"


def test_a_replay_sends_nothing_of_the_machine_that_replays(tmp_path: Path) -> None:
    run = replayed(finish(write_grid(tmp_path), make_config("resnet18", "adarem"), 70.5))
    kinds = {r.WhichOneof("record_type") for r in records(run)}
    assert not kinds & {"stats", "environment"} and not started(run).HasField("git")
    assert not list(run.path.glob("wandb/offline-run-*/files/wandb-metadata.json"))


def test_the_stamp_follows_what_training_recorded_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which data a run saw is known at its end; a run that began as a reproduction may turn out to be none."""
    images = np.ones(100, dtype=bool)
    run = finish(write_grid(tmp_path), make_config("resnet18", "adarem"), 70.5, correct=images)
    at_the_start = replace(module.describe(run, run.config()), tags=("table2",), notes=None)
    answers = iter([at_the_start, module.describe(run, run.config())])
    monkeypatch.setattr(module, "describe", lambda run, config: next(answers))
    replayed(run)
    first, *_, last = (r.run for r in records(run) if r.WhichOneof("record_type") == "run")
    assert list(first.tags) == ["table2"] and first.notes == ""
    assert "rehearsal" in last.tags and last.notes.startswith("REHEARSAL: ImageNet with 100 of")


def test_a_record_written_while_the_records_are_read_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """wandb drops what is logged at a step below the newest one."""
    run = RunDir(write_grid(tmp_path) / "resnet18-adarem-s0")
    config = make_config("resnet18", "adarem")
    run.freeze(config)
    run.append_metrics({"epoch": 1, "split": "train", "step": 10, "loss": 2.0})
    read = RunDir.read_metrics

    def training_goes_on(self: RunDir) -> Any:
        """Training writes the next record and begins an epoch right after the records were read."""
        found = read(self)
        if run.progress() is None:
            run.append_metrics({"epoch": 1, "split": "val", "step": 10, "loss": 2.5, "top1": 40.0})
            run.write_progress({"step": 11, "loss": 1.9})
        return found

    class Session:
        step, logged = 0, []

        def log(self, values: dict[str, Any], step: int) -> None:
            self.logged.append((step, values))

    waits = iter([False, True])
    monkeypatch.setattr(RunDir, "read_metrics", training_goes_on)
    monkeypatch.setattr(module, "_input_ended", lambda seconds: next(waits))
    module._send(Session(), run, config, follow=True)
    steps = [step for step, _ in Session.logged]
    assert steps == sorted(steps) == [10, 10, 11]
    assert Session.logged[1][1]["val/top1"] == 40.0 and Session.logged[2][1] == {"live/loss": 1.9}


def test_each_watched_step_is_read_and_sent_once_and_none_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watched step is written one later; an epoch's end comes between the steps before and after it."""
    run = RunDir(write_grid(tmp_path) / "resnet18-adarem-s0")
    run.freeze(make_config("resnet18", "adarem"))
    config = run.config()
    assert config.train.watch_every == 50

    def epoch(step: int) -> None:
        run.append_metrics({"epoch": step // 120, "split": "train", "step": step, "loss": 1.0})

    def watched(*steps: int) -> None:
        for step in steps:
            run.append_step({"step": step, "loss": 0.5, "layers": {"fc": {"update_to_weight": 0.1}}, "lr": None})

    rounds = iter([
        lambda: run.write_progress({"step": 40, "loss": 1.9}),
        lambda: (watched(50), run.write_progress({"step": 110, "loss": 1.8})),
        lambda: run.write_progress({"step": 118, "loss": 1.75}),
        lambda: (watched(100), epoch(120), watched(150), run.write_progress({"step": 210, "loss": 1.7})),
        lambda: (watched(200), epoch(240), run.write_progress({"step": 245, "loss": 1.6})),
        lambda: watched(250),
    ])  # fmt: skip

    def ended(seconds: float) -> bool:
        step = next(rounds, None)
        if step is not None:
            step()
        return step is None

    class Session:
        step, logged = 0, []

        def log(self, values: dict[str, Any], step: int) -> None:
            self.logged.append((step, sorted(values)))

    read: list[int] = []
    new_steps = RunDir.new_steps

    def counted(self: RunDir, begin: int) -> Any:
        found = new_steps(self, begin)
        read.extend(count(r, "step") for r in found.records)
        return found

    monkeypatch.setattr(RunDir, "new_steps", counted)
    monkeypatch.setattr(module, "_input_ended", ended)
    module._send(Session(), run, config, follow=True)
    steps = [step for step, _ in Session.logged]
    assert steps == sorted(steps), Session.logged
    assert read == [50, 100, 150, 200, 250]
    assert [s for s, keys in Session.logged if keys == ["watch/loss", "watch_layers/fc"]] == read
    assert [s for s, keys in Session.logged if "train/loss" in keys] == [120, 240]
    assert {s for s, keys in Session.logged if keys == ["live/loss"]} == {40, 49, 99, 149, 245}


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
    monkeypatch.setattr(module, "_FINISH_SECONDS", 1.0)
    run = RunDir(tiny_run("wandb.mode=online", "scale.epochs=1"))
    assert run_here(run.path) == exitcodes.OK
    assert run.status() == "done"
    if "RuntimeError" in failure:
        assert "no wandb today" in (run.path / "wandb.log").read_text()
