"""`adarem report`: one campaign in, every output file out."""

import csv
from pathlib import Path

from adarem.errors import UserError
from adarem.report import collect, tables
from adarem.report.cells import Table, build, read_paper
from adarem.rundir import write_atomically


def load(folder: Path, results_dir: Path, note: str = "") -> Table:
    campaign = collect.read_runs(folder)
    return build(campaign, read_paper(campaign.grid.get("paper"), results_dir), note)


def refuse_to_overwrite(table: Table, results_dir: Path) -> None:
    """A rehearsal never takes the place of a reproduction's numbers.

    Raises:
        UserError: results/tables/<grid>.csv holds a figure that was reproduced.
    """
    path = results_dir / "tables" / f"{table.name}.csv"
    if table.campaign.rehearsal is None or not path.exists():
        return
    with open(path, newline="") as f:
        if any(row.get("ours") and not row.get("rehearsal") for row in csv.DictReader(f)):
            raise UserError(
                f"{path}: holds a reproduction, which the rehearsal {table.campaign.name} must not overwrite; "
                "give another place with results_dir=results-rehearsal"
            )


def make(*, grid: str, runs_dir: Path, results_dir: Path, data: str | None, scale: str | None) -> str:
    """See adarem.report.make_report."""
    from adarem.report import figures

    folder, note = collect.find_campaign(grid, runs_dir, data, scale)
    table = load(folder, results_dir, note)
    refuse_to_overwrite(table, results_dir)
    collect.update_runs_csv(results_dir / "runs.csv", table.campaign, runs_dir)
    written = [results_dir / "runs.csv"]
    for ending, text in (
        ("md", tables.markdown(table)),
        ("csv", tables.to_csv(table)),
        ("tex", tables.latex(table)),
    ):
        path = results_dir / "tables" / f"{table.name}.{ending}"
        write_atomically(path, text)
        written.append(path)
    written += figures.write_figures(table, results_dir / "figures")
    return tables.screen(table) + "\nWritten:\n" + "".join(f"  {p}\n" for p in written)
