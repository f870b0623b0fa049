"""What a search selects: read from its finished runs, written to ``selected.yaml`` in its folder, and read from there.

One rule for every metric, whose direction is the metric's own. Networks are never averaged over.
"""

import dataclasses
import hashlib
import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import yaml

from adarem.run.build import build
from adarem.run.catalog import OPTIMIZERS, metric_named
from adarem.run.config import RunConfig
from adarem.run.directory import FINISHED, RunDir
from adarem.run.errors import UserError
from adarem.run.files import read_file, read_yaml, write_atomically
from adarem.run.halving import CellRungs, kendall_tau, read_rungs
from adarem.run.records import number
from adarem.run.setting import Range, Setting, Value
from adarem.run.sweep import SweepSpec, read_sweep
from adarem.run.text import listed
from adarem.run.trials import FoundTrials, Trial, read_trials, smaller
from adarem.run.trials import TrialSettings as TrialSettings
from adarem.run.trials import tried_by as tried_by

FILE = "selected.yaml"
FORMAT = 1
End: TypeAlias = Literal["lowest", "highest"]


@dataclass(frozen=True)
class Trials:
    """Settings of one optimizer on one network, each on all seeds."""

    planned: int
    finished: int  # those that halving stopped among them
    diverged: int  # of the finished ones, with a run that diverged


@dataclass(frozen=True)
class Candidate:
    """Settings and their figure, the mean over the search's seeds."""

    settings: Mapping[str, Value]  # dotted key to value
    figure: float


@dataclass(frozen=True)
class ReachedRung:
    """An epoch up to which trials trained: a rung, or the last epoch."""

    epoch: int
    trials: int  # that have a figure there; one that diverged before has none
    ties: int = 0  # that stopped here with the very figure of one that went on


@dataclass(frozen=True)
class Agreement:
    """How well the order of trials after fewer epochs agrees with that after more, of those that have both figures.

    These are the better trials of the earlier rung alone, whose order is the hardest to tell.
    """

    epoch: int
    later: int  # epoch
    n: int
    tau: float | None = None  # Kendall's tau-b, -1 to 1; None: fewer than two trials, or all alike


@dataclass(frozen=True)
class Halved:
    """What halving came to for one optimizer on one network."""

    rungs: tuple[ReachedRung, ...]  # the last one is the complete length
    epochs: int  # that its runs have trained
    full_epochs: int  # that they would have without halving
    agreement: tuple[Agreement, ...]

    @property
    def with_final(self) -> tuple[Agreement, ...]:
        """The agreement of each rung with the end of training."""
        return tuple(a for a in self.agreement if a.later == self.rungs[-1].epoch)

    def text(self) -> str:
        """``16, 6 and 2 trials at epochs 10, 30 and 100 (420 epochs in place of 1,600)``, and how ranks agree."""
        epochs, trials = listed([str(r.epoch) for r in self.rungs]), listed([str(r.trials) for r in self.rungs])
        text = f"{trials} trials at epochs {epochs} ({self.epochs:,} epochs in place of {self.full_epochs:,})"
        taus = [f"{a.tau:.2f} (epoch {a.epoch}, n = {a.n})" for a in self.with_final if a.tau is not None]
        if taus:
            text += f", rank agreement with the last epoch: Kendall's tau {listed(taus)}"
        else:
            text += ", too few of them at the last epoch to say how ranks agree"
        if ties := sum(rung.ties for rung in self.rungs):
            text += f"; {ties} stopped with the very figure of one that went on"
        return text


@dataclass(frozen=True)
class Chosen:
    """What was selected for one optimizer on one network."""

    trials: Trials
    best: Candidate | None = None  # None: every trial diverged
    next: Candidate | None = None  # the second best; None: there was no other
    ties: Annotated[int, Setting("other settings with the very same figure")] = 0
    edges: Mapping[str, End] = field(default_factory=dict)  # settings that are the lowest or the highest tried
    halved: Halved | None = None  # None: every trial trained to the end

    def text(self) -> str:
        """``57.89, next best 52.63, 4 trials, 1 of them diverged; at the highest optimizer.lr tried``."""
        words = [f"{self.trials.planned} trial{'s' if self.trials.planned != 1 else ''}"]
        if self.trials.diverged:
            words.append(f"{self.trials.diverged} of them diverged")
        if self.best is None:
            return ", ".join(words) + (f"; {self.halved.text()}" if self.halved else "")
        nothing = "no other trained to the end" if self.halved else "no other finished without diverging"
        others = f"next best {self.next.figure:.2f}" if self.next else nothing
        text = ", ".join([f"{self.best.figure:.2f}", others, *words])
        if self.ties:
            text += (
                f"; equal to {self.ties} other{'s' if self.ties > 1 else ''}, of which the smaller settings are taken"
            )
        if self.edges:
            text += f"; at the {' and the '.join(f'{end} {key}' for key, end in self.edges.items())} tried"
        return f"{text}; {self.halved.text()}" if self.halved else text


@dataclass(frozen=True)
class Selection:
    """The outcome of a search, by network and optimizer."""

    sweep: str  # name of the search's folder
    metric: str  # of catalog.METRICS
    rule: str  # in words
    seeds: tuple[int, ...]  # that its runs had
    selected: Mapping[str, Mapping[str, Chosen]]
    format: int = FORMAT
    left_out: tuple[str, ...] = ()  # names of runs that are there and that the plan no longer has


@dataclass(frozen=True)
class SelectionFile:
    """A ``selected.yaml`` as it was read, and the hash of its bytes."""

    path: Path
    sha256: str
    selection: Selection


def select(folder: Path) -> Selection:
    """What the finished search in ``runs/<sweep>`` selects.

    For each network and optimizer the settings with the best mean over the seeds of the search's first metric, at the
    end of training, among the trials that halving left (``adarem.run.halving``). Settings of which a run diverged are
    worse than all others, and counted. Of equal ones the smaller are taken: by learning rate, then by the other
    settings in order of name. Runs that the plan no longer has count for nothing, and are named.

    Raises:
        UserError: the search is not finished; it has a run that no selection may rest on.
    """
    spec = read_sweep(folder)
    try:
        metric = metric_named(spec.metrics[0]) if spec.metrics else None
    except UserError as e:
        raise UserError(f"{folder / 'grid.yaml'}: metrics: {e}, and plan the grid again") from None
    if metric is None:
        raise UserError(f"{folder / 'grid.yaml'}: metrics: needs one; plan the grid again")
    name = spec.metrics[0]
    there, cells = read_trials(folder, spec), read_rungs(folder, spec)
    if there.unreadable:
        raise UserError(there.unreadable[0])
    rests: dict[str, str] = {}  # what the runs have alike, with the name of the first of each
    for trials in there.of.values():
        for one in (r for trial in trials for r in trial.runs.values()):
            rests.setdefault(tried_by(one.config, spec).rest, one.run.path.name)
    if len(rests) > 1:
        (first, a), (second, b) = list(rests.items())[:2]
        raise UserError(
            f"{folder}: its runs are not of one search ({a}: {first}; {b}: {second}); move some to another folder"
        )
    _check_finished(folder, spec, there, cells)
    selected: dict[str, dict[str, Chosen]] = {}
    for (model, optimizer), trials in there.of.items():
        cell = cells.get((model, optimizer))
        final = trials if cell is None else [trials[i] for i in cell.finalists]
        means = {t.settings: _mean(t, name, metric.lower_is_better) for t in final}
        chosen = choose(optimizer, means, metric.better, [t.settings for t in trials])
        if cell is not None:
            diverged = sum(any(r.run.status() == "diverged" for r in t.runs.values()) for t in trials)
            counts = Trials(len(trials), len(trials), diverged)
            chosen = replace(chosen, trials=counts, halved=_halved(cell, means))
        selected.setdefault(model, {})[optimizer] = chosen
    rule = (
        f"{metric.direction} {name} after the last epoch, mean over seeds; diverged is worst; of equal ones the "
        "smaller settings, optimizer.lr first"
    )
    if spec.halving is not None:
        rule += f"; {spec.halving.text()}"
    return Selection(folder.name, name, rule, _seeds(there), selected, left_out=there.left_out)


def _seeds(there: FoundTrials) -> tuple[int, ...]:
    return tuple(sorted({seed for trials in there.of.values() for trial in trials for seed in trial.runs}))


def _check_finished(
    folder: Path, spec: SweepSpec, there: FoundTrials, cells: Mapping[tuple[str, str], CellRungs]
) -> None:
    """Raises UserError where a run of the search is still to train, or a trial lacks a seed that others have."""
    places = {name: cell.place(name) for cell in cells.values() for name in cell.records}
    runs = [one.run for trials in there.of.values() for trial in trials for one in trial.runs.values()]
    left = sum(
        places[run.path.name].state in ("due", "paused") if run.path.name in places else run.status() not in FINISHED
        for run in runs
    ) + len(there.missing)
    lacking = 0
    for trials in there.of.values():
        seeds = {seed for trial in trials for seed in trial.runs}
        lacking += sum(len(seeds - trial.runs.keys()) for trial in trials)
    total = len(runs) + len(there.missing)
    if left or lacking or not total:
        raise UserError(
            f"{folder}: {left + lacking} of {total + lacking} runs of the search are not finished; launch "
            f"grid={spec.name} as before, with seeds=[{','.join(map(str, _seeds(there)))}]"
        )


def _mean(trial: Trial, name: str, lower_is_better: bool) -> float:
    figures = [_figure(one.run, one.config, name, lower_is_better) for one in trial.runs.values()]
    return math.fsum(figures) / len(figures)


def _halved(cell: CellRungs, means: Mapping[TrialSettings, float]) -> Halved:
    """What halving came to, with how well the ranks at a rung agree with those at each later one and at the end."""
    length = next(iter(cell.trials[0].runs.values())).config.scale.epochs
    stages = [*cell.halving.epochs, length]
    figures = [[reached.figures[i] for reached in cell.reached] for i in range(len(cell.halving.epochs))]
    figures.append([means.get(trial.settings) for trial in cell.trials])
    known = [{i: f for i, f in enumerate(stage) if f is not None and math.isfinite(f)} for stage in figures]
    ties = [*(rung.ties for rung in cell.rungs), 0]
    agreement = []
    for i, j in itertools.combinations(range(len(stages)), 2):
        both = sorted(known[i].keys() & known[j].keys())
        tau = kendall_tau([known[i][t] for t in both], [known[j][t] for t in both])
        agreement.append(Agreement(stages[i], stages[j], len(both), tau))
    return Halved(
        tuple(ReachedRung(*stage) for stage in zip(stages, map(len, known), ties, strict=True)),
        sum(record.epochs for record in cell.records.values()),
        length * len(cell.records),
        tuple(agreement),
    )


def _figure(run: RunDir, config: RunConfig, name: str, lower_is_better: bool) -> float:
    """Of a finished run; the worst there is where it diverged."""
    if config.data.kind == "images" and config.data.evaluated_on == "val":
        raise UserError(
            f"{run.path}: was evaluated on the images that the table reports, and no search selects on those; remove "
            "the folder, and launch the search again: it holds training images out"
        )
    result = run.result() or {}
    if result.get("status") == "diverged":
        return math.inf if lower_is_better else -math.inf
    windows = run.oscillation()
    final = windows[-1] if windows and windows[-1].get("epoch") == config.scale.epochs else {}
    value = number(result, name)
    value = number(final, name) if value is None else value
    if value is None:
        raise UserError(f"{run.path}: done, and has no finite {name}; remove the run and launch the search again")
    return value


def choose(
    optimizer: str,
    means: Mapping[TrialSettings, float],
    better: Callable[[float, float], bool],
    planned: Sequence[TrialSettings],
) -> Chosen:
    """What is selected for one optimizer on one network.

    Args:
        means: figure of each trial that is finished; infinite where it diverged.
        better: of the metric.
        planned: all trials, the finished ones among them; edges are those of what they try.
    """
    finite = {s: v for s, v in means.items() if math.isfinite(v)}
    trials = Trials(len(planned), len(means), len(means) - len(finite))
    if not finite:
        return Chosen(trials)
    ranked = in_order(finite, better)
    best = ranked[0]
    other = Candidate(dict(ranked[1]), finite[ranked[1]]) if len(ranked) > 1 else None
    ties = sum(v == finite[best] for v in finite.values()) - 1
    return Chosen(trials, Candidate(dict(best), finite[best]), other, ties, _edges(optimizer, best, planned))


def in_order(means: Mapping[TrialSettings, float], better: Callable[[float, float], bool]) -> list[TrialSettings]:
    """The best first; of equal ones the smaller settings, by learning rate, then by the others in order of name."""
    ranked = sorted(means, key=smaller)
    ranked.sort(key=means.__getitem__, reverse=better(1.0, 0.0))  # a stable sort keeps the order of equal ones
    return ranked


def _edges(optimizer: str, best: TrialSettings, tried: Sequence[TrialSettings]) -> dict[str, End]:
    """The settings at an end of what was tried, but for ends beyond which nothing is allowed."""
    found: dict[str, End] = {}
    for key, value in best:
        values = {v for settings in tried for k, v in settings if k == key and isinstance(v, int | float)}
        if not isinstance(value, int | float) or len(values) < 2:
            continue
        known = OPTIMIZERS[optimizer].hparams.get(key.removeprefix("optimizer.")) if optimizer in OPTIMIZERS else None
        allowed = known.allowed if known and isinstance(known.allowed, Range) else Range(0.0)
        if value == min(values) and value != allowed.low:
            found[key] = "lowest"
        elif value == max(values) and value != allowed.high:
            found[key] = "highest"
    return found


def write_selection(folder: Path, selection: Selection) -> Path:
    """Writes ``runs/<sweep>/selected.yaml``, unless it holds this very selection."""
    path = folder / FILE
    raw = {k: v for k, v in _plain(dataclasses.asdict(selection)).items() if k != "format" and v != []}  # type: ignore[attr-defined]
    text = "# Written by `adarem report` of a finished search; `adarem plan grid.settings_from=...` reads it.\n"
    text += yaml.safe_dump({"format": FORMAT, **raw}, sort_keys=False, allow_unicode=True)
    if not os.path.lexists(path) or read_file(path) != text.encode():
        write_atomically(path, text)
    return path


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def read_selection(path: Path) -> SelectionFile:
    """Raises UserError where there is no such file, or it is damaged or of another format."""
    absent = f"{path}: no such file; `adarem report` of the search writes it once all of its runs are finished"
    raw = read_yaml(Path(os.path.realpath(path)), "have `adarem report` write it again", absent=absent)
    if raw.get("format") != FORMAT:
        raise UserError(f"{path}: no selection of format {FORMAT}; have `adarem report` write it again")
    try:
        selection = build(Selection, raw)
    except UserError as e:
        raise UserError(f"{path}: {e}; have `adarem report` write it again") from None
    return SelectionFile(path, hashlib.sha256(read_file(Path(os.path.realpath(path)))).hexdigest(), selection)
