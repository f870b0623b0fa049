"""Results plane: run directories to tables, figures and claims. Reads run directories and nothing else."""

from pathlib import Path


def make_report(
    *, grid: str, runs_dir: Path, results_dir: Path, data: str | None = None, scale: str | None = None
) -> str:
    """Writes runs.csv, tables/<grid>.{md,csv,tex}, figures and report.html; returns the table and the paths as text.

    Without ``data`` it takes the paper's own setting, else the only sweep of that grid.

    Raises:
        UserError: no runs of that grid, a damaged grid.yaml or CSV of an earlier report, or a reproduction
            that would be overwritten: by a rehearsal, or by runs that are not its own.
    """
    from adarem.report.make import make

    return make(grid=grid, runs_dir=Path(runs_dir), results_dir=Path(results_dir), data=data, scale=scale)


def compare(first: Path, second: Path) -> str:
    """Two runs side by side with the paired test, as text. Raises UserError for a path that is no readable run."""
    from adarem.report.compare import compare as compare_runs

    return compare_runs(Path(first), Path(second))
