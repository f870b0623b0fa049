"""Does Slurm answer, and would it take the jobs that a launch submits?"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from adarem.doctor.check import Check, ask_slurm
from adarem.run.config import ClusterConfig


def slurm(cluster: ClusterConfig | None) -> Iterator[Check]:
    """Checks Slurm's commands; for a ``cluster`` that is Slurm (else None) also its partitions and jobs."""
    lacking = [c for c in ("sbatch", "srun", "squeue", "scontrol") if shutil.which(c) is None]
    if lacking:
        fix = "log in to the cluster; or cluster=local" if cluster else ""
        yield Check("slurm", False if cluster else None, f"no {', '.join(lacking)} on PATH", fix)
        return
    asked = ask_slurm(["sinfo", "--noheader", "--format=%R"])
    if isinstance(asked, Check):
        yield asked if cluster else Check("slurm", None, asked.found)
        return
    partitions = sorted(set(asked.split()))
    if cluster is not None:
        for key, partition in (("partition", cluster.partition), ("aux_partition", cluster.aux_partition)):
            if partition and not set(partition.split(",")) <= set(partitions):
                found = f"no partition {partition}; there are {', '.join(partitions)}"
                yield Check("slurm", False, found, f"cluster.{key}={partitions[0] if partitions else '...'}")
                return
    yield Check("slurm", True, f"answers; partitions {', '.join(partitions)}")
    if cluster is not None:
        from adarem.launch.slurm import commands  # needs yaml

        # Slurm itself says whether it would take such a job: account, limits, GPUs, everything that the site checks.
        job = f"{cluster.nodes} nodes x {cluster.ranks_per_node} ranks"
        with tempfile.TemporaryDirectory() as place:
            array = commands.array_command(Path(place), "test", 1, cluster, None)
            yield _test(array, "slurm job", job, "cluster.nodes, cluster.time, cluster.account, ...")
            report = commands.report_command(Path(place), [], cluster, after=[])
            what = "the report, and the job that writes the data,"
            yield _test(report, "slurm report", what, "cluster.aux_partition, cluster.aux_extra, cluster.account")


def _test(command: list[str], name: str, job: str, fix: str) -> Check:
    """Whether Slurm would take the job that ``command`` submits; nothing is submitted."""
    asked = ask_slurm(["--test-only" if word == "--parsable" else word for word in command])
    if isinstance(asked, Check):
        return Check(name, False, f"{job} would be refused: {asked.found}", fix)
    return Check(name, True, f"{job} would be taken")
