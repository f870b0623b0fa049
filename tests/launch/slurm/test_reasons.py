"""What Slurm's reasons come to in words."""

import pytest

from adarem.launch.slurm.queue import Job
from adarem.launch.slurm.reasons import InQueue, seen


@pytest.mark.parametrize(
    ("state", "reason", "shown", "words"),
    [
        ("PENDING", "(Resources)", "queued", "waits for free nodes (Resources)"),
        ("PENDING", "Priority", "queued", "waits behind jobs of higher priority (Priority)"),
        ("PENDING", "Dependency", "queued", "waits for another job to end (Dependency)"),
        ("PENDING", "DependencyNeverSatisfied", "queued", "will not start as it is: the job that it waits for failed"),
        ("PENDING", "QOSMaxJobsPerUserLimit", "queued", "waits for room under a limit of its account or QOS (QOSMax"),
        ("PENDING", "AssocGrpGRES", "queued", "waits for room under a limit of its account or QOS (AssocGrpGRES)"),
        ("PENDING", "QOSMaxWallDurationPerJobLimit", "queued", "will not start as it is: cluster.time is above"),
        ("PENDING", "PartitionTimeLimit", "queued", "will not start as it is: cluster.time is above its partition's"),
        ("PENDING", "ReqNodeNotAvail, UnavailableNodes:n[1-9]", "queued", "reserved, for maintenance perhaps (ReqNode"),
        ("PENDING", "JobArrayTaskLimit", "queued", "waits for other runs of its array: cluster.max_parallel"),
        ("PENDING", "BeginTime", "queued", "about two minutes after a requeue (BeginTime)"),
        ("PENDING", "SomethingNew", "queued", "waits (SomethingNew)"),
        ("PENDING", "", "queued", "waits"),
        ("PENDING", "JobHeldUser", "held", "held; scontrol release 12_3 (JobHeldUser)"),
        ("PENDING", "JobHeldAdmin", "held", "held by an administrator"),
        ("PENDING", "launch failed requeued held", "held", "held after failed starts; scontrol release 12_3"),
        ("REQUEUE_HOLD", "", "held", "held; scontrol release 12_3"),
        ("SPECIAL_EXIT", "Unknown", "held", "held; scontrol release 12_3 (Unknown)"),
        ("SUSPENDED", "", "held", "suspended on its nodes by Slurm"),
        ("RUNNING", "", "starting", "its job has nodes and no rank has begun an attempt yet (RUNNING)"),
        ("CONFIGURING", "", "starting", "(CONFIGURING)"),
        ("COMPLETING", "TimeLimit", "ending", "Slurm ends its job (COMPLETING)"),
    ],
)
def test_words(state: str, reason: str, shown: InQueue, words: str) -> None:
    found = seen(Job("12_3", state, reason))
    assert found.state == shown and words in found.reason
