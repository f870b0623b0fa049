"""What the page shows of a sweep and of the claims: texts and tables, which the templates lay out."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adarem.report import provenance
from adarem.report.claims import overview
from adarem.report.claims.judge import RULE
from adarem.report.claims.overview import Overview
from adarem.report.figures.write import has_times
from adarem.report.load import Run
from adarem.report.page.sortable import PageCell, SortableTable, sortable
from adarem.report.search import tables as search_tables
from adarem.report.search.moved import moved_settings
from adarem.report.tables import render as tables
from adarem.report.tables import spent, times
from adarem.report.tables.settings import fairness_sheet
from adarem.report.tables.table import Cell, Table
from adarem.run.catalog import METRICS
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.files import open_file
from adarem.run.records import section

TAIL_LINES = 15
TAIL_BYTES = 8192


@dataclass(frozen=True)
class PaperLine:
    """One line of a table as the paper lays it out; ``row`` is empty where it is that of the line above."""

    row: str
    kind: str
    cells: Sequence[PageCell]


@dataclass(frozen=True)
class PaperTable:
    headings: Sequence[str]
    lines: Sequence[PaperLine]


@dataclass(frozen=True)
class EmbeddedFigure:
    name: str
    data_uri: str


@dataclass(frozen=True)
class Times:
    """Time to accuracy and how it is measured."""

    table: SortableTable
    rule: str


@dataclass(frozen=True)
class Costs:
    """What the runs took next to what was expected."""

    heading: str
    table: SortableTable
    notes: Sequence[str]


@dataclass(frozen=True)
class Notes:
    heading: str
    lines: Sequence[str]


@dataclass(frozen=True)
class LogTail:
    run: str
    tail: str


@dataclass(frozen=True)
class SearchPart:
    """One table of a search with its heading, and sentences below it."""

    heading: str
    table: SortableTable
    notes: Sequence[str]


@dataclass(frozen=True)
class SweepSection:
    name: str
    title: str
    rehearsal: str | None  # why this is a rehearsal
    facts: Sequence[str]
    warnings: Sequence[str]
    table: PaperTable
    legend: Sequence[str]
    search: Sequence[SearchPart]  # of a search, and of settings moved from one optimizer to another
    selected: Notes | None
    cells: SortableTable | None
    figures: Sequence[EmbeddedFigure]
    times: Times | None
    oscillation: Notes | None
    tests: Sequence[str]
    settings: SortableTable
    settings_notes: Sequence[str]
    throughput: SortableTable
    spent: Costs | None
    failures: Sequence[str]
    logs: Sequence[LogTail]
    attempts: SortableTable


@dataclass(frozen=True)
class Evidence:
    id: str
    status: str
    lines: Sequence[str]


@dataclass(frozen=True)
class ClaimsSection:
    heading: str
    count: int
    summary: str
    fixed: Sequence[str]  # what the claims were when each sweep was planned
    table: SortableTable
    rule: str
    contradictions: Notes | None
    evidence: Sequence[Evidence]


def sweep_section(table: Table, figures: Sequence[Path]) -> SweepSection:
    """Everything of one sweep. ``figures``: SVG files, embedded; those that are not there are left out."""
    sweep = table.sweep
    found = dict(tables.sections(table))
    header, rows, notes = fairness_sheet(table)
    failures = [*provenance.problems(sweep), *provenance.missing(sweep)]
    oscillation = found.get(tables.OSCILLATION)
    return SweepSection(
        name=table.name,
        title=table.title,
        rehearsal=sweep.rehearsal,
        facts=[str(fact) for fact in provenance.facts(sweep)],
        warnings=found.get("Warnings", []),
        table=paper_table(table),
        legend=tables.legend(table),
        search=_search(table),
        selected=Notes(tables.SELECTED, table.selected) if table.selected else None,
        cells=_cells(table) if table.search is None else None,
        figures=[_embedded(path) for path in figures if path.exists()],
        times=_times(table) if has_times(table) else None,
        oscillation=Notes(tables.OSCILLATION, oscillation) if oscillation else None,
        tests=[*found.get(tables.POWER, []), *tables.test_notes(table)],
        settings=sortable(header, rows, numeric=(1, 2, 5, 6)),
        settings_notes=notes,
        throughput=_throughput(sweep.runs),
        spent=_costs(table),
        failures=failures,
        logs=_logs(sweep.runs) if failures else [],
        attempts=_attempts(sweep.runs),
    )


def paper_table(table: Table) -> PaperTable:
    """The table as the paper lays it out."""
    lines, last = [], None
    for line in tables.lines(table):
        cells = [PageCell(text, "num best" if bold else "num") for text, bold in line.texts]
        lines.append(PaperLine(line.row if line.row != last else "", line.kind, cells))
        last = line.row
    return PaperTable([table.labels.optimizer(o) for o in table.columns], lines)


def _search(table: Table) -> list[SearchPart]:
    """What a search found; of a sweep with moved settings how these compare."""
    found = [] if table.search is None else [of(table.search, table.labels) for of in search_tables.ALL]
    found += filter(None, [moved_settings(table)])
    return [SearchPart(f.heading, sortable(f.header, f.rows, f.numeric), f.notes) for f in found]


def _cells(table: Table) -> SortableTable:
    """One row per cell of the table."""
    if table.sweep.spec.paper is None:
        headings: tuple[str, ...] = ("Network", "Metric", "Optimizer", "Ours", "n", "Runs")
        return sortable(headings, [_cell_row(table, cell) for cell in table.listed], numeric=(3, 4))
    headings = ("Network", "Metric", "Optimizer", "Paper", "Ours", "Difference", "n", "Verdict", "Runs")
    return sortable(headings, [_cell_row(table, cell) for cell in table.listed], numeric=(3, 4, 5, 6))


def _cell_row(table: Table, cell: Cell) -> list[str | PageCell]:
    overrides = table.labels.overrides(cell.overrides)
    network = table.labels.model(cell.model)
    of_cell: list[str | PageCell] = [
        f"{network} ({overrides})" if overrides else network,
        METRICS[cell.metric].label,
        table.labels.optimizer(cell.optimizer),
    ]
    ours = PageCell(cell.ours, "best" if cell.best else "")
    names = ", ".join(r.dir.path.name for r in cell.runs) or "—"
    if table.sweep.spec.paper is None:
        return [*of_cell, ours, cell.n, names]
    paper = PageCell(cell.paper or "—", "best" if cell.best_in_paper else "")
    difference = tables.difference_text(cell, table.sweep.rehearsal is not None)
    return [*of_cell, paper, ours, difference, cell.n, cell.verdict, names]


def _embedded(path: Path) -> EmbeddedFigure:
    data = base64.b64encode(path.read_bytes()).decode()
    return EmbeddedFigure(path.stem, f"data:image/svg+xml;base64,{data}")


def _times(table: Table) -> Times:
    header, printed, bold = times.rows(table)
    rows: list[list[str | PageCell]] = [list(row) for row in printed]
    for row, wins in zip(rows, bold, strict=True):
        if wins:
            row[3] = PageCell(str(row[3]), "best")
    return Times(sortable(header, rows, numeric=range(2, 7)), times.rule(table))


def _costs(table: Table) -> Costs | None:
    found = spent.rows(table)
    return found and Costs(spent.HEADING, sortable(found.header, found.rows, numeric=range(1, 6)), found.notes)


def _median(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def _throughput(runs: Sequence[Run]) -> SortableTable:
    """One row per run: images or tokens per second, share of time spent on waiting for data, where the time went."""
    headings = (
        "Run",
        "Images or tokens/s",
        "Waits for data",
        "Train s",
        "Evaluate s",
        "Checkpoint s",
        "Peak GiB",
        "GPU h",
        "Device",
    )
    return sortable(headings, [_throughput_row(r) for r in runs], numeric=range(1, 8))


def _throughput_row(run: Run) -> list[str]:
    rate = "images_per_s" if run.config.data.kind == "images" else "tokens_per_s"
    speed, wait, memory = (_median(run.column("train", key)) for key in (rate, "data_wait", "peak_memory_bytes"))
    seconds = [run.spent(part) for part in ("train", "evaluate", "checkpoint")]
    gpu_hours = run.result.get("gpu_hours")
    return [
        run.name,
        f"{speed:,.0f}" if speed is not None else "—",
        f"{100 * wait:.1f} %" if wait is not None else "—",
        *("—" if np.isnan(s) else f"{s:,.0f}" for s in seconds),
        f"{memory / 2**30:.2f}" if memory else "—",
        f"{gpu_hours:,.1f}" if isinstance(gpu_hours, int | float) else "—",
        str(run.result.get("device", "—")),
    ]


def _attempts(runs: Sequence[Run]) -> SortableTable:
    """One row per attempt: where, when and by which code it ran."""
    headings = ("Run", "Attempt", "State", "Commit", "Ranks", "Device", "Hosts", "Slurm job", "Versions", "Command")
    rows = []
    for run in runs:
        attempts = run.attempts or [{}]
        for attempt in attempts:
            state = run.status if attempt is attempts[-1] else attempt.get("why", "no end recorded")
            hosts = attempt.get("hosts")
            commit = str(attempt.get("commit") or "")[:12] + (" (dirty)" if attempt.get("dirty") else "")
            values = (
                attempt.get("attempt"),
                state,
                commit,
                attempt.get("world_size"),
                attempt.get("device"),
                " ".join(map(str, hosts)) if isinstance(hosts, list) else "",
                attempt.get("slurm_job"),
                " ".join(f"{k} {v}" for k, v in section(attempt, "versions").items()),
                attempt.get("command"),
            )
            rows.append([run.name, *(str(value or "—") for value in values)])
    return sortable(headings, rows, numeric=(1, 4))


def _logs(runs: Sequence[Run]) -> list[LogTail]:
    """The last lines of the logs of the runs that went wrong."""
    wrong = [r for r in runs if r.status in ("failed", "diverged", "interrupted") or r.problems]
    return [LogTail(r.name, tail) for r in wrong if (tail := log_tail(r.dir))]


def log_tail(run: RunDir) -> str:
    """The last lines of a run's log, read from its end; empty where there is no log."""
    try:
        with open(open_file(run.log_file), "rb") as f:
            f.seek(0, 2)
            f.seek(max(0, f.tell() - TAIL_BYTES))
            return "\n".join(f.read(TAIL_BYTES).decode(errors="replace").splitlines()[-TAIL_LINES:])
    except (OSError, UserError):
        return ""


def claims_section(claims: Overview) -> ClaimsSection:
    """The claims with their verdicts, and the evidence of those that have runs."""
    judged = claims.judged
    rows = [
        (j.claim.sentence, j.claim.where, PageCell(j.status, j.status.replace(" ", "-")), overview.in_rehearsal(j))
        for j in judged
    ]
    return ClaimsSection(
        heading=claims.heading,
        count=len(judged),
        summary=overview.summary(judged),
        fixed=claims.fixed,
        table=sortable(("Claim", "Where in the paper", "Status", "Rehearsed"), rows),
        rule=RULE,
        contradictions=Notes(overview.CONTRADICTIONS, [c.text for c in claims.contradictions])
        if claims.contradictions
        else None,
        evidence=[
            Evidence(j.claim.id, j.status, [*j.evidence, f"Runs: {', '.join(j.runs)}"]) for j in judged if j.runs
        ],
    )
