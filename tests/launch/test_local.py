"""Launching on this machine, with a stand-in for python."""

import contextlib
import json
import pickle
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adarem.launch import local, preparation
from adarem.launch.launch import launch
from adarem.plan.plan import Plan
from adarem.run import exitcodes
from adarem.run.errors import UserError
from tests.support.launching import alone, executable, moved, order
from tests.support.processes import wait_for

PATIENCE = 60.0  # seconds; a busy machine starts Python in several


def test_a_failed_run_does_not_stop_the_rest_and_finished_ones_are_left(
    plan: Plan, capfd: pytest.CaptureFixture[str]
) -> None:
    order(plan, "fail", "diverge", "finish")
    assert launch(plan) == exitcodes.FAILED
    out = capfd.readouterr().out
    failed, diverged, finished = (c.run for c in plan.runs)
    assert [r.status() for r in (failed, diverged, finished)] == ["failed", "diverged", "done"]
    assert "[1/3] resnet18-sgdm-s0: FAILED" in out and f"failed: resnet18-sgdm-s0; log: {failed.log_file}" in out
    assert "[2/3] resnet18-adam-s0: diverged in epoch 2" in out
    assert "[3/3] resnet18-adarem-s0: top-1 50.00 %" in out

    (failed.path / "stub.json").unlink()
    assert launch(plan) == exitcodes.OK
    assert [len(r.attempts()) for r in (failed, diverged, finished)] == [2, 1, 1]
    assert json.loads((plan.results_dir / "report.json").read_text())["status"]["resnet18-sgdm-s0"] == "done"


def test_a_locked_run_is_skipped_and_named(plan: Plan, capfd: pytest.CaptureFixture[str]) -> None:
    plan.write()
    with plan.runs[1].run.lock():
        assert launch(plan) == exitcodes.OK
    assert [c.run.status() for c in plan.runs] == ["done", "planned", "done"]
    assert f"skipped, another process trains it: {plan.runs[1].run.path}" in capfd.readouterr().out


def test_data_are_prepared_first_and_nothing_trains_without_them(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(preparation, "is_prepared", lambda data: (Path(data.beton_dir) / "ready").exists())
    beton_dir = plan.runs[0].config.data.beton_dir
    script = 'if [ "$3" = prepare ]; then echo prepare "$4" >>{log}; {then}; else exec {stub} "$@"; fi'
    log, stub = tmp_path / "log", shlex.quote(sys.executable)
    failing = executable(tmp_path / "p1", "#!/bin/sh\n" + script.format(log=log, then="exit 2", stub=stub))
    monkeypatch.setattr(sys, "executable", str(failing))
    assert launch(plan) == exitcodes.USER_ERROR
    assert {c.run.status() for c in plan.runs} == {"planned"}
    then = f"mkdir -p {beton_dir}; touch {beton_dir}/ready"
    working = executable(tmp_path / "p2", "#!/bin/sh\n" + script.format(log=log, then=then, stub=stub))
    monkeypatch.setattr(sys, "executable", str(working))
    assert launch(plan) == exitcodes.OK
    assert log.read_text() == f"prepare {plan.runs[0].run.path}\n" * 2  # once per launch, not once per run


def test_dry_run_prints_exact_commands_and_writes_nothing(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch(plan, dry_run=True) == exitcodes.OK
    commands = shlex.split(capsys.readouterr().out)
    for planned in plan.runs:
        assert str(planned.run.path) in commands
    assert "--nproc-per-node=2" in commands and f"runs_dir={plan.runs_dir}" in commands
    assert not plan.runs_dir.exists()


def test_several_nodes_need_slurm(plan: Plan) -> None:
    with pytest.raises(UserError, match="cluster.nodes=2"):
        launch(moved(plan, plan.runs_dir, nodes=2))


def test_one_line_of_setup_and_the_threads_reach_the_ranks(plan: Plan) -> None:
    plan = moved(plan, plan.runs_dir, setup="export MASTER_ADDR='of the site'", threads_per_rank=3)
    assert launch(plan) == exitcodes.OK
    seen = json.loads((plan.runs[0].run.path / "rank0.json").read_text())
    assert seen["MASTER_ADDR"] == "of the site" and seen["OMP_NUM_THREADS"] == "3"


@contextlib.contextmanager
def launching(plan: Plan) -> Iterator[subprocess.Popen[bytes]]:
    """A launch in a process of its own, as a user's shell starts it; the plan's stub stays its python."""
    code = (
        "import sys, pickle; from adarem.launch import preparation; preparation.is_prepared = lambda data: True\n"
        "from adarem.launch.launch import launch\n"
        f"sys.executable = {sys.executable!r}\n"
        "sys.exit(launch(pickle.load(sys.stdin.buffer)))"
    )
    process = subprocess.Popen(
        [f"{sys.prefix}/bin/python", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdin is not None
    process.stdin.write(pickle.dumps(plan))
    process.stdin.close()
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_ctrl_c_reaches_the_ranks_once_and_ends_the_launch(plan: Plan) -> None:
    plan = alone(plan)
    order(plan, "finish", "wait", "finish")
    run = plan.runs[1].run
    with launching(plan) as process:
        wait_for((run.path / "rank0.json").exists, PATIENCE)  # its handlers of signals are set by then
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == exitcodes.REQUEUE
        out = process.stdout.read().decode()
    assert "the same command continues it" in out
    assert json.loads((run.path / "signals0").read_text()) == [signal.SIGINT]
    assert [c.run.status() for c in plan.runs] == ["done", "interrupted", "planned"]
    assert launch(plan) == exitcodes.OK
    assert [len(c.run.attempts()) for c in plan.runs] == [1, 2, 1]


def test_second_ctrl_c_kills_every_rank_at_once(plan: Plan) -> None:
    order(plan, "stubborn", "finish", "finish")
    child = plan.runs[0].run.path / "child"
    with launching(plan) as process:
        wait_for(lambda: child.exists() and child.read_text().endswith("\n"), PATIENCE)
        process.send_signal(signal.SIGINT)
        line = b""
        while b"Ctrl-C again ends at once" not in line:  # the first one was seen
            assert (line := process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == exitcodes.REQUEUE
    pid = int(child.read_text())
    wait_for(lambda: is_gone(pid), PATIENCE)


def is_gone(pid: int) -> bool:
    """Ended; a zombie has ended too."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_without_ffcv_nothing_is_started(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the runs would fail on its own, after the data have been prepared."""
    monkeypatch.setattr(local.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"ffcv is not installed; run `pip install 'adarem\[ffcv\]'`, or set data.backend"
    ):
        launch(plan)
    assert not plan.runs_dir.exists()


@pytest.mark.parametrize(
    ("changed", "forks"),
    [
        ({}, True),
        ({"device": "cuda"}, False),
        ({"setup": "module load torch"}, False),
        ({"threads_per_rank": 0}, False),
    ],
)
def test_ranks_are_forked_where_a_fork_is_as_a_new_process(
    changed: dict[str, object], forks: bool, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, str]] = []
    monkeypatch.setattr(local, "ForkServer", lambda environment: made.append(environment) or contextlib.nullcontext())
    cluster: dict[str, object] = {"device": "cpu", "setup": "", "threads_per_rank": 3, **changed}
    local._fork_server(moved(plan, plan.runs_dir, **cluster))
    assert [e["OMP_NUM_THREADS"] for e in made] == (["3"] if forks else [])
