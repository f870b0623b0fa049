"""What is read from squeue, with a stand-in for it; the launcher's use of it is in test_submit.py."""

import os
import shlex
from pathlib import Path

import pytest

from adarem.launch.slurm.commands import array_list, slurm_folder
from adarem.launch.slurm.queue import Job, is_ending, job_named, keep_report_job, queued, report_job
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
    assert queued(sweep) == {"adam": Job("12_1"), "adarem": Job("13_0")}


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


def test_what_waits_is_told_from_what_ends(squeue: Path, sweep: Path) -> None:
    """Among a site's own lines; of two jobs of one run the one that does not end counts."""
    answers(
        squeue,
        "*** maintenance on 12 1 ***\n12 0 table2-first COMPLETING None\n12 1 table2-first PENDING (Resources)\n"
        "12 9 table2-first PENDING None\n13 0 table2-second RUNNING None\n14 x table2-second RUNNING\n",
    )
    found = queued(sweep)
    assert found == {
        "sgdm": Job("12_0", "COMPLETING"),
        "adam": Job("12_1", "PENDING", "(Resources)"),
        "adarem": Job("13_0", "RUNNING"),
    }
    assert [job.is_ending for job in found.values()] == [True, False, False]
    for lines in ("11 0 table2-first COMPLETING\n15 0 table2-first PENDING\n",) * 2:
        answers(squeue, lines)
        assert queued(sweep)["sgdm"].id == "15_0"
        answers(squeue, "\n".join(reversed(lines.splitlines())))
        assert queued(sweep)["sgdm"].id == "15_0"


def test_the_report_job_is_known_by_its_id(squeue: Path, sweep: Path) -> None:
    answers(squeue, "77 N/A table2-report-one\n")
    assert report_job(sweep) is None
    keep_report_job(sweep, "76", "one")
    assert report_job(sweep) is None  # 77 is another's
    keep_report_job(sweep, "77", "one")
    assert report_job(sweep) == Job("77")
    (slurm_folder(sweep) / "report.job").write_text("78")  # as an earlier version kept it
    answers(squeue, "78 N/A table2-report\n")
    assert report_job(sweep) == Job("78")


def test_a_job_is_found_by_its_name(squeue: Path) -> None:
    answers(squeue, "7 N/A other PENDING\n8 N/A mine FAILED NonZeroExitCode\n9 N/A mine PENDING\n")
    assert job_named("mine") == "9" and job_named("mine", ["9", "8"]) is None and job_named("mine", ["9"]) == "8"


def test_a_job_is_ending_when_it_is_cancelled_and_not_when_its_time_is_up(squeue: Path) -> None:
    for state, ending in (("RUNNING None", False), ("COMPLETING None", True), ("COMPLETING TimeLimit", False)):
        answers(squeue, f"7 {state}\n8 COMPLETING None\n")
        assert is_ending("7") is ending
