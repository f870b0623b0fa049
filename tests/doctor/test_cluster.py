"""Slurm's answers by stand-ins of its commands."""

from pathlib import Path

import pytest

from adarem.doctor.check import Outcome
from adarem.run.config import RunConfig
from tests.support.doctor import found, on
from tests.support.launching import executable


def test_slurm_commands_partition_and_what_the_site_would_refuse(
    answers: dict[str, Outcome], config: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slurm = on(config, name="slurm", nodes=2, ranks_per_node=8, partition="gpus")
    monkeypatch.setenv("PATH", "/nowhere")
    (missing,) = found(slurm, "slurm")
    assert missing.ok is False and "sbatch" in missing.found
    for command in ("sbatch", "srun", "squeue", "scontrol"):
        executable(tmp_path / command, "#!/bin/sh\n[ $1 = --test-only ] || exit 9\n")
    executable(tmp_path / "sinfo", "#!/bin/sh\necho gpu; echo cpu\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    (wrong,) = found(slurm, "slurm")
    assert wrong.ok is False and "no partition gpus; there are cpu, gpu" in wrong.found
    right = on(slurm, partition="gpu")
    (aux,) = found(on(right, aux_partition="cpus"), "slurm")
    assert aux.ok is False and "no partition cpus" in aux.found and aux.fix.startswith("cluster.aux_partition=")
    assert found(right, "slurm")[0].ok and found(right, "slurm job")[0].ok
    executable(tmp_path / "sbatch", "#!/bin/sh\necho 'allocation failure: Invalid account' >&2; exit 1\n")
    (job,) = found(right, "slurm job")
    assert job.ok is False and "Invalid account" in job.found


def test_flags_of_the_report_job_are_tried_too(
    answers: dict[str, Outcome], config: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They are its own: refused at launch, it would be missing when the runs are queued."""
    for command in ("srun", "squeue", "scontrol"):
        executable(tmp_path / command, "#!/bin/sh\nexit 9\n")
    executable(tmp_path / "sinfo", "#!/bin/sh\necho gpu\n")
    refuse = 'case "$*" in *--dependency*) exit 8;; *--qos=fast*) echo "Invalid qos" >&2; exit 1;; esac'
    executable(tmp_path / "sbatch", f"#!/bin/sh\n[ $1 = --test-only ] || exit 9\n{refuse}\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    cluster = {"name": "slurm", "partition": "gpu"}
    for extra, taken in (("--qos=slow", True), ("--qos=fast", False)):
        asked = on(config, **cluster, aux_extra=(extra,))
        assert found(asked, "slurm job")[0].ok
        (report,) = found(asked, "slurm report")
        assert report.ok is taken
    assert "Invalid qos" in report.found and "cluster.aux_extra" in report.fix
