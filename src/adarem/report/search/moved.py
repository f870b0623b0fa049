"""The selected settings of one optimizer moved into another, next to that one's own selected settings."""

from adarem.report import stats
from adarem.report.search.tables import Rows
from adarem.report.stats import TwoCells
from adarem.report.tables.table import Cell, Row, Table, comparable
from adarem.run.catalog import METRICS
from adarem.run.labels import readable
from adarem.run.sweep import moved_label

MOVED = "Settings of another optimizer"
RULE = (
    "Moved are the settings that a search selected for another optimizer on the same network, as far as the optimizer "
    "has them; all others are the defaults of its file. The paper says that AdaRem and AdaRem-S do well with SGDM's. "
    "Its own settings are the best of further trials, so but for noise they should be no worse. Paired t over the "
    "seeds, Holm over these tests of each metric."
)


def moved_settings(table: Table) -> Rows | None:
    """One row per network, metric and optimizer with moved settings; None of a sweep without."""
    rows: list[tuple[str, ...]] = []
    found: list[tuple[str, str, TwoCells]] = []  # metric, what is compared, and their values
    for target, source in table.sweep.spec.settings_of.items():
        names = table.labels.optimizer(target), table.labels.optimizer(source)
        for row in table.rows:
            if table.labels.settings.get(row.overrides) != moved_label(names[1]):
                continue
            moved = _cell(table, row, target)
            if moved is None or not moved.planned:
                continue
            plain = Row(row.model, "", row.metric)
            own, of_source = _cell(table, plain, target), _cell(table, plain, source)
            rows.append(
                (
                    table.labels.model(row.model),
                    METRICS[row.metric].label,
                    names[0],
                    names[1],
                    of_source.ours if of_source else "—",
                    f"{moved.ours} ({_settings(moved)})",
                    own.ours if own and own.planned else "not searched",
                    _difference(own, moved),
                )
            )
            head = f"{table.labels.model(row.model)} {METRICS[row.metric].label}, {names[0]}"
            pairs = (
                (f"{head}: its own settings − {names[1]}'s", own, moved),
                (f"{head} with {names[1]}'s settings − {names[1]}", moved, of_source),
            )
            for name, first, second in pairs:
                if first and second and comparable(first, second):
                    found.append((row.metric, name, TwoCells(first.by_seed, second.by_seed)))
    if not rows:
        return None
    header = (
        "Network", "Metric", "Optimizer", "Settings of", "That optimizer itself", "With its settings",
        "With its own selected settings", "Own − moved",
    )  # fmt: skip
    done = stats.paired_tests([cells for *_, cells in found], [metric for metric, *_ in found])
    tests = [f"{name} = {test.text}" for (_, name, _), test in zip(found, done, strict=True)]
    return Rows(MOVED, header, rows, (4, 5, 6, 7), [RULE, *tests])


def _cell(table: Table, row: Row, optimizer: str) -> Cell | None:
    return next((c for c in table.cells if c.row == row and c.optimizer == optimizer), None)


def _settings(cell: Cell) -> str:
    return readable(cell.runs[0].config.overrides) if cell.runs else "not there"


def _difference(own: Cell | None, moved: Cell) -> str:
    if own is None or own.summary is None or moved.summary is None:
        return "—"
    return f"{own.summary.mean - moved.summary.mean:+.2f}".replace("-", "−")
