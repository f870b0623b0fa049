"""The run directory: statuses derived, one owner at a time."""

import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest

from adarem.plan.plan import make_plan
from adarem.run.directory import RunDir
from adarem.run.errors import RunRemoved, UserError
from adarem.run.sweep import read_sweep, runs_in


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    plan = make_plan(["data=digits", f"runs_dir={tmp_path}", "optimizer=adam"])
    plan.write()
    return plan.runs[0].run


def test_config_comes_back_as_planned(run: RunDir) -> None:
    config = run.config()
    assert (config.run_name, config.optimizer.name, config.optimizer.hparams["beta1"]) == (
        "resnet18-adam-s0",
        "adam",
        0.9,
    )
    assert run.status() == "planned"
    assert read_sweep(run.path.parent).name == "table2"
    assert runs_in(run.path.parent) == [run]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid: [", r"not valid YAML at line [12]"),
        ("just words", "holds no mapping"),
        ("", "holds no mapping"),
        ("grid: table2", "cell: missing"),
        ("!!python/object/apply:os.system ['touch pwned']", "not valid YAML"),
    ],
)
def test_a_damaged_config_is_one_line(run: RunDir, text: str, message: str) -> None:
    run.config_file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        run.config()
    assert str(run.config_file) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no config.yaml there"):
        RunDir(tmp_path).config()
    with pytest.raises(UserError, match=r"no grid.yaml there"):
        read_sweep(tmp_path)


def test_attempts_are_joined_and_statuses_derived(run: RunDir) -> None:
    first = run.start_attempt({"host": "n1", "commit": "abc"})
    run.end_attempt(first, "interrupted", "SIGUSR1 at step 7")
    assert run.status() == "interrupted"
    second = run.start_attempt({"host": "n2", "commit": "abc"})
    assert (first, second) == (1, 2)
    assert run.status() == "running"  # on another host, moments ago
    run.end_attempt(second, "failed", "RuntimeError: x")
    assert run.status() == "failed"
    attempts = run.attempts()
    assert [a["why"] for a in attempts] == ["interrupted", "failed"]
    assert attempts[1]["host"] == "n2" and attempts[1]["end"] >= attempts[1]["start"]
    run.write_result({"status": "done", "top1": 50.0})
    assert run.status() == "done"
    run.write_result({"status": "diverged", "reason": "loss"})
    assert run.status() == "diverged"
    run.result_file.write_text("{")
    assert run.status() == "failed"
    with pytest.raises(UserError, match="result.json: not readable as JSON"):
        run.result()


def test_a_killed_attempt_is_failed_not_running(run: RunDir) -> None:
    import socket

    run.start_attempt({"host": socket.gethostname()})
    with run.lock():
        assert run.status() == "running"
    assert run.status() == "failed"


def test_metrics_last_line_counts_and_half_lines_spoil_only_themselves(run: RunDir) -> None:
    run.append_metrics({"epoch": 1, "split": "train", "loss": 2.0})
    run.append_metrics({"epoch": 1, "split": "val", "loss": 3.0})
    run.append_metrics({"epoch": 1, "split": "train", "loss": 1.0})
    with open(run.metrics_file, "a") as f:
        f.write('{"epoch": 2, "split": "tr')  # the machine dies here
    assert run.damaged_lines() == 1
    run.append_metrics({"epoch": 2, "split": "train", "loss": 0.5})
    assert [(m["epoch"], m["split"], m["loss"]) for m in run.metrics()] == [
        (1, "train", 1.0),
        (1, "val", 3.0),
        (2, "train", 0.5),
    ]
    assert run.damaged_lines() == 1


def test_correct_bits_round_trip(run: RunDir) -> None:
    rng = np.random.default_rng(0)
    bits = {"top1": rng.random(50_003) < 0.7, "top5": rng.random(50_003) < 0.9}
    assert run.correct() is None
    run.write_correct(bits)
    assert run.correct_file.stat().st_size < 2 * 50_003 / 8 + 1000
    back = run.correct()
    assert all((back[k] == bits[k]).all() and back[k].dtype == bool for k in bits)
    data = run.correct_file.read_bytes()
    run.correct_file.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="correct.npz: damaged"):
        run.correct()


def _hold(path: Path, ready, release) -> None:
    with RunDir(path).lock():
        ready.set()
        release.wait(30)


def test_lock_names_its_owner_and_dies_with_it(run: RunDir) -> None:
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(run.path, ready, release))
    holder.start()
    assert ready.wait(30)
    assert run.locked()
    with pytest.raises(UserError, match=rf"another process works on it \(host \S+, pid {holder.pid}"), run.lock():
        pass
    holder.kill()
    holder.join()
    assert not run.locked()
    with run.lock():
        pass


def test_halves_that_killed_processes_left_go_with_the_next_lock(run: RunDir) -> None:
    run.checkpoints.mkdir()
    halves = [run.path / ".result.json.x1.partial", run.checkpoints / ".step-000000004-00.pt.x2.partial"]
    others = run.path / ".config.yaml.x3.partial"
    for file in (*halves, others):
        file.write_text("half")
    with run.lock():
        assert not any(file.exists() for file in halves)
    assert others.exists()


def test_what_was_removed_is_not_made_anew(run: RunDir) -> None:
    """A process that still trains writes nothing in its place; what it may have left is no obstacle to a new plan."""
    config = run.config()
    shutil.rmtree(run.path)
    for write in (
        lambda: run.write_progress({"epoch": 1}),
        lambda: run.write_result({"status": "done"}),
        lambda: run.write_correct({"top1": [True]}),
    ):
        with pytest.raises(RunRemoved, match=f"{run.path}: removed while it trained, so it ends; plan it again"):
            write()
    assert not run.path.exists()
    run.path.mkdir()
    for name in ("progress.json", "lock", "claim", ".result.json.0.partial"):
        (run.path / name).touch()
    with pytest.raises(RunRemoved):
        run.write_progress({"epoch": 1})
    assert run.freeze(config)
    run.config_file.unlink()
    (run.path / "metrics.jsonl").touch()
    with pytest.raises(UserError, match="holds files but no config.yaml"):
        run.freeze(config)
