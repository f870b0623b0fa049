"""Jobs that left the queue before an attempt, with stand-ins for Slurm's programs."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from adarem.launch.slurm.accounting import keep_array_job
from adarem.launch.slurm.commands import array_list, slurm_folder
from adarem.launch.slurm.ended import ended_without_attempt
from adarem.launch.slurm.queue import Job
from adarem.run.directory import RunDir
from tests.support.launching import executable


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six runs, of which an array, job 12, had each; sacct answers what ``sacct`` in the folder says."""
    sweep = tmp_path / "runs" / "table2"
    for name in "abcdef":
        (sweep / name).mkdir(parents=True)
    slurm_folder(sweep).mkdir()
    array_list(sweep, "one").write_text("a\nb\nc\nd\ne\nf\n")
    keep_array_job(sweep, "one", "12")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    executable(tmp_path / "sacct", f"#!/bin/sh\ncat {tmp_path}/answer\n")
    return sweep


def ended(sweep: Path, queue: Mapping[str, Job] | None = None) -> dict[str, tuple[bool, str]]:
    runs = [RunDir(sweep / name) for name in "abcdef"]
    found = ended_without_attempt(sweep, runs, queue or {}, 60.0)
    return {name: (e.started, e.line) for name, e in found.items()}


def test_what_accounting_says(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "answer").write_text(
        "a site's line\n12_0|FAILED|127:0\n12_1|CANCELLED by 0|0:0\n12_2|COMPLETED|0:0\n12_3|OUT_OF_MEMORY|0:125\n"
        "12_4|PENDING|0:0\n"
    )
    for i in (0, 3):
        (slurm_folder(sweep) / f"12_{i}.out").write_text("python: not found\n")
    found = ended(sweep, {"f": Job("12_5")})
    log = f"{slurm_folder(sweep)}/12_%d.out"
    assert found == {
        "a": (True, f"job 12_0 ended before its first attempt (FAILED, exit code 127); see {log % 0}"),
        "b": (False, "job 12_1 was cancelled before it started; `adarem launch` submits it again"),
        "d": (True, f"job 12_3 ended before its first attempt (OUT_OF_MEMORY); see {log % 3}"),
    }


def test_without_accounting_the_logs_decide(sweep: Path, tmp_path: Path) -> None:
    (slurm_folder(sweep) / "12_0.out").write_text("")
    found = ended(sweep, {name: Job("12_2") for name in "cdef"})
    assert found["a"] == (True, f"job 12_0 ended before its first attempt; see {slurm_folder(sweep)}/12_0.out")
    assert not found["b"][0] and "never started: cancelled, or its data were not written (see " in found["b"][1]


def test_runs_that_began_an_attempt_since_are_left_out(sweep: Path) -> None:
    """By this job, or by another that came later; an attempt of before says nothing of this job."""
    for i in range(6):
        (slurm_folder(sweep) / f"12_{i}.out").write_text("")
    RunDir(sweep / "a").start_attempt({"slurm_job": "12_0"})
    time.sleep(0.05)
    RunDir(sweep / "b").start_attempt({"slurm_job": None})
    old = RunDir(sweep / "c")
    old.attempts_file.write_text('{"attempt": 1, "start": 1000.0, "slurm_job": "7_0"}\n')
    assert sorted(ended(sweep)) == ["c", "d", "e", "f"]
    array_list(sweep, "two").write_text("c\n")
    keep_array_job(sweep, "two", "15")
    assert ended(sweep)["c"][1].startswith("job 15_0 left the queue and never started")
