"""What every part of report.html stands on: style, sorting, tables, lists. No network, no library."""

import re
from collections.abc import Iterable, Sequence
from html import escape

# Nothing may be loaded from anywhere, whatever a log or a label holds.
HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root { --ink: #1b1b1b; --soft: #666; --line: #ddd; --alarm: #b00020; }
* { box-sizing: border-box; }
html { scroll-padding-top: 3.2rem; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); margin: 0 auto; max-width: 70rem;
 padding: 0 1rem 4rem; }
h1 { font-size: 1.5rem; margin: 1rem 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
nav { position: sticky; top: 0; background: #fff; border-bottom: 1px solid var(--line); padding: .4rem 0; z-index: 2;
 overflow-x: auto; white-space: nowrap; }
nav a { margin-right: .9rem; color: #0b57a4; text-decoration: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem; }
th, td { padding: .22rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td.num, th.num { text-align: right; white-space: nowrap; }
td.short { white-space: nowrap; } td.long { min-width: 16rem; }
table.sort { min-width: 44rem; }
th button { font: inherit; font-weight: 600; background: none; border: 0; padding: 0; cursor: pointer; color: inherit; }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
.best { font-weight: 700; }
.stamp { border: 2px solid var(--alarm); color: var(--alarm); padding: .5rem .8rem; font-weight: 600; margin: .6rem 0; }
section.rehearsal { border-left: 6px solid var(--alarm); padding-left: .8rem; }
.warn { background: #fff4e0; border-left: 4px solid #e69f00; padding: .3rem .7rem; margin: .3rem 0; }
.bad { background: #fdecee; border-left: 4px solid var(--alarm); padding: .3rem .7rem; margin: .3rem 0; }
.supported { color: #00694b; font-weight: 600; } .contradicted { color: var(--alarm); font-weight: 600; }
.undecided { color: #8a5a00; font-weight: 600; } .soft { color: var(--soft); }
img { width: 100%; min-width: 42rem; max-width: 60rem; height: auto; display: block; margin: .6rem 0; }
pre { background: #f5f5f5; padding: .6rem; overflow-x: auto; font-size: .8rem; }
ul { padding-left: 1.2rem; } details { margin: .4rem 0; }
@media print { nav { display: none; } }
</style></head><body>
"""

SCRIPT = """<script>
document.querySelectorAll("table.sort").forEach(function (table) {
  table.querySelectorAll("th").forEach(function (th, column) {
    th.querySelector("button").addEventListener("click", function () {
      var up = th.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("th").forEach(function (h) { h.removeAttribute("aria-sort"); });
      th.setAttribute("aria-sort", up ? "ascending" : "descending");
      var body = table.tBodies[0];
      var key = function (row) { return row.cells[column].dataset.v || row.cells[column].textContent.trim(); };
      Array.from(body.rows).sort(function (a, b) {
        var x = key(a), y = key(b), m = parseFloat(x), n = parseFloat(y);
        if (isNaN(m) !== isNaN(n)) { return isNaN(m) ? 1 : -1; }   // cells without a number stay last
        var order = isNaN(m) ? x.localeCompare(y) : m - n;
        return up ? order : -order;
      }).forEach(function (row) { body.appendChild(row); });
    });
  });
});
</script>"""

Cell = str | tuple[str, str]  # text, or (class, text)


def attribute(name: str, value: str) -> str:
    return f' {name}="{escape(value)}"' if value else ""


def sortable(header: Sequence[str], rows: Iterable[Sequence[Cell]], numeric: Sequence[int] = ()) -> str:
    """A table whose headings sort it. Columns in ``numeric`` stand to the right and sort by their first number."""
    head = "".join(
        f'<th{attribute("class", "num" if i in numeric else "")}><button type="button">{escape(h)}</button></th>'
        for i, h in enumerate(header)
    )
    body = []
    for row in rows:
        tds = []
        for i, cell in enumerate(row):
            kind, text = cell if isinstance(cell, tuple) else ("", cell)
            value = ""
            if i in numeric:
                number = re.search(r"[-−+]?[\d,]*\.?\d+", text)
                kind = f"num {kind}".strip()
                value = number[0].replace("−", "-").replace(",", "") if number else ""
            else:  # a name stays on its line; a long text keeps a width at which it can be read on a phone
                kind = f"{kind} {'short' if len(text) <= 20 else 'long' if len(text) > 30 else ''}".strip()
            tds.append(f"<td{attribute('class', kind)}{attribute('data-v', value)}>{escape(text)}</td>")
        body.append(f"<tr>{''.join(tds)}</tr>")
    return (
        f'<div class="scroll"><table class="sort"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def bullets(lines: Iterable[str], kind: str = "") -> str:
    """A list, or a box a line where ``kind`` (warn, bad) is given."""
    if kind:
        return "".join(f'<div class="{kind}">{escape(t)}</div>' for t in lines)
    return "<ul>" + "".join(f"<li>{escape(t)}</li>" for t in lines) + "</ul>"


def paragraph(text: str, kind: str = "") -> str:
    """Text with *emphasis* as in Markdown."""
    marked = re.sub(r"[*]([^*]+)[*]", r"<em>\1</em>", escape(text))
    return f"<p{attribute('class', kind)}>{marked}</p>"


def folded(summary: str, inner: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>"
