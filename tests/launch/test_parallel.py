"""Several runs at a time, with a stand-in for python and a list of devices that this machine need not have."""

import contextlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from adarem.launch.commands import environment, train_command
from adarem.launch.devices import Device, DevicePool
from adarem.launch.parallel import FAILURES_ALLOWED, Outcome, Task, train_all
from adarem.plan.plan import Plan
from adarem.run import locks
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from tests.support.launching import order
from tests.support.processes import wait_for

PATIENCE = 60.0


def pool(folder: Path, *names: str) -> DevicePool:
    return DevicePool("cuda", [Device(name, name) for name in names], folder)


def tasks_of(plan: Plan, devices: int = 1) -> list[Task]:
    plan.write()
    return [
        Task(p.config.run_name, p.run, train_command(p.run, 1), environment(p.config.cluster), devices)
        for p in plan.runs
    ]


def ends(outcomes: Sequence[Outcome]) -> list[str]:
    return [o.ended for o in outcomes]


def test_each_run_has_gpus_of_its_own_and_a_failed_one_keeps_its_place(
    plan: Plan, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    order(plan, "finish", "fail", "finish")
    assert ends(train_all(tasks_of(plan), pool(tmp_path, "a", "b"))) == ["done", "failed", "done"]
    seen = [json.loads((p.run.path / "rank0.json").read_text())["CUDA_VISIBLE_DEVICES"] for p in plan.runs]
    assert seen[:2] == ["a", "b"]
    lines = capfd.readouterr().out.splitlines()
    starts = [line for line in lines if "starts on GPU" in line]
    assert starts[0].endswith("starts on GPU a") and starts[1].endswith("starts on GPU b")
    assert lines.index(starts[1]) == lines.index(starts[0]) + 1  # before the first has ended
    assert any(line.startswith(f"{plan.runs[1].config.run_name}: FAILED after") for line in lines)


def test_a_run_whose_directory_was_removed_holds_up_no_other(
    plan: Plan, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    order(plan, "finish", "finish", "finish")
    tasks = tasks_of(plan)
    shutil.rmtree(plan.runs[1].run.path)
    assert ends(train_all(tasks, pool(tmp_path, "a"))) == ["done", "failed", "done"]
    assert "FAILED: its directory was removed; the same command makes it anew" in capfd.readouterr().out
    assert not plan.runs[1].run.path.exists()


def test_no_more_runs_at_once_than_asked(plan: Plan, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert ends(train_all(tasks_of(plan), pool(tmp_path, "a", "b", "c"), at_a_time=1)) == ["done"] * 3
    lines = [line for line in capfd.readouterr().out.splitlines() if "starts on" in line or "top-1" in line]
    assert ["starts on" in line for line in lines] == [True, False] * 3


def test_a_lost_rank_starts_again_and_not_for_ever(
    plan: Plan, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    order(plan, "lost", "always lost", "finish")
    assert ends(train_all(tasks_of(plan), pool(tmp_path, "a"))) == ["done", "failed", "done"]
    assert [len(p.run.attempts()) for p in plan.runs] == [2, FAILURES_ALLOWED, 1]
    assert "lost a rank to SIGKILL, 1 of 3 times without a new checkpoint; starts again" in capfd.readouterr().out


def launching(plan: Plan, folder: Path, *names: str) -> subprocess.Popen[str]:
    """train_all in a process of its own; its output ends with what became of the runs."""
    given = folder / f"{time.monotonic_ns()}.pickle"
    given.write_bytes(pickle.dumps((tasks_of(plan), pool(folder, *names))))
    code = (
        "import pickle, sys; from adarem.launch.parallel import train_all\n"
        "print('ends', *(o.ended for o in train_all(*pickle.load(open(sys.argv[1], 'rb')))))"
    )
    return subprocess.Popen(
        [f"{sys.prefix}/bin/python", "-c", code, str(given)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def result(process: subprocess.Popen[str]) -> tuple[list[str], list[str]]:
    """What became of the runs, and the lines before."""
    *lines, last = process.communicate(timeout=PATIENCE)[0].splitlines()
    assert last.startswith("ends "), lines
    return last.split()[1:], lines


def pid_of(run: RunDir) -> int:
    """The process that trains a run."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if file.read_bytes().rstrip(b"\0").endswith(b"train\0" + bytes(run.path)):
                return int(file.parent.name)
    raise AssertionError(f"nobody trains {run.path}")


def test_an_interrupted_run_starts_again(plan: Plan, tmp_path: Path) -> None:
    """By a signal to that run alone."""
    order(plan, "wait", "finish", "finish")
    process = launching(plan, tmp_path, "a", "b")
    run = plan.runs[0].run
    wait_for((run.path / "rank0.json").exists, PATIENCE)
    os.kill(pid_of(run), signal.SIGTERM)
    assert result(process)[0] == ["done"] * 3 and len(run.attempts()) == 2


def test_ctrl_c_stops_all_runs_in_order(plan: Plan, tmp_path: Path) -> None:
    order(plan, "wait", "wait", "finish")
    process = launching(plan, tmp_path, "a", "b")
    wait_for(lambda: all((p.run.path / "rank0.json").exists() for p in plan.runs[:2]), PATIENCE)
    process.send_signal(signal.SIGINT)
    ended, lines = result(process)
    assert ended == ["stopped"] * 3 and "stopping after the current step; Ctrl-C again ends at once" in lines
    assert [p.run.status() for p in plan.runs] == ["interrupted", "interrupted", "planned"]
    assert [json.loads((p.run.path / "signals0").read_text()) for p in plan.runs[:2]] == [[signal.SIGINT]] * 2


def test_the_second_ctrl_c_kills_all_runs(plan: Plan, tmp_path: Path) -> None:
    order(plan, "stubborn", "stubborn", "finish")
    process = launching(plan, tmp_path, "a", "b")
    children = [p.run.path / "child" for p in plan.runs[:2]]
    wait_for(lambda: all(c.exists() and c.read_text().endswith("\n") for c in children), PATIENCE)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert result(process)[0] == ["stopped"] * 3
    wait_for(lambda: all(gone(int(c.read_text())) for c in children), PATIENCE)


def test_two_launches_share_runs_and_devices(plan: Plan, tmp_path: Path) -> None:
    """Started at once on the same runs: each run is trained once, and no GPU is given to two of them."""
    order(plan, "finish", "finish", "finish")
    both = [launching(plan, tmp_path, "a"), launching(plan, tmp_path, "a", "b")]
    endings = [result(process) for process in both]
    assert [len(p.run.attempts()) for p in plan.runs] == [1, 1, 1]
    assert all(p.run.status() == "done" for p in plan.runs)
    assert all(e in ("done", "elsewhere") for ended, _ in endings for e in ended)


def test_a_launch_waits_for_a_device_that_another_has(plan: Plan, tmp_path: Path) -> None:
    held = pool(tmp_path, "a").take(1)
    assert held is not None
    process = launching(plan, tmp_path, "a")
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first == f"{plan.runs[0].config.run_name}: waits for what another launch on this machine uses\n"
    assert not plan.runs[0].run.attempts()
    held.release()
    assert result(process)[0] == ["done"] * 3


def test_a_run_that_another_launch_has_claimed_is_left_to_it(plan: Plan, tmp_path: Path) -> None:
    """Before its first rank has locked it."""
    tasks = tasks_of(plan)
    claim = locks.try_hold(plan.runs[1].run.claim_file)
    assert claim is not None
    assert ends(train_all(tasks, pool(tmp_path, "a"))) == ["done", "elsewhere", "done"]
    assert plan.runs[1].run.status() == "planned"
    os.close(claim)


def test_a_killed_launch_leaves_nothing_that_blocks_the_next(plan: Plan, tmp_path: Path) -> None:
    order(plan, "wait", "finish", "finish")
    process = launching(plan, tmp_path, "a")
    run = plan.runs[0].run
    wait_for((run.path / "rank0.json").exists, PATIENCE)
    pid = pid_of(run)
    process.kill()
    process.wait()
    assert pool(tmp_path, "a").take(1) is None  # the run still has it
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: gone(pid), PATIENCE)
    assert ends(train_all(tasks_of(plan), pool(tmp_path, "a"))) == ["done"] * 3


def test_more_gpus_than_the_machine_has_start_nothing(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cluster.ranks_per_node=2"):
        train_all(tasks_of(plan, devices=2), pool(tmp_path, "a"))
    assert not any(p.run.attempts() for p in plan.runs)


def gone(pid: int) -> bool:
    """Ended; a zombie has ended too."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
