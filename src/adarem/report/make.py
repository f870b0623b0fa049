"""`adarem report`: the files of each sweep that is asked for, and the index over all sweeps.

The results of a sweep are a function of its folder and of ``results/paper/``; nothing that an earlier report wrote is
read. A search's selected settings go into its own folder, where plan finds them.
"""

import contextlib
import gc
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from adarem.report import Report, steps
from adarem.report.claims import overview as claims
from adarem.report.claims.entries import read_claims, read_contradictions
from adarem.report.claims.overview import Overview
from adarem.report.figures.write import has_times, write_figures
from adarem.report.harmless import harmless
from adarem.report.load import Run, Sweep, Sweeps, load_sweep
from adarem.report.manifest import Files, Manifest, write_manifest
from adarem.report.page import page
from adarem.report.search.tables import csvs as search_csvs
from adarem.report.selected import select_and_write
from adarem.report.tables import latex, times
from adarem.report.tables import render as tables
from adarem.report.tables import runs as runs_csv
from adarem.report.tables.table import Table, build, read_paper
from adarem.resources import paper_file
from adarem.run.directory import FINISHED
from adarem.run.errors import UserError
from adarem.run.files import check_own_folder, write_atomically
from adarem.run.frozen_claims import claims_now
from adarem.run.records import number
from adarem.run.stated import Stated, read_stated

LAST_SECOND = 253402300800.0  # the year 10000, which no date has


def load_table(folder: Path, results_dir: Path) -> Table:
    """The table of ``runs/<sweep>/``, with the paper's numbers of ``results_dir``."""
    stated = read_stated(paper_file("settings.yaml", results_dir))
    return _table(load_sweep(folder, stated), results_dir, stated)


def _table(sweep: Sweep, results_dir: Path, stated: Stated) -> Table:
    return build(sweep, read_paper(sweep.spec, results_dir, stated))


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A thousand runs are millions of small objects and hardly a cycle; to look for those takes a tenth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_no_garbage_collection()
def make(*, grid: str | None, runs_dir: Path, results_dir: Path, data: str | None, scale: str | None) -> Report:
    """See adarem.report.make_report."""
    stated = read_stated(paper_file("settings.yaml", results_dir))
    sweeps = Sweeps(runs_dir, stated)
    asked = sweeps.matching(grid, data, scale)
    built: dict[str, Table] = {}  # of every sweep under runs_dir, since the index has all
    for name in sweeps.names():
        try:
            if sweep := sweeps.get(name):
                built[name] = _table(sweep, results_dir, stated)
        except UserError as e:
            sweeps.unreadable[name] = str(e)
    failed = tuple(f"{sweeps.unreadable[name]} ({name} is not reported)" for name in asked if name not in built)
    if failed and len(failed) == len(asked):  # before the first file is written
        raise UserError(sweeps.unreadable[asked[0]])
    printed = [table.labels for table in built.values()]
    entries = read_claims(
        results_dir,
        models={name for labels in printed for name in labels.models},
        optimizers={name for labels in printed for name in labels.optimizers},
    )
    written: list[Path] = []
    selected: list[str] = []
    for name in asked:
        if name in built:
            if outcome := select_and_write(built[name].sweep):
                selected += [*outcome.screen, ""]
                built[name].selected = outcome.lines
            written += write_sweep_results(built[name], results_dir / name)
            if outcome and outcome.file:
                written.append(outcome.file)
    now = claims_now(paper_file("claims.yaml", results_dir))
    judged = claims.judge_all(entries, [table.sweep for table in built.values()], now, read_contradictions(results_dir))
    # Not shown where all that is there are studies of which no claim speaks.
    claimed = judged.of_paper or any(table.name in claims.grids_of(entries) for table in built.values())
    unreadable = [f"{line} ({name} is not reported)" for name, line in sorted(sweeps.unreadable.items())]
    written += write_index(list(built.values()), judged if claimed else None, unreadable, results_dir)
    what = "Claims of the paper" if judged.of_paper else "Claims"
    said = f"{what}: {claims.summary(judged.judged)} (see {results_dir / 'claims.md'})."
    lines = [
        *selected,
        *([said] if claimed else []),
        *(f"Problem: {line}" for line in unreadable),
        "",
        "Written:",
        *(f"  {path}" for path in written),
    ]
    screens = "\n".join(tables.screen(built[name]) for name in asked if name in built)
    return Report(screens + "\n".join(lines) + "\n", tuple(written), failed)


def write_sweep_results(table: Table, folder: Path) -> list[Path]:
    """All files of one sweep, the manifest last."""
    for place in (folder, folder / "figures"):
        check_own_folder(place)
    watched = steps.to_csv(table.sweep)  # first: what cannot be read there joins the problems that the others show
    texts = {
        **({"steps.csv": watched} if watched else {}),
        "table.md": tables.markdown(table),
        "table.csv": tables.to_csv(table),
        "table.tex": latex.latex(table),
        "runs.csv": runs_csv.to_csv(table.sweep.runs),
    }
    times_to_accuracy: dict[str, str] = {}
    if has_times(table):
        times_to_accuracy = {"time.md": times.markdown(table), "time.csv": times.to_csv(table)}
    of_search = dict(search_csvs(table.search)) if table.search is not None else {}
    for name, text in (texts | times_to_accuracy | of_search).items():
        write_atomically(folder / name, harmless(name, text))
    drawn = write_figures(table, folder / "figures")
    write_atomically(folder / "report.html", page.render(table, [p for p in drawn if p.suffix == ".svg"]))
    files = Files(
        table=("table.md", "table.csv", "table.tex"),
        time=tuple(times_to_accuracy),
        runs=("runs.csv",),
        steps=("steps.csv",) if watched else (),
        figures=tuple(p.relative_to(folder).as_posix() for p in drawn),
        page=("report.html",),
        search=tuple(of_search),
    )
    manifest = write_manifest(folder, _manifest(table, files))
    return [*(folder / name for name in files.all), manifest]


def _manifest(table: Table, files: Files) -> Manifest:
    sweep = table.sweep
    return Manifest(
        sweep=sweep.name,
        grid=table.name,
        heading=table.heading,
        title=table.title,
        standing=sweep.standing,
        metrics=sweep.spec.metrics,
        runs=len(sweep.runs),
        finished=sum(r.status in FINISHED for r in sweep.runs),
        commits=tuple(sorted({commit for r in sweep.runs for commit in r.commits})),
        last_run_ended=_last_end(sweep.runs),
        files=files,
    )


def _last_end(runs: Sequence[Run]) -> str | None:
    ends = [end for r in runs for a in r.attempts if 0 <= (end := number(a, "end") or -1.0) < LAST_SECOND]
    return datetime.fromtimestamp(max(ends), UTC).isoformat(timespec="seconds") if ends else None


def write_index(
    built: Sequence[Table], judged: Overview | None, unreadable: Sequence[str], results_dir: Path
) -> list[Path]:
    """index.html over all sweeps, reproductions first; with claims.md and claims.csv unless ``judged`` is None."""
    order = ("reproduction", "variation", "study", "rehearsal")
    ordered = sorted(built, key=lambda t: order.index(t.sweep.standing.kind))
    entries = []
    for table in ordered:
        sweep = table.sweep
        standing = f"{sweep.standing.kind.capitalize()}: {sweep.standing.reason}."
        entries.append(page.index_entry(table, standing, f"{sweep.name}/report.html"))
    texts = {"index.html": page.render_index(entries, judged, unreadable)}
    if judged:
        texts = {"claims.csv": claims.to_csv(judged.judged), "claims.md": claims.markdown(judged), **texts}
    for name, text in texts.items():
        write_atomically(results_dir / name, harmless(name, text))
    return [results_dir / name for name in texts]
