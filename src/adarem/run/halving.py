"""Successive halving: which trials of a search train on, and to which epoch each run may train now.

Jamieson and Talwalkar 2016 (Non-stochastic Best Arm Identification and Hyperparameter Optimization), with the reduction
by a share of Li et al. 2018 (Hyperband, algorithm 1); a share that is no number of trials is rounded up here. The
schedule of a run is that of its complete length, so a run that goes on is the run that was never paused.

Nothing is stored: each decision follows from the records of the runs and from grid.yaml, whoever asks and whenever. It
is made once every trial that gets to a rung has its figure there. A run that failed has none: it holds its rung up and
is named, since a fault says nothing of its settings. A trial that is past a rung stays past it, when there are more
trials later.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

from adarem.run.catalog import Metric, metric_named
from adarem.run.directory import FINISHED, RunDir
from adarem.run.errors import UserError
from adarem.run.records import count, number
from adarem.run.sweep import Halving, SweepSpec, is_named_after, read_sweep
from adarem.run.trials import Trial, read_trials


def better_share(figures: Sequence[float], share: Fraction, *, lower_is_better: bool) -> list[int]:
    """The places of the trials that go on, best first: ``share`` of all, rounded up.

    A figure that is not finite is of a trial that diverged, which never goes on. Of equal ones the earlier goes on.
    """
    finite = [i for i, figure in enumerate(figures) if math.isfinite(figure)]
    finite.sort(key=lambda i: figures[i] if lower_is_better else -figures[i])
    return finite[: math.ceil(share * len(figures))]


@dataclass(frozen=True)
class Reached:
    """How far a trial has come."""

    figures: tuple[float | None, ...]  # at each rung; None: not there yet; not finite: it diverged on the way
    passed: int = 0  # rungs beyond which it has trained


@dataclass(frozen=True)
class Rung:
    """One rung of an optimizer on a network. Trials are named by their place among all."""

    epoch: int
    trials: tuple[int, ...]  # that are to train up to here
    goes_on: tuple[int, ...] | None  # of these, best first; None: not decided, since some are not here yet
    ties: int = 0  # trials that stop here with the very figure of one that goes on


def decide(trials: Sequence[Reached], halving: Halving, *, lower_is_better: bool) -> list[Rung]:
    """The rungs from the first to the one that is not decided, or to the last; each figure is read at its own rung."""
    rungs: list[Rung] = []
    here = tuple(range(len(trials)))
    for i, epoch in enumerate(halving.epochs):
        figures = {t: trials[t].figures[i] for t in here}
        known = [figure for figure in figures.values() if figure is not None]
        if len(known) < len(here):
            return [*rungs, Rung(epoch, here, None)]
        best = [here[k] for k in better_share(known, halving.share, lower_is_better=lower_is_better)]
        on = tuple(best + [t for t in here if trials[t].passed > i and t not in best])
        last = figures[best[-1]] if best else None
        rungs.append(Rung(epoch, here, on, sum(figures[t] == last for t in here if t not in on)))
        here = on
    return rungs


def budget(trials: int, halving: Halving | None, epochs: int) -> int:
    """Epochs that ``trials`` runs train at most, one seed of one optimizer on one network."""
    spent, before = 0, 0
    for epoch in halving.epochs if halving else ():
        spent += trials * (epoch - before)
        trials, before = math.ceil((halving.share if halving else 1) * trials), epoch
    return spent + trials * (epochs - before)


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b of two rankings of the same trials, as scipy computes it; None where either has no order.

    Here by hand: scipy takes half a second to import, which everybody would wait for who asks where a run stands.
    """
    pairs = list(itertools.combinations(range(len(a)), 2))
    orders = [((a[i] > a[j]) - (a[i] < a[j]), (b[i] > b[j]) - (b[i] < b[j])) for i, j in pairs]
    strict = math.sqrt(sum(x != 0 for x, _ in orders) * sum(y != 0 for _, y in orders))
    return sum(x * y for x, y in orders) / strict if strict else None


State = Literal["due", "paused", "stopped", "finished"]


@dataclass(frozen=True)
class Place:
    """Where a run of a search stands among the rungs."""

    state: State  # due: it may train; paused: its rung is not decided; stopped: it does not go on
    until: int  # epochs up to which it may train now; of a stopped one those of its last rung
    epochs: int  # of the complete schedule
    waits_for: tuple[str, ...] = ()  # of a paused one: the names of the runs that are not at its rung yet

    def text(self) -> str:
        """``paused at 10 of 100 epochs``, ``stopped at rung 10``."""
        if self.state == "stopped":
            return f"stopped at rung {self.until}"
        return f"paused at {self.until} of {self.epochs} epochs" if self.state == "paused" else self.state

    def waiting(self) -> str:
        """What a paused one waits for: ``, waits for 2 runs: a, b``; else empty."""
        if self.state != "paused" or not self.waits_for:
            return ""
        more = f" and {len(self.waits_for) - 3} more" if len(self.waits_for) > 3 else ""
        return f"; waits for {len(self.waits_for)} runs to come there: {', '.join(self.waits_for[:3])}{more}"


@dataclass(frozen=True)
class Record:
    """What a run has recorded so far."""

    figures: tuple[float | None, ...]  # at each rung, as of ``Reached``
    epochs: int  # that it has completed
    finished: bool


@dataclass(frozen=True)
class CellRungs:
    """The rungs of one optimizer on one network."""

    trials: tuple[Trial, ...]
    reached: tuple[Reached, ...]  # of each trial
    records: Mapping[str, Record]  # by the name of the run
    rungs: tuple[Rung, ...]
    missing: tuple[str, ...]  # names of runs that are planned and not there
    halving: Halving

    @property
    def decided(self) -> bool:
        """Whether it is known of every trial where it ends."""
        return all(rung.goes_on is not None for rung in self.rungs)

    @property
    def finalists(self) -> tuple[int, ...]:
        """The places of the trials that train to the end; none while that is not decided."""
        return self.rungs[-1].goes_on or ()

    def names(self, trials: Sequence[int]) -> tuple[str, ...]:
        """Of the runs of these trials."""
        return tuple(t.run.path.name for i in trials for t in self.trials[i].runs.values())

    def later(self) -> list[tuple[str, ...]]:
        """For each decision that is to be made, in order, the names of the runs that may train on after it."""
        if self.decided:
            return []
        names = tuple(name for name in self.names(self.rungs[-1].trials) if not self.records[name].finished)
        return [names] * (len(self.halving.epochs) - len(self.rungs) + 1)

    def place(self, name: str) -> Place:
        """Of the run of this name."""
        (trial,) = (i for i in range(len(self.trials)) if name in self.names([i]))
        record, epochs = self.records[name], next(iter(self.trials[trial].runs.values())).config.scale.epochs
        if record.finished:
            return Place("finished", epochs, epochs)
        for i, rung in enumerate(self.rungs):
            if rung.goes_on is None:  # one that is past it trains up to the rung above
                i = max(i, sum(record.epochs > epoch for epoch in self.halving.epochs))
                until = (*self.halving.epochs, epochs)[i]
                if until == epochs or record.figures[i] is None:
                    return Place("due", until, epochs)
                waits_for = [n for n in self.names(rung.trials) if self.records[n].figures[len(self.rungs) - 1] is None]
                return Place("paused", until, epochs, (*waits_for, *self.missing))
            if trial not in rung.goes_on:
                return Place("stopped", rung.epoch, epochs)
        return Place("due", epochs, epochs)


def read_rungs(folder: Path, spec: SweepSpec) -> dict[tuple[str, str], CellRungs]:
    """The rungs of a search in ``runs/<sweep>``, by network and optimizer; empty where it has no halving.

    Raises:
        UserError: its metric is unknown or has no figure after an epoch.
    """
    if spec.halving is None or not spec.search:
        return {}
    try:
        metric = metric_named(spec.metrics[0])
    except (UserError, IndexError) as e:
        raise UserError(f"{folder / 'grid.yaml'}: metrics: {e or 'needs one'}; plan the grid again") from None
    found = read_trials(folder, spec)
    cells = {}
    for (model, optimizer), trials in found.of.items():
        missing = tuple(name for name in found.missing if is_named_after(name, model, optimizer))
        records = {
            t.run.path.name: _record(t.run, spec.halving, metric) for trial in trials for t in trial.runs.values()
        }
        reached = [_reached([records[t.run.path.name] for t in trial.runs.values()], spec.halving) for trial in trials]
        rungs = decide(reached, spec.halving, lower_is_better=metric.lower_is_better)
        if missing:  # what they would come to is not known
            rungs = [replace(rungs[0], goes_on=None, ties=0)]
        cells[model, optimizer] = CellRungs(trials, tuple(reached), records, tuple(rungs), missing, spec.halving)
    return cells


def read_places(folder: Path, spec: SweepSpec) -> dict[str, Place]:
    """The place of each run that the plan of a search has, by its name; empty where it has no halving."""
    cells = read_rungs(folder, spec).values()
    return {name: cell.place(name) for cell in cells for name in cell.records}


def place_of(run: RunDir) -> Place | None:
    """The place of a run in the sweep around it; None where nothing there holds it back."""
    try:
        spec = read_sweep(run.path.parent)
    except UserError:
        return None  # a run by itself, or a grid.yaml that `adarem plan` writes anew
    return read_places(run.path.parent, spec).get(run.path.name)


def _record(run: RunDir, halving: Halving, metric: Metric) -> Record:
    records, status = run.metrics(), run.status()
    if metric.curve is None:
        raise UserError(
            f"{run.path.parent / 'grid.yaml'}: metrics: halving needs a figure after each epoch; plan again"
        )
    split, key = metric.curve
    measured = {count(r, "epoch"): number(r, key) for r in records if r["split"] == split}
    last = math.nan if status == "diverged" else None
    figures = tuple(last if measured.get(epoch) is None else measured[epoch] for epoch in halving.epochs)
    return Record(figures, run.epochs(), status in FINISHED)


def _reached(records: Sequence[Record], halving: Halving) -> Reached:
    """Of the runs of a trial, one for each seed: the mean of their figures, once all have one."""
    figures: list[float | None] = []
    for of_rung in zip(*(record.figures for record in records), strict=True):
        known = [figure for figure in of_rung if figure is not None]
        figures.append(math.fsum(known) / len(known) if len(known) == len(records) else None)
    passed = max(sum(record.epochs > epoch for epoch in halving.epochs) for record in records)
    return Reached(tuple(figures), passed)
