"""Runs sent again from their directories alone; real wandb, offline."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from adarem.run import exitcodes
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.tracking.replay import Replayed, replay
from tests.support.published import finished_sweep
from tests.support.sweeps import finish, make_config
from tests.support.wandb_files import history, started, summary

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def finished(tiny_run: Callable[..., Path], run_here: Callable[..., int]) -> RunDir:
    run = RunDir(tiny_run("optimizer=adarem", "train.oscillation=true", "train.watched_steps=0"))
    assert run_here(run.path) == exitcodes.OK
    return run


def test_replay_builds_the_run_from_its_directory_alone(finished: RunDir) -> None:
    folder = finished.path.parent
    assert not list(finished.path.glob("wandb/offline-run-*"))
    assert replay(folder, "offline") == Replayed(1, ())
    logged = [r for r in history(finished) if "epoch" in r]
    assert [r["val/top1"] for r in logged if "val/top1" in r] == [
        m["top1"] for m in finished.metrics() if m["split"] == "val"
    ]
    assert [r["oscillation/q_mean"] for r in logged if "oscillation/q_mean" in r] == [
        o["q_mean"] for o in finished.oscillation()
    ]


def test_replay_goes_on_after_damaged_runs_and_names_them(tmp_path: Path, adarem_command: Command) -> None:
    folder = finished_sweep(tmp_path)
    damaged, edited, intact = (folder / f"resnet18-{name}" for name in ("adarem-s0", "adarem-s1", "sgdm-s0"))
    (damaged / "config.yaml").write_text("{")
    result = json.loads((edited / "result.json").read_text())
    (edited / "result.json").write_text(json.dumps(result | {"top1": 99.0}))
    lost = folder / "resnet18-adam-s0"
    finish(folder, make_config("resnet18", "adam", data="digits"), 69.0)
    (lost / "config.yaml").unlink()
    finish(folder, make_config("resnet18", "adamw", data="digits"), 69.0)
    with open(folder / "resnet18-adamw-s0" / "metrics.jsonl", "a") as f:
        f.write('{"epoch": 10, "split": "val"}\n')  # without its step
    done = adarem_command("wandb", "replay", ".", "--mode=offline", cwd=folder)
    assert done.returncode == exitcodes.USER_ERROR and done.stdout == ".: 1 runs sent, 4 not\n"
    lines = done.stderr.splitlines()
    assert len(lines) == 4 and all(line.startswith("adarem wandb: not sent: ") for line in lines)
    for line, expected in zip(
        lines,
        (
            f"{lost}: no config.yaml there",
            f"{folder / 'resnet18-adamw-s0'}: a record of a finished epoch has no step; remove its line",
            f"{damaged / 'config.yaml'}: not valid YAML",
            f"{edited / 'result.json'}: not as training wrote it (checksum differs)",
        ),
        strict=True,
    ):
        assert expected in line
    assert started(RunDir(intact)).run_group == "table2-digits · ResNet-18 · SGDM"  # though called as "."
    assert summary(RunDir(intact))["top1"] == 70.0
    # of the edited one the curves are sent, and no final metric
    assert "top1" not in summary(RunDir(edited))
    assert [r["val/top1"] for r in history(RunDir(edited))][-1] == 71.5


def test_nothing_to_replay(tiny_run: Callable[..., Path]) -> None:
    folder = tiny_run().parent
    with pytest.raises(UserError, match="no run there has finished an epoch"):
        replay(folder, "offline")


def test_a_replay_of_runs_that_have_wandb_switched_off_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="wandb: disabled by wandb.mode of the run or by WANDB_MODE; give --mode="):
        replay(finished_sweep(tmp_path), None)


def test_runs_of_a_job_that_wandb_started_stay_their_own(tmp_path: Path, adarem_command: Command) -> None:
    folder = finished_sweep(tmp_path)
    agent = {"WANDB_RUN_ID": "agents", "WANDB_SWEEP_ID": "sweep", "WANDB_RUN_GROUP": "g", "WANDB_NAME": "n"}
    done = adarem_command("wandb", "replay", str(folder), "--mode=offline", WANDB_PROJECT="optimizers", **agent)
    assert done.returncode == exitcodes.OK, done.stderr
    runs = [started(RunDir(path)) for path in sorted(folder.iterdir()) if (path / "config.yaml").exists()]
    assert len({run.run_id for run in runs}) == len(runs) > 1
    assert {run.sweep_id for run in runs} == {""} and {run.project for run in runs} == {"optimizers"}
