"""One check's line, and the two ways in which checks ask other programs."""

import subprocess
import sys
from dataclasses import dataclass
from typing import NamedTuple

ISOLATED_SECONDS = 240  # the first read through FFCV compiles; on a busy machine that takes a minute

EXPLAINED = 3  # exit code of an isolated check whose line ends with what to do


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


class Outcome(NamedTuple):
    """Of a check in a process of its own: whether it passed, the last line that it printed, the fix where known."""

    ok: bool
    line: str
    fix: str = ""


def run_isolated(name: str) -> Outcome:
    """Runs one of adarem.doctor.isolated_checks, whatever becomes of its process."""
    command = [sys.executable, "-m", "adarem.doctor.isolated_checks", name]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=ISOLATED_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Outcome(False, f"no answer within {ISOLATED_SECONDS} s")
    if done.returncode < 0:
        at = done.stdout.strip().splitlines()[-1:]
        return Outcome(False, " at ".join([f"crashed with signal {-done.returncode}", *at]))
    words = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    line = words[-1] if words else f"exit code {done.returncode}"
    if done.returncode == EXPLAINED:
        return Outcome(False, *split_fix(line))
    return Outcome(done.returncode == 0, line)


def split_fix(problem: str) -> tuple[str, str]:
    """What is wrong, and what to do, of ``<what>: <what is wrong>; <what to do>``."""
    found, _, fix = problem.rpartition("; ")
    return found, fix


def ask_slurm(command: list[str]) -> str | Check:
    """What a command of Slurm prints, or the failed check where it does not answer."""
    from adarem.launch.slurm.programs import NoAnswer, call

    try:
        done = call(command, patience=60.0)
    except NoAnswer as e:
        return Check("slurm", False, str(e), "ask whether slurmctld runs")
    if done.code:
        words = done.err.strip().splitlines() or [f"exit code {done.code}"]
        return Check("slurm", False, words[-1], "ask whether slurmctld runs, or set SLURM_CONF")
    return done.out
