"""Calls of Slurm's programs, with stand-ins for them."""

import os
import time
from pathlib import Path

import pytest

from adarem.launch.slurm.programs import NoAnswer, call, environment, ignored, job_ids
from tests.support.launching import executable

STEERING = (
    "SQUEUE_STATES", "SQUEUE_FORMAT", "SBATCH_EXPORT", "SBATCH_PARTITION", "SLURM_CPU_BIND", "SLURM_CLUSTERS",
    "SLURM_JOB_ID", "SLURM_EXPORT_ENV", "SLURMD_NODENAME", "SRUN_CPUS_PER_TASK", "SACCT_FORMAT", "SALLOC_ACCOUNT",
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "OMPI_COMM_WORLD_SIZE",
    "PMI_RANK", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ADAREM_RANKS", "ADAREM_TOKEN",
    "_SLURM_SPANK_OPTION_x11",
)  # fmt: skip
KEPT = ("SLURM_CONF", "SLURM_JWT", "PATH", "HOME", "OMP_NUM_THREADS", "WANDB_API_KEY", "RANKING", "MY_RANK")


def test_what_an_environment_says_to_slurm_is_left_out() -> None:
    found = environment({key: "x" for key in (*STEERING, *KEPT)})
    assert tuple(found) == KEPT


def test_what_a_user_may_miss_is_named() -> None:
    assert ignored({"SBATCH_ACCOUNT": "a", "SBATCH_EXPORT": "NONE", "SLURM_JOB_ID": "7", "SBATCH_QOS": "high"}) == [
        "SBATCH_ACCOUNT",
        "SBATCH_QOS",
    ]


def test_a_program_and_its_jobs_see_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue = executable(tmp_path / "squeue", "#!/bin/sh\nenv; cat; echo no >&2; exit 3\n")
    for key in STEERING:
        monkeypatch.setenv(key, "x")
    for env in (None, {**os.environ, "OMP_NUM_THREADS": "3"}):
        answer = call([str(squeue)], env=env)
        named = {line.split("=")[0] for line in answer.out.splitlines()}
        assert not named & set(STEERING) and answer.code == 3 and answer.reason == "no"
        assert ("OMP_NUM_THREADS=3" in answer.out.splitlines()) is (env is not None)


def test_one_that_does_not_answer_is_ended_with_what_it_started(tmp_path: Path) -> None:
    """A site's wrapper waits for the program that it wraps, which holds the output open."""
    wrapper = executable(tmp_path / "sbatch", f"#!/bin/sh\nsleep 300 & echo $! >{tmp_path}/child; wait\n")
    began = time.monotonic()
    with pytest.raises(NoAnswer, match=f"{wrapper}: no answer within 1 s"):
        call([str(wrapper)], patience=1.0)
    assert time.monotonic() - began < 100
    child = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    assert not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z"
    with pytest.raises(NoAnswer, match="cannot be started"):
        call([str(tmp_path / "squeue")])


@pytest.mark.parametrize(
    ("printed", "found"),
    [
        ("12\n", ["12"]),
        ("12;cluster-a\n", ["12"]),
        ("*** maintenance on 3 May ***\n\n  12  \ncosts 40 units\n", ["12"]),
        ("12\n12\n", ["12"]),
        ("2026\n12\n", ["2026", "12"]),
        ("Submitted batch job 12\n", []),
    ],
)
def test_the_job_among_a_sites_own_lines(printed: str, found: list[str]) -> None:
    assert job_ids(printed.splitlines()) == found
