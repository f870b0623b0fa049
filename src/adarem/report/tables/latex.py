"""A Table as a LaTeX float with booktabs rules."""

import re

from adarem.report import provenance
from adarem.report.tables.render import lines
from adarem.report.tables.table import Table
from adarem.run.streams import one_line

_TEX = {"&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
_TEX |= {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "—": "---", "−": "$-$", "±": r"$\pm$"}
_TEX |= {"α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "ε": r"$\epsilon$", "λ": r"$\lambda$"}
# A row that begins with one of these would go on with the \\ before it.
_TEX |= {"[": "{[}", "]": "{]}", "*": "{*}", "¦": "/"}


def _tex(text: str) -> str:
    text = one_line(text)
    return re.sub("|".join(map(re.escape, _TEX)), lambda m: _TEX[m[0]], text)


def latex(table: Table) -> str:
    """A ``table`` float for a document that loads booktabs."""
    c = table.sweep
    caption = _tex(f"{table.title}. " + "; ".join(f"{k}: {v}" for k, v in provenance.facts(c)[:4]) + ".")
    if c.rehearsal:
        caption = rf"\textbf{{REHEARSAL, not a reproduction.}} {_tex(c.rehearsal)}. " + caption
    out = [
        "% Written by `adarem report`. Needs \\usepackage{booktabs} and \\usepackage{graphicx}.",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{re.sub('[^A-Za-z0-9_.:+-]', '-', table.sweep.name)}}}",
        r"\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{ll{'r' * len(table.columns)}}}",
        r"\toprule",
        " & & " + " & ".join(_tex(table.labels.optimizer(o)) for o in table.columns) + r" \\",
    ]
    last = None
    for line in lines(table):
        texts = [rf"\textbf{{{_tex(t)}}}" if bold else _tex(t) for t, bold in line.texts]
        if line.row != last:
            out.append(r"\midrule")
        out.append(f"{_tex(line.row) if line.row != last else ''} & {line.kind} & " + " & ".join(texts) + r" \\")
        last = line.row
    out += [r"\bottomrule", r"\end{tabular}%", "}", r"\end{table}"]
    return "\n".join(out) + "\n"
