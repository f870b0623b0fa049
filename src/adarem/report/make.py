"""`adarem report`: one sweep in, every output file out."""

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

from adarem.report import load as collect
from adarem.report.claims import judge as claims
from adarem.report.claims import ledger
from adarem.report.csv_rows import read_rows
from adarem.report.figures.write import figure_names, is_about_oscillation, write_figures
from adarem.report.load import Sweep, Sweeps
from adarem.report.page import page as html
from adarem.report.tables import latex, times
from adarem.report.tables import render as tables
from adarem.report.tables import runs as runs_csv
from adarem.report.tables.table import Table, build, read_paper
from adarem.run.errors import UserError
from adarem.run.files import write_atomically

TIMES = "-time"  # ends the name of a table's time to accuracy, as of its figure
NAMED = 3  # runs that a message spells out


def load(folder: Path, results_dir: Path, note: str = "") -> Table:
    return _table(collect.read_sweep(folder), results_dir, note)


def _table(sweep: Sweep, results_dir: Path, note: str = "") -> Table:
    return build(sweep, read_paper(sweep.grid.get("paper"), results_dir), note)


def refuse_to_overwrite(table: Table, results_dir: Path) -> None:
    """What was reproduced gives way to nothing but a report of the same runs, or of these and more.

    Raises:
        UserError: results/tables/<grid>.csv holds a figure that was reproduced, and this is a rehearsal or lacks runs
            that the figure rests on.
    """
    path, sweep = results_dir / "tables" / f"{table.name}.csv", table.sweep
    reproduced = [row for row in read_rows(path) if row.get("ours") and not row.get("rehearsal")]
    if not reproduced:
        return
    if sweep.rehearsal:
        raise UserError(
            f"{path}: holds a reproduction, which the rehearsal {sweep.name} must not overwrite "
            f"({sweep.rehearsal}); give another place with results_dir=results-rehearsal"
        )
    rests_on = dict.fromkeys(run for row in reproduced for run in row.get("runs", "").split())
    if lacking := sorted(rests_on.keys() - sweep.names):
        named = ", ".join(lacking[:NAMED]) + (f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else "")
        raise UserError(
            f"{path}: holds figures of runs that cannot be read in {sweep.folder} ({named}); bring them back, give "
            "another place with results_dir=…, or remove that file to give its figures up"
        )


@contextlib.contextmanager
def _no_cycles_sought() -> Iterator[None]:
    """A thousand runs are millions of small objects and hardly a cycle; to look for those takes a tenth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_no_cycles_sought()
def make(*, grid: str, runs_dir: Path, results_dir: Path, data: str | None, scale: str | None) -> str:
    """See adarem.report.make_report."""
    folder, note = collect.find_sweep(grid, runs_dir, data, scale)
    table = load(folder, results_dir, note)
    refuse_to_overwrite(table, results_dir)
    sweeps = Sweeps(runs_dir, table.sweep)
    # All that may refuse comes before the first file is written.
    judged, rehearsed = ledger.judge(sweeps, results_dir)
    judged, kept = ledger.keep(judged, results_dir / "claims.csv", sweeps)
    texts = {
        "runs.csv": runs_csv.merged(results_dir / "runs.csv", table.sweep, sweeps),
        f"tables/{table.name}.md": tables.markdown(table),
        f"tables/{table.name}.csv": tables.to_csv(table),
        f"tables/{table.name}.tex": latex.latex(table),
        "claims.csv": claims.to_csv(judged),
        "claims.md": claims.markdown(judged, rehearsed),
    }
    if not is_about_oscillation(table):
        texts[f"tables/{table.name}{TIMES}.md"] = times.markdown(table)
        texts[f"tables/{table.name}{TIMES}.csv"] = times.to_csv(table)
    written = [results_dir / name for name, text in texts.items() if text]
    for path in written:
        write_atomically(path, texts[str(path.relative_to(results_dir))])
    written += write_figures(table, results_dir / "figures")
    written.append(write_page(table, judged, sweeps, results_dir))
    told = [f"Claims of the paper: {claims.summary(judged)} (see {results_dir / 'claims.md'})."]
    if kept:
        told.append(
            f"Claims whose runs are not under {runs_dir} stay as an earlier report judged them: {', '.join(kept)}; to "
            f"judge by the runs that are there, remove {results_dir / 'claims.csv'}."
        )
    told += [f"Problem: {line}" for line in unreadable(sweeps)]
    return tables.screen(table) + "\n".join([*told, "", "Written:", *(f"  {p}" for p in written)]) + "\n"


def unreadable(sweeps: Sweeps) -> list[str]:
    """A line for each other sweep that this report could not read, and so left as it found it."""
    return [f"{line} ({name} is left as earlier reports have it)" for name, line in sweeps.unreadable.items()]


def write_page(current: Table, judged: list[claims.Judged], sweeps: Sweeps, results_dir: Path) -> Path:
    """report.html: every table of ``results_dir`` whose runs are here."""
    sections, elsewhere = [], []
    for path in sorted(p for p in (results_dir / "tables").glob("*.csv") if not p.stem.endswith(TIMES)):
        if path.stem == current.name:
            sections.append((current, figure_names(current)))
            continue
        try:
            name = next((row.get("campaign", "") for row in read_rows(path)), "")
            sweep = sweeps.get(name)
            if sweep is None:
                elsewhere += [path.stem] if name not in sweeps.unreadable else []
                continue
            table = _table(sweep, results_dir)
        except UserError as e:
            sweeps.unreadable[path.stem] = str(e)
            continue
        sections.append((table, figure_names(table)))
    sections.sort(key=lambda s: s[0].sweep.rehearsal is not None)  # reproductions first
    path = results_dir / "report.html"
    drawn = [(table, [results_dir / "figures" / f"{name}.svg" for name in names]) for table, names in sections]
    moved = [f"{name}: its runs are not here; see tables/{name}.md" for name in elsewhere]
    write_atomically(path, html.render_all(drawn, judged, moved, unreadable(sweeps)))
    return path
