"""What is read from squeue, with a stand-in for it; the launcher's use of it is in test_submit.py."""

import os
import shlex
from pathlib import Path

import pytest

from adarem.launch.slurm.commands import array_list, slurm_folder
from adarem.launch.slurm.queue import is_ending, keep_report_job, queued, report_is_queued
from adarem.run.errors import UserError
from tests.support.launching import executable


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The squeue on PATH, which the tests write."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path / "bin" / "squeue"


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    sweep = tmp_path / "runs" / "table2"
    slurm_folder(sweep).mkdir(parents=True)
    array_list(sweep, "first").write_text("sgdm\nadam\n")
    array_list(sweep, "second").write_text("adarem\n")
    return sweep


def answers(squeue: Path, text: str) -> None:
    executable(squeue, f"#!/bin/sh\nprintf %s {shlex.quote(text)}\n")


def test_tasks_of_the_sweeps_arrays_are_named_by_their_runs(squeue: Path, sweep: Path) -> None:
    answers(squeue, "12 1 table2-first\n13 0 table2-second\n14 0 table2-third\n12 N/A table2-first\n")
    assert queued(sweep) == {"adam": "12_1", "adarem": "13_0"}


def test_a_sweep_without_submissions_asks_nothing(squeue: Path, tmp_path: Path) -> None:
    executable(squeue, "#!/bin/sh\nexit 1\n")
    assert queued(tmp_path / "runs" / "table1") == {}


def test_no_answer_is_an_error_in_one_line(squeue: Path, sweep: Path) -> None:
    executable(squeue, "#!/bin/sh\nexec sleep 600\n")
    with pytest.raises(UserError, match="squeue: no answer within 0 s, so nothing was submitted; rerun"):
        queued(sweep, patience=0.2)
    executable(squeue, "#!/bin/sh\necho no controller >&2; exit 1\n")
    with pytest.raises(UserError, match="squeue: no controller, so nothing was submitted; rerun"):
        queued(sweep)


def test_the_report_job_is_known_by_its_id(squeue: Path, sweep: Path) -> None:
    answers(squeue, "77 N/A table2-report\n")
    assert not report_is_queued(sweep)
    keep_report_job(sweep, "76")
    assert not report_is_queued(sweep)  # 77 is the report of another sweep of this name
    keep_report_job(sweep, "77")
    assert report_is_queued(sweep)


def test_a_job_is_ending_when_it_is_cancelled_and_not_when_its_time_is_up(squeue: Path) -> None:
    for state, ending in (("RUNNING None", False), ("COMPLETING None", True), ("COMPLETING TimeLimit", False)):
        answers(squeue, f"7 {state}\n8 COMPLETING None\n")
        assert is_ending("7") is ending
