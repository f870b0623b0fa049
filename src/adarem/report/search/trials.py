"""The trials of a search: for each optimizer and network the settings that were tried, and what they came to."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from adarem.report.load import Run, Sweep
from adarem.report.search.best_of_k import BestOfK, best_of_k
from adarem.run.catalog import METRICS, SYMBOLS, Metric
from adarem.run.labels import readable
from adarem.run.selection import Chosen, choose, in_order
from adarem.run.setting import Value
from adarem.run.trials import TrialSettings, tried_by

LEARNING_RATE = "optimizer.lr"
State: TypeAlias = Literal["done", "diverged", "stopped", "unfinished"]  # stopped: by halving, at a rung
Scale: TypeAlias = Literal["log", "linear", "category"]
FAR = 10.0  # the worst figure by the best from which on figures where lower is better have a log scale
WIDE = 10.0  # the largest value by the smallest from which on a list of values is shown on a log axis


@dataclass(frozen=True)
class Trial:
    """Settings of one optimizer on one network, on all seeds of the search."""

    settings: TrialSettings
    runs: Sequence[Run]
    state: State  # diverged as soon as one of its runs is
    figure: float | None  # mean over the seeds of a trial that is done

    @property
    def epochs(self) -> int:
        """That each of its runs has completed."""
        return min(r.config.scale.epochs if r.status == "done" else r.epoch for r in self.runs)

    def figure_at(self, epoch: int, metric: Metric) -> float | None:
        """After fewer epochs, the mean over the seeds; None where one of them has none."""
        if metric.curve is None:
            return None
        curves = [r.curve(*metric.curve) for r in self.runs]
        values = [float(c[c[:, 0] == epoch, 1][0]) for c in curves if epoch in c[:, 0]]
        return math.fsum(values) / len(values) if len(values) == len(self.runs) else None

    @property
    def text(self) -> str:
        """The figure, or the state of the run that is furthest from one."""
        if self.figure is not None:
            return f"{self.figure:.2f}"
        states = [r.state for r in self.runs if r.status != "done"]
        return "div." if self.state == "diverged" else next(iter(states), "—")

    def value(self, key: str) -> Value:
        return dict(self.settings)[key]


@dataclass(frozen=True)
class Dimension:
    """A setting that a search varies, and how an axis shows it."""

    key: str
    scale: Scale
    low: float  # of a category 0, and the number of values less one
    high: float
    values: tuple[Value, ...]  # that were tried, in order; numbers by size

    @property
    def label(self) -> str:
        return setting_label(self.key)

    def place(self, value: Value) -> float:
        """Between the ends of its axis, from 0 to 1."""
        if self.scale == "category":
            return self.values.index(value) / max(1, len(self.values) - 1)
        low, high, at = self.low, self.high, float(value)  # type: ignore[arg-type]  # numbers, off a category
        if self.scale == "log":
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low)


@dataclass(frozen=True)
class OptimizerSearch:
    """All trials of one optimizer on one network."""

    model: str
    optimizer: str
    trials: Sequence[Trial]  # the best first, then those that stopped, that diverged and that are not finished
    dimensions: Sequence[Dimension]  # the learning rate first
    chosen: Chosen  # so far
    metric: Metric
    first_rung: int | None = None  # epoch at which halving first stops trials

    @property
    def finished(self) -> Sequence[Trial]:
        return [t for t in self.trials if t.state != "unfinished"]

    @property
    def diverged(self) -> int:
        return sum(t.state == "diverged" for t in self.trials)

    @property
    def stopped(self) -> int:
        return sum(t.state == "stopped" for t in self.trials)

    @property
    def best(self) -> Trial | None:
        return next((t for t in self.trials if t.figure is not None), None)

    @cached_property
    def best_of_k(self) -> Sequence[BestOfK]:
        """Of the figures at the end; with halving of those at the first rung, the last that every trial comes to."""
        figures = [f for t in self.trials if (f := self.figure_of_k(t)) is not None]
        without = sum(t.state == "diverged" and self.figure_of_k(t) is None for t in self.trials)
        return best_of_k(figures, without, lower_is_better=self.metric.lower_is_better)

    def figure_of_k(self, trial: Trial) -> float | None:
        """The figure that ``best_of_k`` is of; None of a trial that diverged before or is not there yet."""
        return trial.figure if self.first_rung is None else trial.figure_at(self.first_rung, self.metric)

    @property
    def counts_text(self) -> str:
        """``16 trials``, ``12 of 16 trials, 3 diverged``."""
        n, planned = len(self.finished), len(self.trials)
        text = f"{n if n == planned else f'{n} of {planned}'} trial{'s' if planned > 1 else ''}"
        text += f", {self.stopped} stopped early" if self.stopped else ""
        return f"{text}, {self.diverged} diverged" if self.diverged else text

    @property
    def counts(self) -> str:
        """``16``; ``12 of 16``; ``16, 3 div.``."""
        n = len(self.finished)
        text = str(n) if n == len(self.trials) else f"{n} of {len(self.trials)}"
        return f"{text}, {self.diverged} div." if self.diverged else text

    def settings_text(self, trial: Trial) -> str:
        """Those that the search varies, in words; without any, all that the trial has."""
        varied = {d.key for d in self.dimensions}
        return readable({k: v for k, v in trial.settings if k in varied}) or readable(dict(trial.settings))


@dataclass(frozen=True)
class Search:
    """All trials of a search, by network and optimizer."""

    metric_name: str
    drawn: bool  # out of ranges; else all combinations of values
    parts: Sequence[OptimizerSearch]  # in the order of the grid's networks and optimizers

    @property
    def metric(self) -> Metric:
        return METRICS[self.metric_name]

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(part.model for part in self.parts))

    def of(self, model: str) -> list[OptimizerSearch]:
        return [part for part in self.parts if part.model == model]

    def span(self, model: str) -> "Span | None":
        """The figures of one network that are shown; None of none."""
        return span_in_view([t.figure for p in self.of(model) for t in p.trials if t.figure is not None], self.metric)

    def span_of_k(self, model: str) -> "Span | None":
        """The same of the figures that best of k is of."""
        figures = [p.figure_of_k(t) for p in self.of(model) for t in p.trials]
        return span_in_view([f for f in figures if f is not None], self.metric)

    def part(self, model: str, optimizer: str) -> OptimizerSearch | None:
        """None where nobody planned a trial of it."""
        return next((p for p in self.parts if (p.model, p.optimizer) == (model, optimizer)), None)


@dataclass(frozen=True)
class Span:
    """The figures that an axis or a scale of colours shows; a worse one is shown at its end."""

    low: float
    high: float
    log: bool

    def is_beyond(self, figure: float | None) -> bool:
        return figure is not None and not self.low <= figure <= self.high


def span_in_view(figures: Sequence[float], metric: Metric) -> Span | None:
    """From the best figure to the worst, or to Tukey's fence where that is better: 1.5 quartile ranges beyond the
    worse quartile. On a log scale where lower is better and the worst is ``FAR`` times the best. None of no figures.
    """
    if not figures:
        return None
    log = metric.lower_is_better and min(figures) > 0 and max(figures) >= FAR * min(figures)
    values = sorted(math.log(v) if log else v for v in figures)
    first, third = (values[round(q * (len(values) - 1))] for q in (0.25, 0.75))
    low, high = values[0], values[-1]
    if metric.lower_is_better:
        high = min(high, third + 1.5 * (third - first)) if third > first else high
    else:
        low = max(low, first - 1.5 * (third - first)) if third > first else low
    return Span(math.exp(low), math.exp(high), True) if log else Span(low, high, False)


def setting_label(key: str) -> str:
    """``learning rate``, ``weight decay``, ``β``."""
    name = key.rsplit(".", 1)[-1]
    return "learning rate" if key == LEARNING_RATE else SYMBOLS.get(name, name.replace("_", " "))


def search_of(sweep: Sweep) -> Search | None:
    """The trials of a search, whatever is finished of it; None of a sweep that is no search."""
    spec = sweep.spec
    if not spec.search or not spec.metrics or spec.metrics[0] not in METRICS:
        return None
    found: dict[tuple[str, str], dict[TrialSettings, list[Run]]] = {}
    for run in sweep.runs:
        if spec.runs and run.dir.path.name not in spec.runs:  # the plan no longer has it
            continue
        of_cell = found.setdefault((run.config.model.name, run.config.optimizer.name), {})
        of_cell.setdefault(tried_by(run.config, spec).settings, []).append(run)
    models = list(dict.fromkeys([*spec.models, *sorted(model for model, _ in found)]))
    optimizers = list(dict.fromkeys([*spec.optimizers, *sorted(optimizer for _, optimizer in found)]))
    cells = sorted(found, key=lambda cell: (models.index(cell[0]), optimizers.index(cell[1])))
    parts = [_part(sweep, *cell, found[cell]) for cell in cells]
    return Search(spec.metrics[0], spec.draw is not None, parts)


def _part(sweep: Sweep, model: str, optimizer: str, found: Mapping[TrialSettings, Sequence[Run]]) -> OptimizerSearch:
    name = sweep.spec.metrics[0]
    metric = METRICS[name]
    seeds = {run.config.seed for runs in found.values() for run in runs}
    trials = {settings: _trial(settings, runs, seeds, name) for settings, runs in found.items()}
    figures = {s: t.figure for s, t in trials.items() if t.figure is not None}
    worst = math.inf if metric.lower_is_better else -math.inf
    means = {s: figures.get(s, worst) for s, t in trials.items() if t.state in ("done", "diverged")}
    order = in_order(figures, metric.better)
    stopped = {s: t for s, t in trials.items() if t.state == "stopped"}
    for epochs in sorted({t.epochs for t in stopped.values()}, reverse=True):  # later rungs before earlier ones
        here = {s: t.figure_at(epochs, metric) for s, t in stopped.items() if t.epochs == epochs}
        order += in_order({s: worst if f is None else f for s, f in here.items()}, metric.better)
    for state in ("diverged", "unfinished"):  # the settings alone decide the order
        order += in_order({s: 0.0 for s, t in trials.items() if t.state == state}, metric.better)
    halving = sweep.spec.halving
    return OptimizerSearch(
        model,
        optimizer,
        [trials[s] for s in order],
        _dimensions(sweep, optimizer, list(found)),
        choose(optimizer, means, metric.better, list(found)),
        metric,
        halving.epochs[0] if halving is not None else None,
    )


def _trial(settings: TrialSettings, runs: Sequence[Run], seeds: set[int], metric: str) -> Trial:
    ordered = sorted(runs, key=lambda r: r.config.seed)
    if any(r.status == "diverged" for r in ordered):
        return Trial(settings, ordered, "diverged", None)
    values = [v for r in ordered if (v := r.value(metric)) is not None]
    if len(values) < len(seeds):
        ended = len(ordered) == len(seeds) and all(r.status in ("done", "stopped") for r in ordered)
        return Trial(settings, ordered, "stopped" if ended and len(values) < len(ordered) else "unfinished", None)
    return Trial(settings, ordered, "done", math.fsum(values) / len(values))


def _dimensions(sweep: Sweep, optimizer: str, tried: Sequence[TrialSettings]) -> list[Dimension]:
    """The settings of which the trials have more than one value, the learning rate first, then in order of name."""
    values: dict[str, dict[Value, None]] = {}
    for settings in tried:
        for key, value in settings:
            values.setdefault(key, {})[value] = None
    ranges = sweep.spec.ranges.get(optimizer, {})
    keys = sorted((k for k, v in values.items() if len(v) > 1), key=lambda k: (k != LEARNING_RATE, k))
    # A setting that some trials lack has no place on an axis.
    keys = [k for k in keys if all(k in dict(settings) for settings in tried)]
    return [_dimension(key, list(values[key]), ranges.get(key, {})) for key in keys]


def _dimension(key: str, values: list[Value], drawn_from: Mapping[str, tuple[Value, ...]]) -> Dimension:
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        ordered = tuple(sorted(values, key=str))
        return Dimension(key, "category", 0.0, len(ordered) - 1.0, ordered)
    ((kind, ends),) = drawn_from.items() if len(drawn_from) == 1 else (("", ()),)
    scale: Scale = "linear"
    if kind == "log_uniform" or kind in ("", "choice") and min(numbers) > 0 and max(numbers) >= WIDE * min(numbers):
        scale = "log"
    bounds = [*numbers, *(float(end) for end in ends if kind in ("log_uniform", "uniform"))]  # type: ignore[arg-type]
    return Dimension(key, scale, min(bounds), max(bounds), tuple(sorted(values, key=float)))  # type: ignore[arg-type]
