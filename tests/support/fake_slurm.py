"""Stand-ins for sbatch, squeue, scontrol, scancel and sacct that share a queue: quick, and as unkind as a test wants.

They read ``site.json`` (what the site is like) and keep ``queue.json`` (its jobs), both in the folder of the programs.
"""

import fcntl
import json
import os
import re
import sys
from pathlib import Path

PROGRAMS = ("sbatch", "squeue", "scontrol", "scancel", "sacct")


class FakeSlurm:
    """A site, as a test sees it.

    Settings of ``site``: max_array, max_submit (tasks in the queue), banner (lines on stdout around each answer), lost
    (how many times sbatch takes a job and answers that it timed out), dropped (as lost, but the job is not taken),
    refuse (words of a command line to a complaint), hang (seconds until a program answers), down (squeue's complaint).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.site()
        self._write({"next": 100, "jobs": [], "submitted": []})
        python = os.path.realpath("/proc/self/exe")  # a test may have another in sys.executable
        for name in PROGRAMS:
            program = folder / name
            program.write_text(f'#!/bin/sh\nexec "{python}" -S -E "{__file__}" {name} "{folder}" "$@"\n')
            program.chmod(0o755)

    def site(self, **settings: object) -> None:
        (self.folder / "site.json").write_text(json.dumps(settings))

    def _write(self, state: dict) -> None:
        (self.folder / "queue.json").write_text(json.dumps(state))

    def _read(self) -> dict:
        return json.loads((self.folder / "queue.json").read_text())

    @property
    def submitted(self) -> list[dict]:
        """Each job that was taken: id, words (of the command line), env."""
        return self._read()["submitted"]

    @property
    def active(self) -> list[str]:
        """Ids of the jobs with a task that has not ended."""
        return [j["id"] for j in self._read()["jobs"] if any(t["state"] not in ENDED for t in j["tasks"])]

    def set(self, job: str, state: str, reason: str = "None", task: int | None = None, code: str = "0:0") -> None:
        """Gives a job, or one task of it, a state."""
        known = self._read()
        for j in known["jobs"]:
            for t in j["tasks"] if j["id"] == job else ():
                if task is None or t["index"] == task:
                    t |= {"state": state, "reason": reason, "code": code}
        self._write(known)


ENDED = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")


def option(words: list[str], name: str, default: str = "") -> str:
    found = [w.split("=", 1)[1] for w in words if w.startswith(f"--{name}=")]
    return found[-1] if found else default


def sbatch(words: list[str], site: dict, state: dict) -> tuple[int, str, str]:
    line = " ".join(words)
    for part, complaint in site.get("refuse", {}).items():
        if part in line:
            return 1, "", f"sbatch: error: {complaint}\n"
    array = option(words, "array")
    match = re.fullmatch(r"0-(\d+)(?:%\d+)?", array)
    tasks = int(match[1]) + 1 if match else 1
    if array and tasks > site.get("max_array", 1001):
        return 1, "", "sbatch: error: Batch job submission failed: Invalid job array specification\n"
    held = sum(t["state"] not in ENDED for j in state["jobs"] for t in j["tasks"])
    if held + tasks > site.get("max_submit", 10**6):
        general = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
        return (
            1,
            "",
            f"sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: {general}\n",
        )
    dependency = option(words, "dependency")
    known = {j["id"] for j in state["jobs"]}
    for job in re.findall(r":(\d+)", dependency):
        if job not in known:
            return 1, "", "sbatch: error: Batch job submission failed: Job dependency problem\n"
    answers = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n"
    if state.get("dropped", 0) < site.get("dropped", 0):
        state["dropped"] = state.get("dropped", 0) + 1
        return 1, "", answers
    job = str(state["next"])
    state["next"] += 1
    reason = "Dependency" if dependency and dependency != "singleton" else "Priority"
    state["jobs"].append(
        {
            "id": job,
            "name": option(words, "job-name"),
            "array": bool(array),
            "tasks": [{"index": i, "state": "PENDING", "reason": reason, "code": "0:0"} for i in range(tasks)],
        }
    )
    state["submitted"].append({"id": job, "words": words, "env": dict(os.environ)})
    if state.get("lost", 0) < site.get("lost", 0):
        state["lost"] = state.get("lost", 0) + 1
        return 1, "", answers
    return 0, f"{job}\n", ""


def squeue(words: list[str], site: dict, state: dict) -> tuple[int, str, str]:
    if site.get("down"):
        return 1, "", f"{site['down']}\n"
    names = option(words, "name").split(",") if option(words, "name") else None
    ids = option(words, "jobs").split(",") if option(words, "jobs") else None
    states = option(words, "states") or os.environ.get("SQUEUE_STATES", "")
    user = os.environ.get("SQUEUE_USERS")
    form = option(words, "format", "%i %T")
    lines = []
    for j in state["jobs"]:
        if user is not None or names is not None and j["name"] not in names or ids is not None and j["id"] not in ids:
            continue
        for t in j["tasks"]:
            if states == "all" or (not states and t["state"] not in ENDED) or t["state"] in states.split(","):
                values = {"F": j["id"], "K": str(t["index"]) if j["array"] else "N/A", "j": j["name"], "T": t["state"],
                          "r": t["reason"], "A": j["id"], "i": f"{j['id']}_{t['index']}"}  # fmt: skip
                lines.append(re.sub(r"%(\w)", lambda m, values=values: values[m[1]], form))
    return 0, "".join(f"{line}\n" for line in lines), ""


def scontrol(words: list[str], site: dict, state: dict) -> tuple[int, str, str]:
    return 0, f"Configuration data\nMaxArraySize            = {site.get('max_array', 1001)}\n", ""


def scancel(words: list[str], site: dict, state: dict) -> tuple[int, str, str]:
    for j in state["jobs"]:
        if j["id"] in words:
            for t in j["tasks"]:
                t["state"] = t["state"] if t["state"] in ENDED else "CANCELLED"
    return 0, "", ""


def sacct(words: list[str], site: dict, state: dict) -> tuple[int, str, str]:
    if not site.get("accounting"):
        return 1, "", "Slurm accounting storage is disabled\n"
    fields = option(words, "format").split(",")
    jobs = option(words, "jobs").split(",")
    lines = []
    for j in state["jobs"]:
        for t in j["tasks"] if j["id"] in jobs else ():
            known = {"JobID": f"{j['id']}_{t['index']}" if j["array"] else j["id"], "JobName": j["name"],
                     "State": t["state"], "ExitCode": t["code"], "Start": "2026-01-01T00:00:00", "ElapsedRaw": "5",
                     "AllocCPUS": "1", "AllocTRES": "cpu=1"}  # fmt: skip
            lines.append("|".join(known.get(field, "") for field in fields))
    return 0, "".join(f"{line}\n" for line in lines), ""


def main(name: str, folder: Path, words: list[str]) -> int:
    site = json.loads((folder / "site.json").read_text())
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = json.loads((folder / "queue.json").read_text())
        code, out, err = globals()[name](words, site, state)
        (folder / "queue.json").write_text(json.dumps(state))
    banner = "".join(f"{line}\n" for line in site.get("banner", ()))
    sys.stdout.write(banner + out + banner)
    sys.stderr.write(err)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
