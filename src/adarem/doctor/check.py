"""One line of the doctor's, and the two ways in which it asks other programs."""

import subprocess
import sys
from dataclasses import dataclass

PROBE_SECONDS = 240  # a first FFCV read compiles; on a busy machine that takes a minute


@dataclass(frozen=True)
class Check:
    """One line: ``ok`` True is ✓, False is ✗ and fails the doctor, None is –, worth knowing but not needed."""

    name: str
    ok: bool | None
    found: str
    fix: str = ""

    def __str__(self) -> str:
        mark = {True: "✓", False: "✗", None: "–"}[self.ok]
        line = f"{mark} {self.name:<14} {self.found}"
        return line + (f"\n  {'':<14} fix: {self.fix}" if self.fix and self.ok is not True else "")


def probe(name: str) -> tuple[bool, str]:
    """Whether the probe went well, and its last line."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "adarem.doctor.probes", name], capture_output=True, text=True, timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {PROBE_SECONDS} s"
    if done.returncode < 0:
        return False, f"crashed with signal {-done.returncode}"
    words = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode == 0, words[-1] if words else f"exit code {done.returncode}"


def ask(command: list[str]) -> str | Check:
    """What a command of Slurm prints, or the check that failed because it does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return Check("slurm", False, f"{command[0]} does not answer within 60 s", "ask whether slurmctld runs")
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return Check("slurm", False, words[-1], "ask whether slurmctld runs, or set SLURM_CONF")
    return done.stdout
