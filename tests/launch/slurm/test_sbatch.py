"""One job: refused, taken, or taken while the answer is lost."""

import os

import pytest

from adarem.launch.slurm import sbatch
from adarem.launch.slurm.sbatch import NotSubmitted, new_token, submit
from tests.support.fake_slurm import FakeSlurm
from tests.support.launching import executable

COMMAND = ["sbatch", "--parsable", "--job-name=mine", "script"]


def test_tokens_differ() -> None:
    assert len({new_token() for _ in range(50)}) == 50


def test_a_site_that_prints_around_the_id(slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    slurm.site(banner=["*** welcome to cluster 7 ***", "2026", "Your budget: 12"])
    assert submit(COMMAND, os.environ) == "100"  # 2026 stands alone in a line too: the queue decides


def test_a_lost_answer_is_looked_up(slurm: FakeSlurm) -> None:
    slurm.site(lost=1)
    assert submit(COMMAND, os.environ) == "100" and len(slurm.submitted) == 1
    slurm.site(dropped=1)
    with pytest.raises(NotSubmitted, match="Socket timed out.*; run the same command, which looks first") as raised:
        submit([*COMMAND[:2], "--job-name=other", "script"], os.environ)
    assert raised.value.kind == "unsure" and raised.value.retryable


def test_of_jobs_that_share_a_name_the_new_one_is_meant(slurm: FakeSlurm) -> None:
    first = submit(COMMAND, os.environ)
    slurm.site(dropped=1)
    with pytest.raises(NotSubmitted):
        submit(COMMAND, os.environ, known=[first])
    slurm.site(lost=1)
    assert submit(COMMAND, os.environ, known=[first]) == "101"


def test_a_job_that_has_ended_meanwhile_is_found(slurm: FakeSlurm) -> None:
    slurm.site(lost=1)
    program = slurm.folder / "squeue"
    real = program.read_text().removeprefix("#!/bin/sh\nexec ")
    executable(program, f"#!/bin/sh\nsed -i 's/PENDING/FAILED/' {slurm.folder}/queue.json\nexec {real}")
    assert submit(COMMAND, os.environ) == "100"


def test_an_sbatch_that_hangs_after_the_job_was_taken(slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    program = slurm.folder / "sbatch"
    executable(program, program.read_text().replace("exec ", "") + "sleep 300\n")
    monkeypatch.setattr(sbatch, "PATIENCE_SECONDS", 5.0)
    assert submit(COMMAND, os.environ) == "100"


def test_a_refusal_is_quoted(slurm: FakeSlurm) -> None:
    slurm.site(refuse={"mine": "Invalid qos specification"}, down="no controller")
    with pytest.raises(NotSubmitted, match=r"refused the job \(.*Invalid qos specification\); fix cluster") as raised:
        submit(COMMAND, os.environ)
    assert raised.value.kind == "refused" and not raised.value.retryable
    slurm.site(max_submit=0)
    with pytest.raises(NotSubmitted, match="takes no more jobs now") as raised:
        submit(COMMAND, os.environ)
    assert raised.value.kind == "full"
