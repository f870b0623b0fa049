"""A Table as Markdown, CSV and text for the screen, all from the same lines (LaTeX: latex.py)."""

import csv
import io
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from adarem.report import provenance
from adarem.report import stats as statistics
from adarem.report.run import Run
from adarem.report.search import tables as search_tables
from adarem.report.search.moved import moved_settings
from adarem.report.tables import spent
from adarem.report.tables.settings import fairness_sheet
from adarem.report.tables.table import Cell, Table
from adarem.run.catalog import METRICS
from adarem.run.directory import FINISHED
from adarem.run.text import aligned

FAILED = "Failed, diverged, unreadable or not counted"
MISSING = "Planned, and not there"
SELECTED = "The search: selected"
POWER = "What the seeds could show"
STAMPED = ("rehearsal", "variation")  # standings that show wherever the table does
OSCILLATION = "Oscillation in the last window, and who had no gradient"


class CellText(NamedTuple):
    text: str
    bold: bool


class Section(NamedTuple):
    """What follows the table under one heading."""

    heading: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Line:
    """One printed line of the table: the row that it belongs to, which value, and one text per column."""

    row: str
    kind: str  # paper, ours, difference, n, verdict; of a search best, trials
    texts: Sequence[CellText]


def lines(table: Table) -> list[Line]:
    """The paper's value, ours, the difference and n for every row; of a reproduction the verdict too."""
    out = []
    rehearsal = table.sweep.rehearsal is not None
    for row in table.rows:
        cells = [table.cell(row, o) for o in table.columns]
        label = table.row_label(row)
        texts = {
            "paper": [CellText(c.paper or "—", c.best_in_paper) for c in cells],
            "ours": [CellText(c.ours, c.best) for c in cells],
            "difference": [CellText(difference_text(c, rehearsal), False) for c in cells],
            "n": [CellText(c.n, False) for c in cells],
            "best": [CellText(c.ours, c.best) for c in cells],
            "trials": [CellText(c.trials, False) for c in cells],
            "verdict": [CellText(c.verdict, False) for c in cells],
        }
        out += [Line(label, kind, texts[kind]) for kind in kinds(table)]
    return out


def kinds(table: Table) -> list[str]:
    """Which lines a row has: a verdict on a reproduction alone, and ours alone where the paper has no numbers."""
    if table.search is not None:
        return ["best", "trials"]
    if not table.paper.values:
        return ["ours", "n"]
    return ["paper", "ours", "difference", "n"] + (["verdict"] if table.sweep.standing.kind == "reproduction" else [])


def difference_text(c: Cell, rehearsal: bool) -> str:
    """Ours − the paper's, in brackets where the paper's data was another."""
    if c.difference is None:
        return "—"
    return f"({_signed(c.difference)})" if rehearsal else _signed(c.difference)


def _signed(x: float) -> str:
    return f"{x:+.2f}".replace("-", "−")


def legend(table: Table) -> list[str]:
    """How to read the table, in sentences."""
    out = []
    if table.search is not None:
        return [
            "Best: the best trial so far of each optimizer, with the mean over the search's seeds. Trials: those that "
            "are finished, of those that were planned. Bold: best of its row. — is not finished or not planned, div. "
            "diverged, ep k/N still training."
        ]
    if table.sweep.rehearsal and table.paper.values:
        out.append(
            "A rehearsal: the paper's values are of other data, so the differences, in brackets, measure nothing "
            "and no verdict is drawn."
        )
    unit = METRICS[table.sweep.spec.metrics[0]].unit
    out.append(
        "Ours: mean ± sample standard deviation over n finished seeds (no ± with one seed). "
        + (f"Difference: ours − paper{f', in {unit}' if unit else ''}. " if table.paper.values else "")
        + "Bold: best of its row. "
        "— is not finished, div. diverged, ep k/N still training."
    )
    if table.sweep.standing.kind == "reproduction" and table.paper.values:
        out.append(statistics.VERDICT_RULE)
        off = [table.labels.overrides(text) for text in dict.fromkeys(row.overrides for row in table.rows) if text]
        if off:
            out.append(
                f"No verdict on rows with settings off the grid's own ({'; '.join(off)}): the paper's value is not of "
                "these settings, so the difference says what they change and not whether the paper holds."
            )
    return out


def power_notes(table: Table) -> list[str]:
    """The smallest difference that this number of seeds could have shown, one line per metric."""
    out: list[str] = []
    if table.search is not None:  # the seeds of the best of many trials say nothing
        return out
    for metric in table.sweep.spec.metrics:
        label = METRICS[metric].label
        several = [c for c in table.cells if c.metric == metric and c.values and not c.mixed]
        if several and all(len(c.values) == 1 for c in several):
            out.append(
                f"{label}: one seed a cell, so no deviation is known and no difference between optimizers can be "
                'distinguished from seed noise. seeds=[0,1,2] (SEEDS="0 1 2" with make) runs three.'
            )
        compared = [c for c in table.comparisons if c.metric == metric]
        if not compared:
            continue
        differences = [statistics.within_seeds(c.cells, (1, -1)) for c in compared]
        pooled = statistics.pooled_deviation(differences)
        tests = sum(c.test.p is not None for c in compared)
        n = min(len(d) for d in differences)
        smallest = statistics.smallest_detectable(pooled.sd, n, tests) if pooled and tests else None
        if not smallest or not pooled:
            out.append(f"{label}: the seeds of no cell differed, so nothing is known of what they could have shown.")
            continue
        points = f"{smallest:.2f} {METRICS[metric].unit}".rstrip()
        of_tests = f"the first of {tests} tests by Holm's correction" if tests > 1 else "one test"
        out.append(
            f"{label}: smallest difference of two cells that {n} seeds each could have shown (80 % power, 5 %, "
            f"two-sided paired t, {of_tests}): {points}; pooled deviation of the differences of a seed {pooled.sd:.3f} "
            f"with {pooled.degrees_of_freedom} degrees of freedom."
        )
    return out


def test_notes(table: Table) -> list[str]:
    """The paired t of the compared optimizers against the others, one line per comparison."""
    lines = []
    for c in table.comparisons:
        beyond = f" ({'; '.join(c.differing)})" if c.differing else ""
        lines.append(f"{c.row}: {c.first} − {c.second} = {c.test.text}{beyond}")
    return lines


def oscillation_notes(table: Table) -> list[str]:
    """What is behind Q, one line per run: the paper's mean, and that of the parameters with and without gradient."""
    out = []
    for r in table.sweep.runs:
        q, idle = r.value("q_mean"), r.value("share_without_gradient")
        mean, median = r.value("q_mean_with_gradient"), r.value("q_median_with_gradient")
        if q is None or idle is None or mean is None or median is None:
            continue
        left_out, of_idle = r.value("share_left_out") or 0.0, r.value("q_mean_without_gradient")
        idle_mean = f" (mean q {of_idle:.2f})" if of_idle is not None else ""
        out.append(
            f"{table.labels.cell(r.config.optimizer.name, r.overrides)}, seed {r.config.seed}: Q = {q:.2f} over all "
            f"that moved (the paper's definition; d = 0: {100 * left_out:.2f} %); {100 * idle:.1f} % of the parameters "
            f"got no gradient in the window{idle_mean}; over the others mean {mean:.2f}, median {median:.2f}"
        )
    return out


def sections(table: Table) -> list[Section]:
    """What follows the table; empty sections left out."""
    c = table.sweep
    runs: list[str] = []
    for cell in table.cells if table.search is None else ():
        if cell.metric == c.spec.metrics[0]:
            of = f"{table.labels.model(cell.model)}, {table.labels.cell(cell.optimizer, cell.overrides)}"
            runs += [f"{of}: {r.name}: {r.status}, {_trace(r)}" for r in cell.runs]
    for r in c.runs if table.search is not None else ():
        of = f"{r.config.model.label}, {table.labels.cell(r.config.optimizer.name, r.overrides)}"
        runs.append(f"{of}: {r.name}: {r.status}, {_trace(r)}")
    of_search = search_tables.warnings(table.search, table.labels) if table.search is not None else []
    found = [
        ("Warnings", [*of_search, *provenance.warnings(c)]),
        (FAILED, provenance.problems(c)),
        (MISSING, provenance.missing(c)),
        (SELECTED, table.selected),
        (POWER, power_notes(table)),
        (OSCILLATION, oscillation_notes(table)),
        ("Optimizers compared (paired t over the seeds, Holm over those of one metric)", test_notes(table)),
        ("Runs", runs),
    ]
    return [Section(heading, text) for heading, text in found if text]


def _trace(run: Run) -> str:
    made_by = dict.fromkeys(f"{k.name}+" if k.dirty else k.name for k in provenance.commits_of_attempts(run))
    return f"commit {', '.join(made_by) or '—'}"


def markdown(table: Table) -> str:
    """The table with its header, warnings, tests and runs."""
    c = table.sweep
    out = [f"# {table.title}", ""]
    if c.standing.kind in STAMPED:
        out += [f"> **{c.standing.kind.upper()}, not a reproduction.** {c.standing.reason}.", ""]
    out += [f"- {fact}" for fact in provenance.facts(c)]
    out += ["", "| | | " + " | ".join(table.labels.optimizer(o) for o in table.columns) + " |"]
    out.append("| --- | --- |" + " ---: |" * len(table.columns))
    last = None
    for line in lines(table):
        texts = [f"**{t}**" if bold else t for t, bold in line.texts]
        out.append(f"| {line.row if line.row != last else ''} | {line.kind} | " + " | ".join(texts) + " |")
        last = line.row
    for sentence in legend(table):
        out += ["", sentence]
    shown = dict(sections(table))
    for heading in ("Warnings", FAILED, MISSING, SELECTED):
        if heading in shown:
            out += ["", f"## {heading}", "", *(f"- {t}" for t in shown.pop(heading))]
    if table.search is not None:
        for rows in search_tables.ALL:
            out += _rows(rows(table.search, table.labels))
    if (moved := moved_settings(table)) is not None:
        out += _rows(moved)
    out += ["", "## Settings of each optimizer", "", *_sheet(table)]
    if of_cost := spent.markdown(table):
        out += ["", f"## {spent.HEADING}", "", *of_cost]
    for heading, text in shown.items():
        out += ["", f"## {heading}", "", *(f"- {t}" for t in text)]
    return "\n".join(out) + "\n"


def _rows(found: search_tables.Rows) -> list[str]:
    """A table of a search under its heading."""
    rules = ["---:" if i in found.numeric else "---" for i in range(len(found.header))]
    out = ["", f"## {found.heading}", "", f"| {' | '.join(found.header)} |", f"| {' | '.join(rules)} |"]
    return [
        *out,
        *(f"| {' | '.join(row)} |" for row in found.rows),
        *(line for note in found.notes for line in ("", note)),
    ]


def _sheet(table: Table) -> list[str]:
    sheet = fairness_sheet(table)
    out = ["| " + " | ".join(sheet.header) + " |", "| --- |" + " --- |" * (len(sheet.header) - 1)]
    out += ["| " + " | ".join(r) + " |" for r in sheet.rows]
    return [*out, *(line for note in sheet.notes for line in ("", note))]


CSV_COLUMNS = (
    "table", "campaign", "rehearsal", "data", "scale", "model", "optimizer", "variant", "label", "metric", "paper",
    "ours",
    "sd", "ci95_low", "ci95_high", "n", "planned", "difference", "state", "verdict", "best", "best_in_paper",
    "mixed_data", "values", "runs", "commits",
)  # fmt: skip


def to_csv(table: Table) -> str:
    """One row per cell, numbers bare; ``runs`` and ``commits`` say where they come from."""
    f = io.StringIO()
    w = csv.DictWriter(f, CSV_COLUMNS, lineterminator="\n")
    w.writeheader()
    for c in table.listed:
        s = c.summary
        config = c.runs[0].config if c.runs else None
        h = s.half_width if s and s.half_width is not None else None
        commits = {commit for r in c.runs for commit in r.commits}
        w.writerow(
            {
                "table": table.name,
                "campaign": table.sweep.name,
                "rehearsal": table.sweep.rehearsal or "",
                "data": config.data.name if config else "",
                "scale": config.scale.name if config else "",
                "model": c.model,
                "optimizer": c.optimizer,
                "variant": c.overrides,
                "label": f"{table.labels.model(c.model)}, {table.labels.cell(c.optimizer, c.overrides)}",
                "metric": c.metric,
                "paper": c.paper,
                "ours": f"{s.mean:.4f}" if s else "",
                "sd": f"{s.sd:.4f}" if s and s.sd is not None else "",
                "ci95_low": f"{s.mean - h:.4f}" if s and h is not None else "",
                "ci95_high": f"{s.mean + h:.4f}" if s and h is not None else "",
                "n": len(c.values),
                "planned": c.planned,
                "difference": f"{c.difference:.4f}" if c.difference is not None else "",
                "state": c.ours if not s else "done" if len(c.values) == c.planned else "partial",
                "verdict": c.verdict,
                "best": int(c.best),
                "best_in_paper": int(c.best_in_paper),
                "mixed_data": c.data or ("mixed" if c.mixed else ""),
                "values": " ".join(f"{v:g}" for v in c.values),
                "runs": " ".join(r.name for r in c.runs if r.status in FINISHED),
                "commits": " ".join(sorted(commits)),
            }
        )
    return f.getvalue()


def screen(table: Table, width: int | None = None) -> str:
    """The table, its header and its warnings as plain text.

    One optimizer per line here, whatever the paper's layout: that fits 80 columns without cutting a number.
    """
    c = table.sweep
    width = width or max(80, min(120, shutil.get_terminal_size((100, 24)).columns))
    shown = kinds(table)
    of_row: dict[str, dict[str, Line]] = {}
    for line in lines(table):
        of_row.setdefault(line.row, {})[line.kind] = line
    planned: dict[str, set[str]] = {}  # optimizers by row, where any was
    for cell in table.listed:
        planned.setdefault(table.row_label(cell.row), set()).add(cell.optimizer)
    body: list[list[str]] = [["", *shown]]
    for row, by_kind in of_row.items():
        body += [[part] for part in textwrap.wrap(row, width, subsequent_indent="    ")]
        for i, o in enumerate(table.columns):
            texts = [by_kind[k].texts[i] for k in shown]
            if row in planned and o not in planned[row]:
                continue
            body.append([f"  {table.labels.optimizer(o)}", *(f"*{t}*" if bold else f"{t} " for t, bold in texts)])
    full = [b for b in body if len(b) > 1]
    widths = [max(len(b[i]) for b in full) for i in range(len(full[0]))]
    out = [table.title, ""]
    for b in body:
        padded = [b[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(b[1:], widths[1:], strict=False))]
        out.append("  ".join(padded).rstrip())
        if b is body[0]:
            out.append("─" * (sum(widths) + 2 * len(widths) - 2))

    def say(text: str) -> None:
        out.extend(textwrap.wrap(text, width, subsequent_indent="    ", break_long_words=False))

    out.append("")
    if c.standing.kind in STAMPED:
        say(f"{c.standing.kind.upper()}, not a reproduction: {c.standing.reason}.")
        out.append("")
    for fact in provenance.facts(c):
        say(str(fact))
    if table.search is not None:
        say("*best of its row*: the best trial so far, mean over its seeds; — not finished; div. diverged")
    else:
        say("*best of its row*; ± sample standard deviation over n seeds; — not finished; div. diverged")
    found = dict(sections(table))
    for heading, mark in (("Warnings", "Warning"), (FAILED, "Problem"), (MISSING, "Problem"), (POWER, "Note")):
        for text in found.get(heading, []):
            say(f"{mark}: {text}")
    if of_cost := spent.rows(table):
        out += ["", f"{spent.HEADING}:"]
        out += aligned([of_cost.header, *of_cost.rows], right=range(1, 6)) if of_cost.rows else []
        for note in of_cost.notes[0 if not of_cost.rows else 1 :]:
            say(note)
    return "\n".join(out) + "\n"
