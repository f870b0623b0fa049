"""From finished and unfinished runs to tables, figures and the paper's claims.

In: a sweep's folder under ``runs/`` and ``results/paper/``. Out: ``results/<sweep>/`` and the index ``results/``.
Imports run and resources; no torch, no Hydra, no Slurm, no wandb.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Report:
    """What a report wrote."""

    text: str  # for the screen
    written: tuple[Path, ...]
    failed: tuple[str, ...]  # one line per sweep that was asked for and could not be reported


def make_report(
    *, runs_dir: Path, results_dir: Path, grid: str | None = None, data: str | None = None, scale: str | None = None
) -> Report:
    """Writes ``results/<sweep>/`` for each sweep that is asked for, and the index over all sweeps under ``runs_dir``.

    Args:
        runs_dir: the folder of the sweeps.
        results_dir: where ``<sweep>/`` and the index go; its folder ``paper/``, else adarem's own, has the paper's
            numbers.
        grid: name of a grid, or of one sweep; None: every grid.
        data: one data set of the grid; None: every one.
        scale: its scale; None: the data set's default.

    Raises:
        UserError: no runs of that grid; none of the sweeps asked for can be read; claims.yaml or settings.yaml is
            damaged.
    """
    from adarem.report.make import make

    return make(grid=grid, runs_dir=Path(runs_dir), results_dir=Path(results_dir), data=data, scale=scale)


def compare(first: Path, second: Path) -> str:
    """Two runs side by side with the paired test, as text. Raises UserError for a path that is no readable run."""
    from adarem.report.compare import compare as compare_runs

    return compare_runs(Path(first), Path(second))
