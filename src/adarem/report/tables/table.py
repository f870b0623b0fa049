"""One table for every output: its cells, each with its runs, the paper's value and the statistics."""

import csv
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from adarem.report import provenance
from adarem.report import stats as statistics
from adarem.report.labels import Labels, labels
from adarem.report.load import Run, Sweep, fingerprints
from adarem.report.search.trials import Search, search_of
from adarem.report.stats import Comparison, Summary, TwoCells
from adarem.resources import paper_file
from adarem.run.catalog import METRICS, metric_named
from adarem.run.errors import UserError
from adarem.run.stated import Stated, read_stated
from adarem.run.sweep import SweepSpec, run_name


class PaperKey(NamedTuple):
    """Which of the paper's numbers one is."""

    model: str
    optimizer: str
    metric: str


@dataclass(frozen=True)
class Paper:
    """The paper's numbers for one table, as printed there, and what it states of settings."""

    stated: Stated
    values: Mapping[PaperKey, str] = field(default_factory=dict)


def read_paper(spec: SweepSpec, results_dir: Path, stated: Stated | None = None) -> Paper:
    """The paper's numbers of a grid's table, none where it prints none, and the settings that it states.

    Args:
        spec: the grid.
        results_dir: its folder ``paper/``, else adarem's own, has the files.
        stated: of settings.yaml, where it has been read before.

    Raises:
        UserError: a file is not there, or it holds what it should not.
    """
    stated = stated or read_stated(paper_file("settings.yaml", results_dir))
    if spec.paper is None or spec.paper.values is None:
        return Paper(stated)
    path = paper_file(spec.paper.values, results_dir)
    with open(path, newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    try:
        return Paper(stated, {PaperKey(r["model"], r["optimizer"], r["metric"]): r["value"] for r in rows})
    except KeyError as e:
        raise UserError(f"{path}: {e.args[0]}: no such column; restore it from the repository") from None


class Row(NamedTuple):
    """One row of a table: a network with settings off the grid's axes, by one metric."""

    model: str
    overrides: str
    metric: str


@dataclass
class Cell:
    """One model under one optimizer, by one metric, over all seeds; of a search those of its best trial so far."""

    model: str
    optimizer: str
    overrides: str  # settings off the grid's axes
    metric: str
    paper: str  # as printed in the paper; "" where it has none
    runs: Sequence[Run]
    planned: int
    data: str = ""  # letter of the data that it was trained on, where a table mixes several
    mixed: bool = False  # its own seeds saw different data
    best: bool = False
    best_in_paper: bool = False
    verdict: str = ""
    trials: str = ""  # of a search: how many are finished

    @property
    def row(self) -> Row:
        return Row(self.model, self.overrides, self.metric)

    @property
    def values(self) -> list[float]:
        """The final value of each finished seed, in order of seed."""
        return list(self.by_seed.values())

    @property
    def by_seed(self) -> dict[int, float]:
        ordered = sorted(self.runs, key=lambda r: r.config.seed)
        return {r.config.seed: v for r in ordered if (v := r.value(self.metric)) is not None}

    @property
    def summary(self) -> Summary | None:
        return statistics.summarize(self.values) if self.values and not self.mixed else None

    @property
    def difference(self) -> float | None:
        """Ours − the paper's, in the metric's unit."""
        return self.summary.mean - float(self.paper) if self.summary and self.paper else None

    @property
    def ours(self) -> str:
        """The cell's text: a value, or the state of the run that got furthest."""
        if self.mixed:
            return "mixed data"
        states = [r.state for r in self.runs if r.value(self.metric) is None]
        if self.summary:
            lost = [s for s in ("div.", "failed") if s in states]
            text = self.summary.text() + (f" [{self.data}]" if self.data else "")
            return f"{text} ({', '.join(f'{states.count(s)} {s}' for s in lost)})" if lost else text
        for start in ("div.", "failed", "ep", "stopped", "paused"):
            hit = [s for s in states if s.startswith(start)]
            if hit:
                return hit[0]
        return "—"

    @property
    def n(self) -> str:
        """Finished seeds, ``1 of 3`` while some are missing, ``—`` where none was planned."""
        if not self.planned:
            return "—"
        return str(len(self.values)) if len(self.values) == self.planned else f"{len(self.values)} of {self.planned}"


def comparable(a: Cell, b: Cell) -> bool:
    """Whether two cells of a metric that decides share two seeds or more, and data."""
    return (
        METRICS[a.metric].decides
        and not (a.mixed or b.mixed)
        and a.data == b.data
        and len(statistics.shared_seeds([a.by_seed, b.by_seed])) > 1
    )


@dataclass(frozen=True)
class ComparedCells:
    """A test of two cells, under the names that are printed."""

    row: str
    first: str
    second: str
    metric: str
    cells: TwoCells
    test: Comparison
    differing: Sequence[str]  # what else their runs differ in, in words


@dataclass
class Table:
    """Everything that a table's renderers need."""

    sweep: Sweep
    paper: Paper
    cells: Sequence[Cell]
    labels: Labels
    rows: Sequence[Row]  # in the paper's order
    columns: Sequence[str]  # optimizers
    search: Search | None = None  # of a search; its rows are then the networks, whatever settings were tried
    selected: Sequence[str] = ()  # of a finished search: what it selected, in words

    @property
    def name(self) -> str:
        """Of its grid."""
        return self.sweep.spec.name

    @property
    def heading(self) -> str:
        """``Table 2``."""
        return self.sweep.spec.printed_heading

    @property
    def title(self) -> str:
        text = self.sweep.spec.printed_title
        kind = self.sweep.standing.kind
        return f"{kind.upper()} of {text}" if kind in ("rehearsal", "variation") else text

    @property
    def listed(self) -> list[Cell]:
        """The cells without those that nobody planned, of a search and of settings off the grid's own axes."""
        return [c for c in self.cells if c.planned or not c.overrides and self.search is None]

    def cell(self, row: Row, optimizer: str) -> Cell:
        return next(c for c in self.cells if c.row == row and c.optimizer == optimizer)

    def row_label(self, row: Row) -> str:
        text = f"{self.labels.model(row.model)} {METRICS[row.metric].label}"
        own = self.labels.overrides(row.overrides)
        return f"{text} ({own})" if own else text

    @property
    def compared(self) -> list[str]:
        """The optimizers that the comparisons are about: those that the grid names, as far as they are columns.

        Where it names none: AdaRem and AdaRem-S, else the first column; none in a study.
        """
        spec = self.sweep.spec
        if named := [o for o in self.columns if o in spec.compare]:
            return named
        if spec.paper is None:
            return []
        return [o for o in self.columns if o.startswith("adarem")] or list(self.columns[:1])

    def _pairs(self) -> list[tuple[str, str]]:
        """Each compared optimizer and another one; in a study that names none, each other column and the first."""
        ours, columns = self.compared, list(self.columns)
        if not ours:
            return [(other, columns[0]) for other in columns[1:]]
        return [(a, b) for a in ours for b in columns if b not in ours or columns.index(b) > columns.index(a)]

    @cached_property
    def comparisons(self) -> Sequence[ComparedCells]:
        """Paired t of the ``compared`` optimizers against the others of their row, and of the settings that a grid
        varies against its own.

        Holm's correction runs over those of one metric. Cells that share fewer than two seeds or are of other data are
        left out. None of a search, whose cells are the best of many.
        """
        if self.search is not None:
            return []
        found: list[tuple[str, Cell, Cell]] = []
        for row in self.rows:
            of_row = {o: self.cell(row, o) for o in self.columns}
            pairs = [(of_row[first], of_row[second]) for first, second in self._pairs()]
            found += [(self.row_label(row), a, b) for a, b in pairs if comparable(a, b)]
        varied = [label for label in self.sweep.spec.labels.overrides if label]
        for a, b in itertools.product(self.cells, self.cells):
            alike = (a.model, a.optimizer, a.metric) == (b.model, b.optimizer, b.metric)
            if alike and a.overrides in varied and b.overrides == "" and comparable(a, b):
                found.append((f"{self.labels.model(a.model)} {METRICS[a.metric].label}", a, b))
        cells = [TwoCells(a.by_seed, b.by_seed) for _, a, b in found]
        tests = statistics.paired_tests(cells, [a.metric for _, a, _ in found])
        by_cell = self.sweep.spec.settings_from is not None
        compared = []
        for (row_label, a, b), values, test in zip(found, cells, tests, strict=True):
            names = [self.labels.optimizer(c.optimizer) for c in (a, b)]
            if a.overrides != b.overrides:
                names = [self.labels.cell(c.optimizer, c.overrides) for c in (a, b)]
            differing = provenance.differing([*a.runs, *b.runs], by_cell=by_cell)
            compared.append(ComparedCells(row_label, names[0], names[1], a.metric, values, test, differing))
        return compared

    @property
    def complete(self) -> bool:
        return all(len(c.values) == c.planned for c in self.cells)


def _ordered(first: Iterable[str], then: set[str]) -> list[str]:
    head = list(first)
    return [*head, *sorted(then - set(head))]


def _mark_data(cells: Sequence[Cell]) -> None:
    """Letters for the data sets of a table that mixes several, and the cells whose own seeds do."""
    seen = sorted({fingerprints(r) for c in cells for r in c.runs if r.status == "done"})
    for c in cells:
        own = {fingerprints(r) for r in c.runs if r.status == "done"}
        c.mixed = len(own) > 1
        if len(seen) > 1 and len(own) == 1:
            c.data = f"data {chr(ord('A') + seen.index(own.pop()) % 26)}"


def _mark_best(cells: Sequence[Cell]) -> None:
    """Bold as the paper's: the best of a row, ties included; ours only among two or more comparable cells."""
    pick = min if METRICS[cells[0].metric].lower_is_better else max
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
    spec, runs = sweep.spec, sweep.runs
    if not {"model", "optimizer"} <= spec.axes.keys() or not spec.metrics:
        raise UserError(f"{sweep.folder / 'grid.yaml'}: needs axes.model, axes.optimizer, metrics; plan it again")
    for name in spec.metrics:
        try:
            metric_named(name)
        except UserError as e:
            raise UserError(f"{sweep.folder / 'grid.yaml'}: metrics: {e}, and plan the grid again") from None
    if (search := search_of(sweep)) is not None:
        return _of_search(sweep, paper, search)
    models = _ordered(spec.models, {r.config.model.name for r in runs})
    optimizers = _ordered(spec.optimizers, {r.config.optimizer.name for r in runs})
    printed = labels(sweep)
    held = {r.overrides for r in runs} or {""}
    overrides = [text for text in dict.fromkeys(["", *printed.settings]) if text in held]
    by_cell: dict[tuple[str, str, str], list[Run]] = {}
    for r in runs:
        by_cell.setdefault((r.config.model.name, r.overrides, r.config.optimizer.name), []).append(r)
    cells, rows = [], []
    for model in models:
        for text in overrides:
            if text and not any((model, text, o) in by_cell for o in optimizers):
                continue
            for metric in spec.metrics:
                rows.append(Row(model, text, metric))
                for o in optimizers:
                    own = by_cell.get((model, text, o), [])
                    value = paper.values.get(PaperKey(model, o, metric), "")
                    cells.append(Cell(model, o, text, metric, value, own, _planned(spec, model, o, text, own)))
    table = Table(sweep, paper, cells, printed, rows, optimizers)
    _mark_data(cells)
    for row in rows:
        _mark_best([table.cell(row, o) for o in optimizers])
    for c in cells:
        c.verdict = _verdict(c, sweep)
    return table


def _of_search(sweep: Sweep, paper: Paper, search: Search) -> Table:
    """One row per network and metric: of each optimizer its best trial so far, by the search's first metric."""
    optimizers = _ordered(sweep.spec.optimizers, {part.optimizer for part in search.parts})
    cells, rows = [], []
    for model in search.models:
        for metric in sweep.spec.metrics:
            rows.append(Row(model, "", metric))
            for o in optimizers:
                part = search.part(model, o)
                runs = [] if part is None else (part.best or part.trials[0]).runs
                trials = "—" if part is None else part.counts
                cells.append(Cell(model, o, "", metric, "", runs, len(runs), trials=trials, verdict="—"))
    table = Table(sweep, paper, cells, labels(sweep), rows, optimizers, search)
    _mark_data(cells)
    for row in rows:
        _mark_best([table.cell(row, o) for o in optimizers])
    return table


def _planned(spec: SweepSpec, model: str, optimizer: str, overrides: str, own: Sequence[Run]) -> int:
    """How many seeds a cell should have: the grid's, where it was planned or has a run. Claims count the same."""
    if own or not spec.runs:  # a grid.yaml of before names no runs: every combination
        return len(spec.seeds)
    start = re.escape(run_name(model, optimizer, 0, {}).removesuffix("s0"))
    is_planned = not overrides and any(re.fullmatch(start + r"s\d+", name) for name in spec.runs)
    return len(spec.seeds) if is_planned else 0


def _verdict(c: Cell, sweep: Sweep) -> str:
    """``—`` where the paper's value is not of these settings: off a reproduction, and off the grid's own settings."""
    varied = c.overrides or any(r.standing.kind == "variation" for r in c.runs)
    if sweep.standing.kind != "reproduction" or not c.paper or varied:
        return "—"
    if c.mixed:
        return "mixed data"
    diverged = sum(r.status == "diverged" for r in c.runs)
    lower = METRICS[c.metric].lower_is_better
    return statistics.verdict(c.values, float(c.paper), planned=c.planned, diverged=diverged, lower_is_better=lower)
