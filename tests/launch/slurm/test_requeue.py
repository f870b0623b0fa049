"""Whether a job that ended starts again."""

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from adarem.launch.slurm.commands import refusal_file, slurm_folder
from adarem.launch.slurm.requeue import ENDS_ALLOWED, HELD_BACK, LEAST_STEPS, again, main
from adarem.run import exitcodes
from adarem.run.directory import RunDir
from tests.support.launching import executable


def test_exit_codes_that_start_a_job_again(run: RunDir) -> None:
    assert all(again(run, exitcodes.REQUEUE) for _ in range(4))
    assert all(again(run, 128 + signal.SIGUSR1) for _ in range(4))  # warned while Python was still importing
    assert not any(again(run, code) for code in (exitcodes.OK, exitcodes.USER_ERROR, exitcodes.DIVERGED))


def test_three_failures_without_a_new_checkpoint_end_it(run: RunDir) -> None:
    run.start_attempt({})
    assert [again(run, 1), again(run, 137)] == [True, True]
    run.checkpoints.mkdir()
    (run.checkpoints / "100.pt").touch()  # progress: counting starts anew
    assert [again(run, 1) for _ in range(3)] == [True, True, False]
    assert run.status() == "failed" and "3 times without a new checkpoint" in run.attempts()[-1]["detail"]
    assert again(run, 1)  # launched again by hand: three more chances


def checkpoint(run: RunDir, step: int) -> None:
    run.checkpoints.mkdir(exist_ok=True)
    (run.checkpoints / f"step-{step:09d}-{step:016x}.pt").touch()


@pytest.mark.parametrize("codes", [[75], [138], [75, 1, 138, 137], [1]])
@pytest.mark.parametrize("steps", [0, 1])
def test_starts_that_bring_next_to_nothing_come_to_an_end(run: RunDir, codes: list[int], steps: int) -> None:
    """Whatever the exit code, and with a new checkpoint at each start: one step a start."""
    run.start_attempt({})
    ends = 0
    for n in range(100):
        checkpoint(run, n * steps)
        ends += 1
        if not again(run, codes[n % len(codes)]):
            break
    assert ends <= ENDS_ALLOWED and (ends == ENDS_ALLOWED or steps == 0 and 1 in codes)
    assert run.status() == "failed" and "so it does not start again" not in str(run.attempts()[-1]["detail"])
    detail = str(run.attempts()[-1]["detail"])
    assert f"fewer than {LEAST_STEPS} steps in all" in detail or "3 times without a new checkpoint" in detail
    assert again(run, 75)  # launched again: it gets its chances anew


def test_a_run_that_makes_steps_may_be_interrupted_as_often_as_it_takes(run: RunDir) -> None:
    for n in range(1, 5 * ENDS_ALLOWED):
        checkpoint(run, n * LEAST_STEPS // 5)
        assert again(run, (75, 138, 137)[n % 3])


def test_starts_of_which_the_script_sees_no_end(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A node that goes down each time: Slurm itself starts the job again."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    restarts = 0

    def due() -> int:
        nonlocal restarts
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
        restarts += 1
        return main(["due", str(run.path)])

    assert [due() for _ in range(2 * ENDS_ALLOWED)] == [0] * 2 * ENDS_ALLOWED
    checkpoint(run, LEAST_STEPS)
    assert [due() for _ in range(2 * ENDS_ALLOWED)] == [0] * 2 * ENDS_ALLOWED
    assert due() == HELD_BACK and run.status() == "failed"
    assert "started 21 times by Slurm with fewer than 20 steps in all" in capsys.readouterr().out
    assert run.attempts()[-1]["slurm_job"] == "7"


def test_a_run_whose_directory_was_removed_ends_and_leaves_nothing(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    again(run, 75)
    shutil.rmtree(run.path)
    assert not again(run, 75) and not again(run, 1)
    assert main(["due", str(run.path)]) == 0  # training says that there is no run
    assert not run.path.exists() and not list(slurm_folder(run.path.parent).glob("*.json"))
    assert "removed meanwhile, so it does not start again" in capsys.readouterr().out
    shutil.rmtree(run.path.parent)
    assert not again(run, 75) and not run.path.parent.exists()


def test_what_slurm_says_to_a_job_that_it_does_not_start_again(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert main(["refused", str(run.path), "Requested operation is presently disabled\nfor job 15\n"]) == 0
    record = json.loads(refusal_file(run).read_text())
    assert record["job"] == "12_3" and "(Requested operation is presently disabled; for job 15)" in record["line"]
    assert "`adarem launch` continues it" in capsys.readouterr().out
    assert main(["due", str(run.path)]) == 0 and not refusal_file(run).exists()


def test_an_end_hidden_by_a_killed_rank_counts(run: RunDir) -> None:
    run.start_attempt({})
    assert [again(run, 137), again(run, 137)] == [True, True]
    run.end_attempt(1, "interrupted", "SIGUSR1")
    assert again(run, 137)
    run.write_result({"status": "done"})
    assert not again(run, 137)


def test_a_job_being_cancelled_stays_cancelled_and_one_out_of_time_goes_on(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for state, starts in (("COMPLETING None", False), ("COMPLETING TimeLimit", True), ("RUNNING None", True)):
        executable(tmp_path / "squeue", f"#!/bin/sh\necho 7 {state}\n")
        assert again(run, exitcodes.REQUEUE) is starts


def test_an_arrays_last_task_is_not_taken_for_another_one(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id is the array's id too, for which squeue lists every task."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    others = "8 PENDING BeginTime\\n9 COMPLETING None\\n"
    for own, starts in (("7 RUNNING None", True), ("7 COMPLETING None", False)):
        executable(tmp_path / "squeue", f"#!/bin/sh\nprintf '{others}{own}\\n'\n")
        assert again(run, exitcodes.REQUEUE) is starts


def test_a_job_that_gives_up_writes_nothing_into_the_attempt_of_another(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job that Slurm takes for lost may go on for a while, and ends its own attempt."""
    run.start_attempt({})
    with run.lock():
        assert [again(run, 1) for _ in range(3)] == [True, True, False]
    assert "end" not in run.attempts()[-1] and "another process trains it" in capsys.readouterr().out


@pytest.mark.parametrize(("error", "code"), [(errno.EIO, 0), (errno.ENOSPC, 1)])
def test_a_disk_that_cannot_keep_the_count_of_failures(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: int, code: int
) -> None:
    """A transient fault is tried again, a full disk is the user's to fix; neither shows a traceback."""

    def fail(_handle: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", fail)
    assert main(["again", str(run.path), "1"]) == code
    assert "cannot be written" in capsys.readouterr().err


def test_what_a_job_that_gives_up_records(run: RunDir) -> None:
    """The reason of the last failure stays; where no rank began an attempt, the exit code is given."""
    run.end_attempt(run.start_attempt({}), "failed", "rank 1 on n2 is gone after step 7")
    assert [again(run, 1) for _ in range(3)] == [True, True, False]
    assert run.attempts()[-1]["detail"].endswith("; the last time: rank 1 on n2 is gone after step 7")
    run.end_attempt(run.start_attempt({}), "interrupted", "SIGUSR1 at step 9")
    assert [again(run, 143) for _ in range(3)] == [True, True, False]
    assert [a["why"] for a in run.attempts()] == ["failed", "interrupted", "failed"] and run.status() == "failed"
    assert run.attempts()[-1]["detail"].endswith("; the last time: exit code 143")
