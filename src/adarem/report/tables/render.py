"""A Table as Markdown, CSV and text for the screen, all from the same lines (LaTeX: latex.py)."""

import csv
import io
import shutil
import textwrap
from dataclasses import dataclass

from adarem.report import provenance
from adarem.report import stats as statistics
from adarem.report.tables.settings import fairness_sheet
from adarem.report.tables.table import METRICS, Cell, Table
from adarem.run.directory import FINISHED

FAILED = "Failed, diverged or unreadable"
MISSING = "Planned, and not there"
POWER = "What the seeds could show"
OSCILLATION = "Oscillation in the last window, and who had no gradient"


@dataclass(frozen=True)
class Line:
    """One printed line of the table: what it is of, which figure, and a text per column with its weight."""

    row: str
    kind: str  # paper, ours, difference, n, verdict
    texts: list[tuple[str, bool]]  # (text, bold)


def lines(table: Table) -> list[Line]:
    """The paper's value, ours, the difference and n for every row; the verdict too unless it is a rehearsal."""
    out = []
    rehearsal = table.sweep.rehearsal is not None
    for row in table.rows:
        cells = [table.cell(row, o) for o in table.columns]
        label = table.row_label(row)
        texts = {
            "paper": [(c.paper or "—", c.best_in_paper) for c in cells],
            "ours": [(c.ours, c.best) for c in cells],
            "difference": [(difference_text(c, rehearsal), False) for c in cells],
            "n": [(c.n, False) for c in cells],
            "verdict": [(c.verdict, False) for c in cells],
        }
        out += [Line(label, kind, texts[kind]) for kind in kinds(table)]
    return out


def kinds(table: Table) -> list[str]:
    """Which lines a row has: no verdict on a rehearsal, and ours alone where the paper has no numbers."""
    if not table.paper.values:
        return ["ours", "n"]
    return ["paper", "ours", "difference", "n"] + ([] if table.sweep.rehearsal else ["verdict"])


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
    if table.sweep.rehearsal and table.paper.values:
        out.append(
            "A rehearsal: the paper's values are of other data, so the differences, in brackets, measure nothing "
            "and no verdict is drawn."
        )
    unit = METRICS[table.sweep.grid["metrics"][0]].unit
    out.append(
        "Ours: mean ± sample standard deviation over n finished seeds (no ± with one seed). "
        + (f"Difference: ours − paper{f', in {unit}' if unit else ''}. " if table.paper.values else "")
        + "Bold: best of its row. "
        "— is not finished, div. diverged, ep k/N still training."
    )
    if not table.sweep.rehearsal and table.paper.values:
        out.append(statistics.VERDICT_RULE)
        off = [table.labels.overrides(v) for v in dict.fromkeys(variant for _, variant, _ in table.rows) if v]
        if off:
            out.append(
                f"No verdict on rows with settings off the grid's own ({'; '.join(off)}): the paper's value is not of "
                "these settings, so the difference tells what they change and not whether the paper holds."
            )
    return out


def power_notes(table: Table) -> list[str]:
    """The smallest difference that this number of seeds could have shown, one line a metric."""
    out = []
    for metric in table.sweep.grid["metrics"]:
        cells = [c for c in table.cells if c.metric == metric and c.values and not c.mixed]
        if not cells:
            continue
        pooled = statistics.pooled_deviation([c.values for c in cells])
        label = METRICS[metric].label
        if pooled is None:
            out.append(
                f"{label}: one seed a cell, so no deviation is known and no difference between optimizers can be "
                'told from seed noise. seeds=[0,1,2] (SEEDS="0 1 2" with make) runs three.'
            )
            continue
        sd, freedom = pooled
        n = min(len(c.values) for c in cells if len(c.values) > 1)
        smallest = statistics.smallest_detectable(sd, n)
        if not smallest:
            out.append(f"{label}: the seeds of no cell differed, so nothing is known of what they could have shown.")
            continue
        points = f"{smallest:.2f} {METRICS[metric].unit}".rstrip()
        out.append(
            f"{label}: smallest difference of two cells that {n} seeds each could have shown (80 % power, 5 %, "
            f"two-sided t): {points}; pooled deviation {sd:.3f} with {freedom} degrees of freedom. That is for one "
            "comparison, uncorrected: under Holm's correction over a whole table, which the comparisons of optimizers "
            "carry, a difference must be larger to show."
        )
    return out


def test_notes(table: Table) -> list[str]:
    """Welch's t of AdaRem or AdaRem-S against the others, one line a comparison."""
    return [f"{row}: {a} − {b} = {t.text}" for row, a, b, t in table.comparisons]


def oscillation_notes(table: Table) -> list[str]:
    """What stands behind Q, one line a run: the paper's mean, and that of the parameters with and without gradient."""
    out = []
    for r in table.sweep.runs:
        q, idle = r.value("q_mean"), r.value("share_without_gradient")
        mean, median = r.value("q_mean_with_gradient"), r.value("q_median_with_gradient")
        if None in (q, idle, mean, median):
            continue
        left_out, of_idle = r.value("share_left_out") or 0.0, r.value("q_mean_without_gradient")
        idle_mean = f" (mean q {of_idle:.2f})" if of_idle is not None else ""
        out.append(
            f"{table.labels.cell(r.config.optimizer.name, r.overrides)}, seed {r.config.seed}: Q = {q:.2f} over all "
            f"that moved (the paper's definition; d = 0: {100 * left_out:.2f} %); {100 * idle:.1f} % of the parameters "
            f"got no gradient in the window{idle_mean}; over the others mean {mean:.2f}, median {median:.2f}"
        )
    return out


def sections(table: Table) -> list[tuple[str, list[str]]]:
    """(heading, lines) of what stands under a table; empty ones left out."""
    c = table.sweep
    runs = []
    for cell in table.cells:
        if cell.metric == c.grid["metrics"][0]:
            of = f"{table.labels.model(cell.model)}, {table.labels.cell(cell.optimizer, cell.overrides)}"
            runs += [f"{of}: {r.name}: {r.status}, {_trace(r)}" for r in cell.runs]
    found = [
        ("Warnings", provenance.warnings(c)),
        (FAILED, provenance.problems(c)),
        (MISSING, provenance.missing(c)),
        (POWER, power_notes(table)),
        (OSCILLATION, oscillation_notes(table)),
        ("Optimizers compared (Welch's t, Holm over all of them)", test_notes(table)),
        ("Runs", runs),
    ]
    return [(heading, text) for heading, text in found if text]


def _trace(run) -> str:
    commits = dict.fromkeys(str(a.get("commit", ""))[:9] + "+" * bool(a.get("dirty")) for a in run.attempts)
    return f"commit {', '.join(k for k in commits if k) or '—'}"


def markdown(table: Table) -> str:
    """The whole table with its header, warnings, tests and runs."""
    c = table.sweep
    out = [f"# {table.title}", ""]
    if c.rehearsal:
        out += [f"> **REHEARSAL, not a reproduction.** {c.rehearsal}.", ""]
    out += [f"- {what}: {text}" for what, text in provenance.facts(c)]
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
    for heading in ("Warnings", FAILED, MISSING):
        if heading in shown:
            out += ["", f"## {heading}", "", *(f"- {t}" for t in shown.pop(heading))]
    out += ["", "## Settings of each optimizer", "", *_sheet(table)]
    for heading, text in shown.items():
        out += ["", f"## {heading}", "", *(f"- {t}" for t in text)]
    return "\n".join(out) + "\n"


def _sheet(table: Table) -> list[str]:
    header, rows, notes = fairness_sheet(table)
    out = ["| " + " | ".join(header) + " |", "| --- |" + " --- |" * (len(header) - 1)]
    out += ["| " + " | ".join(r) + " |" for r in rows]
    return [*out, *(line for n in notes for line in ("", n))]


CSV_COLUMNS = (
    "table", "campaign", "rehearsal", "data", "scale", "model", "optimizer", "variant", "label", "metric", "paper",
    "ours",
    "sd", "ci95_low", "ci95_high", "n", "planned", "difference", "state", "verdict", "best", "best_in_paper",
    "mixed_data", "values", "runs", "commits",
)  # fmt: skip


def to_csv(table: Table) -> str:
    """One row a cell, numbers bare; ``runs`` and ``commits`` say where they come from."""
    f = io.StringIO()
    w = csv.DictWriter(f, CSV_COLUMNS, lineterminator="\n")
    w.writeheader()
    for c in table.cells:
        s = c.summary
        config = c.runs[0].config if c.runs else None
        h = s.half_width if s and s.half_width is not None else None
        commits = {str(a.get("commit")) + ("+dirty" if a.get("dirty") else "") for r in c.runs for a in r.attempts}
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
                "ci95_low": f"{s.mean - h:.4f}" if h is not None else "",
                "ci95_high": f"{s.mean + h:.4f}" if h is not None else "",
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

    An optimizer a line here, whatever the paper's layout: that fits 80 columns without cutting a number.
    """
    c = table.sweep
    width = width or max(80, min(120, shutil.get_terminal_size((100, 24)).columns))
    shown = kinds(table)
    of_row: dict[str, dict[str, Line]] = {}
    for line in lines(table):
        of_row.setdefault(line.row, {})[line.kind] = line
    body = [["", *shown]]
    for row, by_kind in of_row.items():
        body += [[part] for part in textwrap.wrap(row, width, subsequent_indent="    ")]
        for i, o in enumerate(table.columns):
            texts = [by_kind[k].texts[i] for k in shown]
            body.append([f"  {table.labels.optimizer(o)}", *(f"*{t}*" if bold else f"{t} " for t, bold in texts)])
    full = [b for b in body if len(b) > 1]
    widths = [max(len(b[i]) for b in full) for i in range(len(full[0]))]
    out = [table.title, ""]
    for b in body:
        texts = [b[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(b[1:], widths[1:], strict=False))]
        out.append("  ".join(texts).rstrip())
        if b is body[0]:
            out.append("─" * (sum(widths) + 2 * len(widths) - 2))

    def say(text: str) -> None:
        out.extend(textwrap.wrap(text, width, subsequent_indent="    ", break_long_words=False))

    out.append("")
    if c.rehearsal:
        say(f"REHEARSAL, not a reproduction: {c.rehearsal}.")
        out.append("")
    for what, text in provenance.facts(c):
        say(f"{what}: {text}")
    say("*best of its row*; ± sample standard deviation over n seeds; — not finished; div. diverged")
    found = dict(sections(table))
    for heading, mark in (("Warnings", "Warning"), (FAILED, "Problem"), (MISSING, "Problem"), (POWER, "Note")):
        for text in found.get(heading, []):
            say(f"{mark}: {text}")
    return "\n".join(out) + "\n"
