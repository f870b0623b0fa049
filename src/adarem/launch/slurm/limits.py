"""What a site takes: how long an array may be, and which refusals of sbatch mean "not so many" and which "not so"."""

import re
from typing import Literal, TypeAlias

from adarem.launch.slurm.programs import NoAnswer, call

# full: of jobs that an account, a QOS, a user or the controller may have in the queue; later there is room again.
# long: of tasks in one array. unsure: the answer was lost, and the job may have been taken. refused: anything else.
Refusal: TypeAlias = Literal["full", "long", "unsure", "refused"]

_KINDS: tuple[tuple[Refusal, str], ...] = (
    ("full", r"\w*Max\w*Submit\w*|\w*Grp\w*Submit\w*|unable to accept job|Resource temporarily unavailable|MaxJobCount|"
             r"maximum number of jobs|job submit limit"),
    ("long", r"Invalid job array specification|MaxArraySize|array index .*(large|exceed)"),
    ("unsure", r"timed? ?out|unable to contact|zero bytes|connection (refused|reset|failure|closed)|"
               r"communication|send/recv|socket|not responding|in standby mode|broken pipe"),
)  # fmt: skip
# The second line of several refusals lists what may be the matter; the first names it.
_GENERAL = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
_DEFINITE = re.compile(r"\w*(MaxWall|MaxNodes|MaxCpu|MaxTRES|MaxGRES|MaxMem|MinCpu|MinTRES|TimeLimit|NotAllowed)\w*")


def longest_array() -> int | None:
    """MaxArraySize of this cluster, the most tasks of an array that begins at 0; None where it is not known."""
    try:
        answer = call(["scontrol", "show", "config"], patience=30.0)
    except NoAnswer:
        return None
    found = re.search(r"^\s*MaxArraySize\s*=\s*(\d+)\s*$", answer.out, re.MULTILINE)
    return int(found[1]) if found and int(found[1]) > 0 else None


def refusal(text: str) -> Refusal:
    """What a complaint of sbatch means."""
    own = text.replace(_GENERAL, "")
    for kind, pattern in _KINDS:
        if re.search(pattern, own, re.IGNORECASE):
            return kind
    return "full" if own != text and not _DEFINITE.search(own) else "refused"
