"""What Slurm says of a job that waits, in words that say what to do. Slurm's own word stays in brackets."""

import re
from typing import Literal, NamedTuple

from adarem.launch.slurm.queue import Job

InQueue = Literal["queued", "held", "starting", "ending"]


class Seen(NamedTuple):
    """How a job shows that is in the queue."""

    state: InQueue
    reason: str


_NEVER = "will not start as it is"
# The first pattern that fits the beginning of Slurm's reason.
_WORDS = (
    (r"Resources", "waits for free nodes"),
    (r"Priority", "waits behind jobs of higher priority"),
    (r"DependencyNeverSatisfied", f"{_NEVER}: the job that it waits for failed; scancel it, and launch again"),
    (r"Dependency", "waits for another job to end"),
    (r"Singleton", "waits for a job of the same name to end"),
    (r"JobHeldUser", "held; scontrol release {job}"),
    (r"JobHeldAdmin", "held by an administrator, who can release it"),
    (r"(launch failed requeued held|JobHoldMaxRequeue|MaxRequeue)", "held after failed starts; scontrol release {job}"),
    (r"BeginTime", "starts at a set time, about two minutes after a requeue"),
    (r"Cleaning", "waits until what is left of its last start is gone"),
    (r"JobArrayTaskLimit", "waits for other runs of its array: cluster.max_parallel"),
    (r"(QOS|Assoc)\w*(WallDuration|TimeLimit)", f"{_NEVER}: cluster.time is above a limit of its account or QOS"),
    (r"(QOS|Assoc)\w*", "waits for room under a limit of its account or QOS"),
    (r"PartitionTimeLimit", f"{_NEVER}: cluster.time is above its partition's limit; scancel it, and launch with less"),
    (r"PartitionNodeLimit", f"{_NEVER}: its partition gives no job so many nodes"),
    (r"Partition(Down|Inactive)", "waits until its partition is up"),
    (r"ReqNodeNotAvail", "waits for nodes that are down, drained or reserved, for maintenance perhaps"),
    (r"Reserv", "waits for a reservation"),
    (r"(NodeDown|FrontEndDown)", "waits for a node that is down"),
    (r"Licenses", "waits for licences"),
    (r"BadConstraints", f"{_NEVER}: no node fits its constraints"),
    (r"Invalid(Account|QOS)|AccountNotAllowed|QOSNotAllowed", f"{_NEVER}: its account or QOS is not valid here"),
)


def seen(job: Job) -> Seen:
    """How ``job`` shows, and why it does not train."""
    if job.is_ending:
        return Seen("ending", f"Slurm ends its job ({job.state})")
    held = re.match(r"JobHeld|launch failed requeued held|JobHoldMaxRequeue|MaxRequeue", job.reason)
    if held or job.state in ("REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"):
        return Seen("held", _reason(job, "held; scontrol release {job}"))
    if job.state in ("SUSPENDED", "STOPPED"):
        return Seen("held", f"suspended on its nodes by Slurm ({job.state})")
    if job.state in ("PENDING", "REQUEUED", "REQUEUE_FED"):
        return Seen("queued", _reason(job, "waits"))
    return Seen("starting", f"its job has nodes and no rank has begun an attempt yet ({job.state})")


def _reason(job: Job, otherwise: str) -> str:
    said = job.reason.strip("()")
    words = next((words for pattern, words in _WORDS if re.match(pattern, said)), otherwise)
    return words.format(job=job.id) + (f" ({said.partition(',')[0]})" if said else "")
