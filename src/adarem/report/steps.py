"""What optimizers do to the weights at watched steps: which runs are shown, and steps.csv."""

import csv
import io
import math

from adarem.report.load import Run, Sweep
from adarem.report.run import WATCHED

MOST_RUNS = 200  # of a sweep whose watched steps are read: a file may have megabytes


def watched_runs(sweep: Sweep) -> list[Run]:
    """The runs with watched steps; of a large sweep the first seeds of every cell."""
    first = sorted(sweep.runs, key=lambda r: (r.config.seed, r.name))[:MOST_RUNS]
    return [r for r in first if len(r.steps["step"])]


def left_out(sweep: Sweep) -> int:
    """Runs that are not read."""
    return max(0, len(sweep.runs) - MOST_RUNS)


def to_csv(sweep: Sweep) -> str | None:
    """One row per watched step that the figure shows; None where no run has any."""
    runs = sorted(watched_runs(sweep), key=lambda r: r.name)
    if not runs:
        return None
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("run", "model", "optimizer", "overrides", "seed", "step", *WATCHED))
    for run in runs:
        of_run = (run.name, run.config.model.name, run.config.optimizer.name, run.overrides, run.config.seed)
        for step, *values in zip(run.steps["step"], *(run.steps[key] for key in WATCHED), strict=True):
            writer.writerow((*of_run, int(step), *("" if math.isnan(v) else f"{v:.6g}" for v in values)))
    return text.getvalue()
