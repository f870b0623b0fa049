"""results/report.html: everything on one page that needs no network."""

import base64
from html import escape
from pathlib import Path

import numpy as np

from adarem.report import provenance
from adarem.report.claims import judge as claims
from adarem.report.figures.figures import is_q
from adarem.report.load import Run
from adarem.report.page.parts import HEAD, SCRIPT, bullets, folded, paragraph, sortable
from adarem.report.tables import render as tables
from adarem.report.tables import times
from adarem.report.tables.settings import fairness_sheet
from adarem.report.tables.table import METRICS, Table
from adarem.run.directory import RunDir

TAIL_LINES = 15
TAIL_BYTES = 8192


def _table(t: Table) -> str:
    """The table as the paper lays it out, and cell by cell."""
    head = "".join(f'<th class="num">{escape(t.labels.optimizer(o))}</th>' for o in t.columns)
    rows, last = [], None
    for line in tables.lines(t):
        tds = "".join(f'<td class="num{" best" * bold}">{escape(text)}</td>' for text, bold in line.texts)
        name = escape(line.row) if line.row != last else ""
        rows.append(f'<tr><td class="short">{name}</td><td>{line.kind}</td>{tds}</tr>')
        last = line.row
    cells = []
    for c in t.cells:
        settings, optimizer = t.labels.overrides(c.overrides), t.labels.optimizer(c.optimizer)
        label = t.labels.model(c.model) + (f" ({settings})" if settings else "")
        difference = tables.difference_text(c, t.sweep.rehearsal is not None)
        cells.append(
            (label, METRICS[c.metric].label, optimizer, ("best" * c.best_in_paper, c.paper or "—"),
             ("best" * c.best, c.ours), difference, c.n, c.verdict, ", ".join(r.dir.path.name for r in c.runs) or "—")
        )  # fmt: skip
    header = ("Network", "Metric", "Optimizer", "Paper", "Ours", "Difference", "n", "Verdict", "Runs")
    return (
        f'<div class="scroll"><table class="paper"><thead><tr><th></th><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        + "".join(paragraph(s, "soft") for s in tables.legend(t))
        + "<h3>Cell by cell</h3>"
        + sortable(header, cells, numeric=(3, 4, 5, 6))
    )


def _figures(t: Table, results_dir: Path, names: list[str]) -> str:
    out = []
    for name in names:
        path = results_dir / "figures" / f"{name}.svg"
        if path.exists():
            data = base64.b64encode(path.read_bytes()).decode()
            out.append(f'<div class="scroll"><img alt="{escape(name)}" src="data:image/svg+xml;base64,{data}"></div>')
    return "".join(out)


def _median(values: np.ndarray) -> float | None:
    there = values[np.isfinite(values)]
    return float(np.median(there)) if len(there) else None


def _throughput(runs: list[Run]) -> str:
    """Images or tokens a second, waiting for data, and where the time went, a run a line."""
    rows = []
    for r in runs:
        rate = "images_per_s" if r.config.data.kind == "images" else "tokens_per_s"
        speed, wait, memory = (_median(r.column("train", k)) for k in (rate, "data_wait", "peak_memory_bytes"))
        spent = [r.spent(part) for part in ("train", "evaluate", "checkpoint")]
        rows.append(
            (
                r.name,
                f"{speed:,.0f}" if speed is not None else "—",
                f"{100 * wait:.1f} %" if wait is not None else "—",
                *("—" if np.isnan(seconds) else f"{seconds:,.0f}" for seconds in spent),
                f"{memory / 2**30:.2f}" if memory else "—",
                f"{r.result['gpu_hours']:,.1f}" if isinstance(r.result.get("gpu_hours"), int | float) else "—",
                str(r.result.get("device", "—")),
            )
        )
    header = (
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
    return sortable(header, rows, numeric=range(1, 8))


def _provenance(runs: list[Run]) -> str:
    rows = []
    for r in runs:
        attempts = r.attempts or [{}]
        for a in attempts:
            versions = " ".join(f"{k} {v}" for k, v in (a.get("versions") or {}).items())
            state = r.status if a is attempts[-1] else a.get("why", "ended without a word")
            hosts = " ".join(map(str, a.get("hosts") or []))
            commit = str(a.get("commit", ""))[:12] + (" (dirty)" if a.get("dirty") else "")
            told = [a.get("attempt"), state, commit, a.get("world_size"), a.get("device"), hosts, a.get("slurm_job")]
            rows.append([r.name, *(str(x or "—") for x in (*told, versions, a.get("command")))])
    header = ("Run", "Attempt", "State", "Commit", "Ranks", "Device", "Hosts", "Slurm job", "Versions", "Command")
    return sortable(header, rows, numeric=(1, 4))


def log_tail(run: RunDir) -> str:
    """The log's last lines, read from its end."""
    try:
        with open(run.log_file, "rb") as f:
            f.seek(0, 2)
            f.seek(max(0, f.tell() - TAIL_BYTES))
            return "\n".join(f.read().decode(errors="replace").splitlines()[-TAIL_LINES:])
    except OSError:
        return ""


def _times(t: Table) -> str:
    header, rows = times.rows(t)
    shown = sortable(header, rows, numeric=range(2, 7)) if rows else paragraph("No cell has finished yet.")
    return f'<div id="{escape(t.name)}-times"><h3>Time to accuracy</h3>{shown}{paragraph(times.rule(t), "soft")}</div>'


def _failures(t: Table) -> str:
    lines = provenance.problems(t.sweep)
    if not lines:
        return paragraph("None.")
    out = [bullets(lines, "bad")]
    for r in t.sweep.runs:
        if (r.status in ("failed", "diverged", "interrupted") or r.problems) and (tail := log_tail(r.dir)):
            out.append(folded(f"{r.name}: last lines of its log", f"<pre>{escape(tail)}</pre>"))
    return "".join(out)


def _section(t: Table, results_dir: Path, figures: list[str]) -> str:
    c = t.sweep
    found = dict(tables.sections(t))
    stamp = f'<div class="stamp">REHEARSAL, not a reproduction. {escape(c.rehearsal)}.</div>' if c.rehearsal else ""
    kind = ' class="rehearsal"' if c.rehearsal else ""
    header, rows, notes = fairness_sheet(t)
    drawn = _figures(t, results_dir, figures)
    parts = [
        f'<section id="{escape(t.name)}"{kind}><h2>{escape(t.title)}</h2>',
        stamp,
        bullets(f"{what}: {text}" for what, text in provenance.facts(c)),
        bullets(found.get("Warnings", []), "warn"),
        _table(t),
        f'<div id="{escape(t.name)}-figures"><h3>Figures</h3>{drawn or paragraph("None drawn.")}</div>',
        "" if is_q(t) else _times(t),
        f"<h3>{tables.OSCILLATION}</h3>{bullets(found[tables.OSCILLATION])}" if tables.OSCILLATION in found else "",
        "<h3>What the seeds could show</h3>",
        bullets([*found.get(tables.POWER, []), *tables.test_notes(t)]),
        f'<div id="{escape(t.name)}-fairness"><h3>Fairness: what each optimizer was given</h3>',
        sortable(header, rows, numeric=(1, 2, 5, 6)),
        bullets(notes),
        f'</div><div id="{escape(t.name)}-throughput"><h3>Throughput</h3>',
        _throughput(c.runs),
        f'</div><div id="{escape(t.name)}-failures"><h3>Failures</h3>',
        _failures(t),
        f'</div><div id="{escape(t.name)}-provenance"><h3>Provenance</h3>',
        _provenance(c.runs),
        "</div></section>",
    ]
    return "".join(parts)


def _claims(judged: list[claims.Judged]) -> str:
    rows = [
        (j.claim.claim, j.claim.where, (j.status.replace(" ", "-"), j.status), claims.in_rehearsal(j)) for j in judged
    ]
    evidence = "".join(folded(f"{j.claim.id}: {j.status}", bullets([*j.evidence, _runs(j)])) for j in judged if j.runs)
    return (
        f'<section id="claims"><h2>The paper\'s claims</h2><p>{len(judged)} claims: {claims.summary(judged)}. '
        "Only reproductions are evidence; what the same rule makes of rehearsals stands in brackets.</p>"
        + sortable(("Claim", "Where in the paper", "Status", "Rehearsed"), rows)
        + paragraph(claims.RULE, "soft")
        + (f"<h3>Evidence</h3>{evidence}" if evidence else "")
        + "</section>"
    )


def _runs(j: claims.Judged) -> str:
    return f"Runs: {', '.join(j.runs)}"


def render(
    sections: list[tuple[Table, list[str]]],
    judged: list[claims.Judged],
    elsewhere: list[str],
    unreadable: list[str],
    results_dir: Path,
) -> str:
    """The page.

    Args:
        sections: tables with the names of their figures in ``results_dir/figures``.
        judged: the claim ledger.
        elsewhere: tables in ``results_dir`` whose runs are not on this machine.
        unreadable: a line for each sweep that is here and cannot be read.
    """
    rehearsed = [t for t, _ in sections if t.sweep.rehearsal]
    title = ("REHEARSAL: " if len(rehearsed) == len(sections) else "") + "AdaRem, results"
    links = "".join(f'<a href="#{escape(t.name)}">{escape(t.heading)}</a>' for t, _ in sections)
    out = [HEAD.replace("{title}", escape(title))]
    out.append(f"<nav>{links}<a href='#claims'>Claims</a></nav><h1>{escape(title)}</h1>")
    if elsewhere:
        out.append(bullets([f"{name}: its runs are not here; see tables/{name}.md" for name in elsewhere], "warn"))
    out.append(bullets(unreadable, "bad"))
    out += [_section(t, results_dir, figures) for t, figures in sections]
    return "".join([*out, _claims(judged), SCRIPT, "</body></html>\n"])
