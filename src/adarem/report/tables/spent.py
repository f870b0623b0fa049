"""What the runs took next to what was expected, by optimizer. The report reads files of the sweep's folder alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from adarem.report.run import Run
from adarem.report.tables.table import Table
from adarem.run.directory import FINISHED
from adarem.run.errors import UserError
from adarem.run.estimate import Estimate, read_estimates
from adarem.run.spent import JobRecord, Spent, read_accounting, spent

HEADING = "Estimated and spent"
RULE = (
    "Estimated: by `adarem probe`, before the runs began. Both columns are over the finished runs that have an "
    "estimate and did not diverge; what other runs took (failed, diverged, unfinished, without an estimate) is next to "
    "them. "
    "Spent is what Slurm's accounting has, over all starts of a run; without it the attempts that the run recorded, "
    "and then the estimate leaves out what comes before such a record (imports, ranks that meet). "
)


@dataclass(frozen=True)
class OfOptimizer:
    """Hours of GPUs, else of ranks."""

    optimizer: str
    runs: int  # that are compared
    estimated: float
    spent: float
    others: float  # spent on other runs
    counted_by: str  # Slurm, attempts, or both
    unended: int  # attempts that recorded no end and are not counted

    @property
    def ratio(self) -> float | None:
        return self.spent / self.estimated if self.runs and self.estimated else None


class SpentTable(NamedTuple):
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]


def by_optimizer(table: Table) -> list[OfOptimizer]:
    """Empty where the sweep has neither estimates nor an accounting.

    Raises:
        UserError: one of these files is damaged.
    """
    estimates, jobs = read_estimates(table.sweep.folder), read_accounting(table.sweep.folder)
    if not estimates and not jobs:
        return []
    found = []
    for optimizer in dict.fromkeys(r.config.optimizer.name for r in table.sweep.runs):
        runs = [r for r in table.sweep.runs if r.config.optimizer.name == optimizer]
        found.append(_of_runs(optimizer, runs, estimates, jobs))
    return found


def _of_runs(
    optimizer: str,
    runs: Sequence[Run],
    estimates: Mapping[str, Estimate],
    jobs: Mapping[str, Sequence[JobRecord]],
) -> OfOptimizer:
    estimated = on_these = on_others = 0.0
    compared, unended = 0, 0
    sources = set()
    for run in runs:
        name = run.dir.path.name
        taken = spent(jobs.get(name, ()), run.attempts, run.config.cluster.world_size)
        if taken is None:
            continue
        sources.add("Slurm" if taken.by_slurm else "attempts")
        unended += taken.open
        expected = estimates.get(name)
        if run.status == "done" and expected is not None and not taken.open:
            compared += 1
            estimated += _hours(expected, taken)
            on_these += taken.device_hours
        else:
            on_others += taken.device_hours
    return OfOptimizer(optimizer, compared, estimated, on_these, on_others, " and ".join(sorted(sources)), unended)


def _hours(expected: Estimate, taken: Spent) -> float:
    """Of an estimate, as far as ``taken`` counts the same."""
    left_out = 0.0 if taken.by_slurm else expected.before_record_seconds
    return (expected.seconds - left_out) / 3600 * expected.ranks


def rows(table: Table) -> SpentTable | None:
    """The table as it is printed; None where there is nothing to compare. A damaged file is a note."""
    try:
        found = by_optimizer(table)
    except UserError as e:
        return SpentTable((), (), (str(e),))
    if not found:
        return None
    device = "GPU" if any(r.config.cluster.device == "cuda" for r in table.sweep.runs) else "rank"
    unit, factor = ("h", 1.0) if max(max(o.estimated, o.spent, o.others) for o in found) >= 2 else ("min", 60.0)
    header = ("Optimizer", "Runs", f"Estimated ({device} {unit})", f"Spent ({device} {unit})", "Spent / estimated",
              f"On other runs ({device} {unit})", "Counted by")  # fmt: skip
    printed = []
    for o in found:
        ratio = f"{o.ratio:.2f}" if o.ratio is not None else "—"
        of_runs = [f"{x * factor:.2f}" if o.runs else "—" for x in (o.estimated, o.spent)]
        printed.append([table.labels.optimizer(o.optimizer), str(o.runs), *of_runs, ratio,
                        f"{o.others * factor:.2f}", o.counted_by or "—"])  # fmt: skip
    notes = [RULE.strip()]
    if unended := sum(o.unended for o in found):
        notes.append(f"{unended} attempts recorded no end and are not counted: they were killed, or still run.")
    waiting = sum(r.status not in FINISHED for r in table.sweep.runs)
    if waiting:
        notes.append(f"{waiting} runs are not finished.")
    return SpentTable(header, printed, notes)


def markdown(table: Table) -> list[str]:
    """Lines of a section, without its heading; empty where there is none."""
    found = rows(table)
    if found is None:
        return []
    out = []
    if found.rows:
        out += ["| " + " | ".join(found.header) + " |", "| --- |" + " ---: |" * 5 + " --- |"]
        out += ["| " + " | ".join(row) + " |" for row in found.rows]
        out.append("")
    return [*out, *(line for note in found.notes for line in (note, ""))][:-1]
