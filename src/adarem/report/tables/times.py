"""Time to accuracy: when each cell first reached a target, in epochs, wall time and device time."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from adarem.report import provenance
from adarem.report.load import Run
from adarem.report.run import FloatArray
from adarem.report.stats import MARGIN
from adarem.report.tables.table import Cell, PaperKey, Table
from adarem.run.catalog import METRICS

SHARES = (0.90, 0.95, 0.99)
RULE = (
    "Reached: the first evaluated epoch whose validation figure is at the target or beyond it; an epoch later that "
    "falls back does not count against it. Wall time is that of training, evaluation and checkpoints up to that "
    "epoch's end, without start-up, what an interrupted attempt lost and the checkpoint written when it was stopped; "
    "device time is wall time × the ranks of each epoch. Wall time is also of the machine and of what else ran there: "
    "it compares only runs that had like machines to themselves. Where the record of an epoch is lost, the times from "
    "there on are unknown (—), and so is the first epoch after a lost evaluation. "
    "Bold: the fewest epochs to a target on a network, among the cells where every seed of the grid reached it: a cell "
    "of which one did not, or has not yet, has no time to win with, whatever the others took. "
    "Over several seeds: the mean of those finished that reached it, whose number is next to it, with that of the "
    "seeds whose lost evaluations may hide that they did (unknown); diverged seeds are left out and counted apart. "
)
OF_PAPER = (
    "Targets: the paper's final top-1 of SGDM on that network, which an exact reproduction, whose seeds scatter around "
    f"it, reaches about half the time; and {MARGIN:g} points below it, which it should always reach. "
)
OF_BEST = (
    "Targets: fixed shares of the final validation figure of the best cell of that network here (90, 95 and 99 %; "
    "where lower is better, that figure divided by the share), on the same data, so they say nothing of other data. "
)


@dataclass(frozen=True)
class Target:
    text: str  # "70.67 (SGDM in the paper)"
    value: float


@dataclass(frozen=True)
class Reached:
    """One cell and one target; means over the seeds that reached it, None where there are none or they are unknown."""

    model: str
    optimizer: str
    overrides: str
    target: Target
    seeds: int  # that finished
    reached: int
    unknown: int  # that finished and may have reached it at an evaluation whose record is lost
    diverged: int  # seeds, apart from those
    planned: int  # seeds of the grid
    state: str  # where none did: "not reached", "unknown", or that of the run that got furthest
    epochs: float | None
    wall_hours: float | None
    device_hours: float | None

    @property
    def by_all(self) -> bool:
        """Whether every seed of the grid reached it."""
        return 0 < self.planned <= self.reached


def device(runs: Sequence[Run]) -> str:
    """What device time counts."""
    return "GPU" if any(r.config.cluster.device == "cuda" for r in runs) else "CPU rank"


def unit(runs: Sequence[Run]) -> tuple[str, float]:
    """Hours, or minutes where all of it is short; and how many of them an hour has."""
    longest = max((np.nanmax(r.hours[:, 1], initial=0.0) for r in runs), default=0.0)
    return ("hours", 1.0) if longest >= 2 else ("minutes", 60.0)


def metric(table: Table) -> str:
    """The figure that is followed over the epochs: top-1, of held-out images where those are all, or the perplexity."""
    if table.sweep.runs and table.sweep.runs[0].config.data.kind == "text":
        return "val_perplexity"
    first = table.sweep.spec.metrics[0]
    return "holdout_top1" if first.startswith("holdout_") else "top1"


def _curve(run: Run, name: str) -> FloatArray:
    recorded = METRICS[name].curve
    assert recorded is not None
    return run.curve(*recorded)


def of_paper(table: Table) -> bool:
    """Whether the targets are the paper's: a reproduction of a table that has SGDM's top-1."""
    stated = any((key.optimizer, key.metric) == ("sgdm", "top1") for key in table.paper.values)
    return table.sweep.rehearsal is None and stated and metric(table) == "top1"


def _cells(table: Table) -> list[Cell]:
    """Every cell once, whatever the table's metrics: its own, and those with settings off the grid that there are."""
    first = table.sweep.spec.metrics[0]
    return [c for c in table.cells if c.metric == first and (c.runs or not c.overrides)]


def targets(table: Table, model: str, data: str = "") -> list[Target]:
    """What has to be reached on a network, by cells of one letter where the table mixes data.

    Empty while no cell of it has finished and the paper says nothing.
    """
    mark = f" [{data}]" if data else ""
    if of_paper(table):
        stated = table.paper.values.get(PaperKey(model, "sgdm", "top1"))
        if not stated:
            return []
        below = float(stated) - MARGIN
        return [
            Target(f"{stated} (SGDM in the paper, reached half the time){mark}", float(stated)),
            Target(f"{below:.2f} ({MARGIN:g} below it){mark}", below),
        ]
    followed = metric(table)
    lower = METRICS[followed].lower_is_better
    finals: list[float] = []
    for c in _cells(table):
        if (c.model, c.data) == (model, data) and not c.mixed:
            values = [v for r in c.runs if (v := r.value(followed)) is not None]
            finals += [float(np.mean(values))] if values else []
    if not finals:
        return []
    best = (min if lower else max)(finals)
    found = []
    for share in SHARES:
        value = best / share if lower else best * share
        found.append(Target(f"{value:.2f} ({share:.0%} of the best cell){mark}", value))
    return found


class First(NamedTuple):
    """When a run first reached a target, each NaN where a lost record hides it."""

    epoch: float
    wall_hours: float
    device_hours: float


def _first(run: Run, followed: str, target: float) -> First | Literal["not reached", "unknown"]:
    curve = _curve(run, followed)
    unseen = np.setdiff1d(run.due[run.config.data.evaluated_on], curve[:, 0])
    reached_at = curve[:, 1] <= target if METRICS[followed].lower_is_better else curve[:, 1] >= target
    if not reached_at.any():
        return "unknown" if len(unseen) else "not reached"
    epoch = float(curve[reached_at.argmax(), 0])
    _, wall, devices = run.hours[int(epoch) - 1].tolist()
    return First(math.nan if (unseen < epoch).any() else epoch, wall, devices)


def _reached(c: Cell, followed: str, target: Target) -> Reached:
    done = [] if c.mixed else [r for r in c.runs if r.status == "done"]
    firsts = [_first(r, followed, target.value) for r in done]
    hit, unknown = [f for f in firsts if isinstance(f, First)], firsts.count("unknown")
    state = "unknown" if unknown else "not reached" if done else c.ours
    means = np.mean(hit, axis=0).tolist() if hit else [math.nan] * 3
    epochs, wall, devices = (None if math.isnan(x) else x for x in means)
    diverged = sum(r.status == "diverged" for r in c.runs)
    return Reached(
        c.model, c.optimizer, c.overrides, target, len(done), len(hit), unknown, diverged, c.planned, state,
        epochs, wall, devices,
    )  # fmt: skip


def reached(table: Table) -> list[Reached]:
    """Every cell and target, in the table's order; a cell of no letter is listed under each of them, by its state."""
    cells = _cells(table)
    found: list[Reached] = []
    for model in dict.fromkeys(c.model for c in cells):
        own = [c for c in cells if c.model == model]
        for data in sorted({c.data for c in own} - {""}) or [""]:
            for target in targets(table, model, data):
                found += [_reached(c, metric(table), target) for c in own if c.data in (data, "")]
    return found


def fastest(found: Sequence[Reached]) -> list[Reached]:
    """Of each network and target the cells that took the fewest epochs, among two or more that all seeds reached."""
    groups: dict[tuple[str, Target], list[Reached]] = {}
    for r in found:
        groups.setdefault((r.model, r.target), []).append(r)
    best = []
    for of_target in groups.values():
        able = [(r.epochs, r) for r in of_target if r.by_all and r.epochs is not None]
        least = min((epochs for epochs, _ in able), default=None)
        best += [r for epochs, r in able if epochs == least and len(of_target) > 1]
    return best


class TimesTable(NamedTuple):
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    bold: Sequence[bool]  # of each row, its epochs


def rows(table: Table) -> TimesTable:
    """The table as it is printed."""
    word, factor = unit(table.sweep.runs)
    header = ["Network", "Optimizer", f"{METRICS[metric(table)].label} to reach", "Epochs"]
    header += [f"Wall time ({word})", f"{device(table.sweep.runs)} {word}", "Seeds"]

    def number(value: float | None, text: str) -> str:
        return "—" if value is None else format(value, text)

    found = reached(table)
    best = fastest(found)
    printed = []
    for r in found:
        cell = [table.labels.model(r.model), table.labels.cell(r.optimizer, r.overrides), r.target.text]
        cell += [number(r.epochs, ".4g") if r.reached else r.state]
        cell += [number(h and h * factor, ".2f") for h in (r.wall_hours, r.device_hours)]
        apart = [f"{n} {word}" for n, word in ((r.unknown, "unknown"), (r.diverged, "div.")) if n]
        printed.append([*cell, f"{r.reached} of {r.planned}" + (f" ({', '.join(apart)})" if apart else "")])
    return TimesTable(header, printed, [r in best for r in found])


def rule(table: Table) -> str:
    return (OF_PAPER if of_paper(table) else OF_BEST) + RULE.strip()


def markdown(table: Table) -> str:
    """The table as a page of its own."""
    header, printed, bold = rows(table)
    stamp = table.sweep.rehearsal
    out = [f"# {'REHEARSAL of ' if stamp else ''}Time to accuracy: {table.sweep.spec.title or table.name}", ""]
    if stamp:
        out += [f"> **REHEARSAL, not a reproduction.** {stamp}.", ""]
    if printed:
        out += ["| " + " | ".join(header) + " |", "| --- | --- | --- |" + " ---: |" * (len(header) - 3)]
        for row, wins in zip(printed, bold, strict=True):
            texts = [f"**{text}**" if wins and i == 3 else text for i, text in enumerate(row)]
            out.append("| " + " | ".join(texts) + " |")
    else:
        out.append("There is no target: no cell has finished yet, or only with seeds on different data.")
    devices = sorted({str(r.result["device"]) for r in table.sweep.runs if r.result.get("device")})
    out += ["", rule(table), "", f"Devices: {', '.join(devices) or 'no run has finished'}."]
    if warnings := provenance.warnings(table.sweep):
        out += ["", "## Warnings", "", *(f"- {w}" for w in warnings)]
    return "\n".join(out) + "\n"


def to_csv(table: Table) -> str:
    """One line per cell and target, numbers bare."""
    f = io.StringIO()
    w = csv.writer(f, lineterminator="\n")
    w.writerow(
        ["of", "campaign", "rehearsal", "model", "optimizer", "variant", "label", "metric", "target", "target_value",
         "state", "epochs", "wall_hours", "device_hours", "device", "seeds_reached", "seeds_finished",
         "seeds_unknown", "seeds_diverged", "seeds_planned", "fastest"]
    )  # fmt: skip
    c = table.sweep
    found = reached(table)
    best = fastest(found)
    for r in found:
        label = f"{table.labels.model(r.model)}, {table.labels.cell(r.optimizer, r.overrides)}"
        state = "reached" if r.reached else r.state
        numbers = ["" if x is None else f"{x:.6g}" for x in (r.epochs, r.wall_hours, r.device_hours)]
        w.writerow(
            [table.name, c.name, c.rehearsal or "", r.model, r.optimizer, r.overrides, label, metric(table),
             r.target.text, f"{r.target.value:.4f}", state, *numbers, device(c.runs), r.reached, r.seeds,
             r.unknown, r.diverged, r.planned, int(r in best)]
        )  # fmt: skip
    return f.getvalue()
