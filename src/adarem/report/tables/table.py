"""One frame for every output: the cells of a table, each with its runs, the paper's value and the statistics."""

import csv
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from adarem.report import stats as statistics
from adarem.report.labels import Labels, labels
from adarem.report.load import Run, Sweep, fingerprints
from adarem.report.paper import Stated, read_stated
from adarem.report.stats import Comparison, Summary, TwoSamples
from adarem.resources import paper_file
from adarem.run import labels as names
from adarem.run.errors import UserError


@dataclass(frozen=True)
class Metric:
    label: str
    lower_is_better: bool
    unit: str = ""  # of differences, where they have one


METRICS = {
    "top1": Metric("Top-1", False, "points"),
    "top5": Metric("Top-5", False, "points"),
    "perplexity": Metric("Perplexity", True),
    "val_perplexity": Metric("Validation perplexity", True),
    "q_mean": Metric("Q", True),
}


@dataclass(frozen=True)
class Paper:
    """The paper's numbers for one table, as printed there, and what it states of settings."""

    stated: Stated
    source: str = ""
    values: Mapping[tuple[str, str, str], str] = field(default_factory=dict)  # (model, optimizer, metric)


def read_paper(name: str | None, results_dir: Path) -> Paper:
    """The paper's numbers of one table, none when ``name`` is None, and its settings.

    Raises:
        UserError: a file is not there, or settings.yaml holds what it should not.
    """
    stated = read_stated(paper_file("settings.yaml", results_dir))
    if name is None:
        return Paper(stated)
    with open(paper_file(name, results_dir), newline="") as f:
        rows = list(csv.DictReader(f))
    values = {(r["model"], r["optimizer"], r["metric"]): r["value"] for r in rows}
    return Paper(stated, rows[0]["source"], values)


@dataclass
class Cell:
    """One model under one optimizer, by one metric, over all seeds."""

    model: str
    optimizer: str
    overrides: str  # settings off the grid's axes
    metric: str
    paper: str  # as printed in the paper; "" where it has none
    runs: list[Run]
    planned: int
    data: str = ""  # letter of the data that it was trained on, where a table mixes several
    mixed: bool = False  # its own seeds saw different data
    best: bool = False
    best_in_paper: bool = False
    verdict: str = ""

    @property
    def values(self) -> list[float]:
        """The final figure of each finished seed."""
        return [v for r in self.runs if (v := r.value(self.metric)) is not None]

    @property
    def summary(self) -> Summary | None:
        return statistics.summarize(self.values) if self.values and not self.mixed else None

    @property
    def difference(self) -> float | None:
        """Ours − the paper's, in the metric's unit."""
        return self.summary.mean - float(self.paper) if self.summary and self.paper else None

    @property
    def ours(self) -> str:
        """The cell's text: a figure, or the state of the run that got furthest."""
        if self.mixed:
            return "mixed data"
        states = [r.state for r in self.runs if r.value(self.metric) is None]
        if self.summary:
            lost = [s for s in ("div.", "failed") if s in states]
            text = self.summary.text() + (f" [{self.data}]" if self.data else "")
            return f"{text} ({', '.join(f'{states.count(s)} {s}' for s in lost)})" if lost else text
        for start in ("div.", "failed", "ep", "stopped"):
            hit = [s for s in states if s.startswith(start)]
            if hit:
                return hit[0]
        return "—"

    @property
    def n(self) -> str:
        """Finished seeds, ``1 of 3`` while some are missing."""
        return str(len(self.values)) if len(self.values) == self.planned else f"{len(self.values)} of {self.planned}"


@dataclass
class Table:
    """Everything that a table's renderers need."""

    sweep: Sweep
    paper: Paper
    cells: list[Cell]
    labels: Labels
    rows: list[tuple[str, str, str]]  # (model, variant, metric), in the paper's order
    columns: list[str]  # optimizers

    @property
    def name(self) -> str:
        return str(self.sweep.grid.get("name", self.sweep.name))

    @property
    def heading(self) -> str:
        """What the grid calls itself, else ``Table 2`` as the paper has it, else its name in words: ``Figure 2``."""
        words = names.heading(self.name)
        return str(self.sweep.grid.get("heading") or self.paper.source or words)

    @property
    def title(self) -> str:
        text = f"{self.heading}. {self.sweep.grid.get('title', '')}".rstrip(". ")
        return f"REHEARSAL of {text}" if self.sweep.rehearsal else text

    def cell(self, row: tuple[str, str, str], optimizer: str) -> Cell:
        return next(c for c in self.cells if (c.model, c.overrides, c.metric) == row and c.optimizer == optimizer)

    def row_label(self, row: tuple[str, str, str]) -> str:
        model, variant, metric = row
        text = f"{self.labels.model(model)} {METRICS[metric].label}"
        own = self.labels.overrides(variant)
        return f"{text} ({own})" if own else text

    @cached_property
    def comparisons(self) -> list[tuple[str, str, str, Comparison]]:
        """Welch's t of AdaRem or AdaRem-S (else the first column) against every other cell of its row, and of the
        settings that a grid varies against its own.

        (row, one side, the other side, test), as printed; Holm's correction runs over all of them. Cells with one
        seed or of other data are left out.
        """
        found, pairs = [], []

        def able(cells: Iterable[Cell]) -> list[Cell]:
            return [c for c in cells if len(c.values) >= 2 and not c.mixed]

        ours = [o for o in self.columns if o.startswith("adarem")] or self.columns[:1]
        for row in self.rows:
            of_row = able(self.cell(row, o) for o in self.columns)
            for a in (c for c in of_row if c.optimizer in ours):
                for b in of_row:
                    twice = b.optimizer in ours and self.columns.index(b.optimizer) <= self.columns.index(a.optimizer)
                    if a.data == b.data and not twice:
                        found.append((self.row_label(row), *map(self.labels.optimizer, (a.optimizer, b.optimizer))))
                        pairs.append(TwoSamples(a.values, b.values))
        varied = [v for v in self.sweep.grid.get("labels", {}).get("settings", {}) if v]
        for a, b in itertools.product(able(self.cells), able(self.cells)):
            alike = (a.model, a.optimizer, a.metric, a.data) == (b.model, b.optimizer, b.metric, b.data)
            if alike and a.overrides in varied and b.overrides == "":
                row = f"{self.labels.model(a.model)} {METRICS[a.metric].label}"
                found.append((row, *(self.labels.cell(c.optimizer, c.overrides) for c in (a, b))))
                pairs.append(TwoSamples(a.values, b.values))
        return [(*f, t) for f, t in zip(found, statistics.welch(pairs), strict=True)]

    @property
    def complete(self) -> bool:
        return all(len(c.values) == c.planned for c in self.cells)


def _ordered(first: list[str], then: set[str]) -> list[str]:
    return [*first, *sorted(then - set(first))]


def _mark_data(cells: list[Cell]) -> None:
    """Letters for the data sets of a table that mixes several, and the cells whose own seeds do."""
    seen = sorted({fingerprints(r) for c in cells for r in c.runs if r.status == "done"})
    for c in cells:
        own = {fingerprints(r) for r in c.runs if r.status == "done"}
        c.mixed = len(own) > 1
        if len(seen) > 1 and len(own) == 1:
            c.data = f"data {chr(ord('A') + seen.index(own.pop()) % 26)}"


def _mark_best(cells: list[Cell]) -> None:
    """Bold as the paper's: the best of a row, ties included; ours only among two or more comparable cells."""
    lower = METRICS[cells[0].metric].lower_is_better
    pick = min if lower else max
    printed = [float(c.paper) for c in cells if c.paper]
    shown = [round(c.summary.mean, 2) for c in cells if c.summary]
    comparable = len(shown) > 1 and not any(c.data or c.mixed for c in cells)
    for c in cells:
        c.best_in_paper = bool(c.paper) and float(c.paper) == pick(printed)
        c.best = comparable and c.summary is not None and round(c.summary.mean, 2) == pick(shown)


def build(sweep: Sweep, paper: Paper) -> Table:
    """The table of a sweep, whatever is finished of it.

    Raises:
        UserError: grid.yaml lacks axes or metrics, or names a metric that no table knows.
    """
    grid: dict[str, Any] = sweep.grid
    axes = grid.get("axes")
    if not isinstance(axes, dict) or not {"model", "optimizer"} <= axes.keys() or not grid.get("metrics"):
        raise UserError(f"{sweep.folder / 'grid.yaml'}: needs axes.model, axes.optimizer, metrics; plan it again")
    if unknown := [m for m in grid["metrics"] if m not in METRICS]:
        raise UserError(f"{sweep.folder / 'grid.yaml'}: metrics: {unknown[0]}: valid: {', '.join(METRICS)}")
    runs = sweep.runs
    models = _ordered(list(axes["model"]), {r.config.model.name for r in runs})
    optimizers = _ordered(list(axes["optimizer"]), {r.config.optimizer.name for r in runs})
    printed = labels(sweep)
    there = {r.overrides for r in runs} or {""}
    variants = [v for v in dict.fromkeys(["", *printed.settings]) if v in there]
    seeds = len(grid.get("seeds") or [0])
    by_cell: dict[tuple[str, str, str], list[Run]] = {}
    for r in runs:
        by_cell.setdefault((r.config.model.name, r.overrides, r.config.optimizer.name), []).append(r)
    cells, rows = [], []
    for model in models:
        for variant in variants:
            if variant and not any((model, variant, o) in by_cell for o in optimizers):
                continue
            for metric in grid["metrics"]:
                rows.append((model, variant, metric))
                for o in optimizers:
                    own = by_cell.get((model, variant, o), [])
                    value = paper.values.get((model, o, metric), "")
                    cells.append(Cell(model, o, variant, metric, value, own, max(len(own), seeds)))
    table = Table(sweep, paper, cells, printed, rows, optimizers)
    _mark_data(cells)
    for row in rows:
        _mark_best([table.cell(row, o) for o in optimizers])
    for c in cells:
        c.verdict = _verdict(c, sweep.rehearsal is not None)
    return table


def _verdict(c: Cell, rehearsal: bool) -> str:
    """None, "—", on a rehearsal and on settings off the grid's own, which the paper's value is not of."""
    if rehearsal or not c.paper or c.overrides:
        return "—"
    if c.mixed:
        return "mixed data"
    diverged = sum(r.status == "diverged" for r in c.runs)
    lower = METRICS[c.metric].lower_is_better
    return statistics.verdict(c.values, float(c.paper), planned=c.planned, diverged=diverged, lower_is_better=lower)
