"""What refusals of sbatch mean, in Slurm's own words."""

import os
from pathlib import Path

import pytest

from adarem.launch.slurm.limits import Refusal, longest_array, refusal
from tests.support.launching import executable

GENERAL = (
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy "
    "(job submit limit, user's size and/or time limits)"
)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (f"sbatch: error: AssocMaxSubmitJobLimit\n{GENERAL}", "full"),
        (f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{GENERAL}", "full"),
        (f"sbatch: error: QOSGrpSubmitJobsLimit\n{GENERAL}", "full"),
        (f"sbatch: error: AssocGrpSubmitJobsLimit\n{GENERAL}", "full"),
        (GENERAL, "full"),
        (f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{GENERAL}", "refused"),
        (f"sbatch: error: AssocMaxNodePerJobLimit: MaxNodes\n{GENERAL}", "refused"),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", "full"),
        ("sbatch: error: Batch job submission failed: Invalid job array specification", "long"),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", "unsure"),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", "unsure"),
        ("sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received", "unsure"),
        ("sbatch: error: Batch job submission failed: Slurm backup controller in standby mode", "unsure"),
        ("sbatch: error: invalid partition specified: gp u", "refused"),
        ("sbatch: error: Batch job submission failed: Requested time limit is invalid", "refused"),
        ("sbatch: error: Invalid qos specification", "refused"),
        ("", "refused"),
    ],
)
def test_what_a_refusal_means(said: str, kind: Refusal) -> None:
    assert refusal(said) == kind


def test_the_longest_array_of_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    scontrol = tmp_path / "scontrol"
    for printed, found in (("MaxArraySize            = 1001\\n", 1001), ("MaxArraySize = 0\\n", None), ("", None)):
        executable(scontrol, f"#!/bin/sh\nprintf 'hello\\nMaxJobCount = 10\\n{printed}'\n")
        assert longest_array() == found
    executable(scontrol, "#!/bin/sh\nexit 1\n")
    assert longest_array() is None
