"""What a search selects: read from its finished runs, written to ``selected.yaml`` in its folder, and read from there.

One rule for every metric, whose direction is the metric's own. Networks are never averaged over.
"""

import contextlib
import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import yaml

from adarem.run.build import build
from adarem.run.catalog import OPTIMIZERS, metric_named
from adarem.run.config import RunConfig
from adarem.run.directory import FINISHED, RunDir
from adarem.run.errors import UserError
from adarem.run.files import read_yaml, write_atomically
from adarem.run.records import number
from adarem.run.setting import Range, Setting, Value
from adarem.run.sweep import SweepSpec, read_sweep, runs_in

FILE = "selected.yaml"
FORMAT = 1
End: TypeAlias = Literal["lowest", "highest"]


@dataclass(frozen=True)
class Trials:
    """Settings of one optimizer on one network, each on all seeds."""

    planned: int
    finished: int
    diverged: int  # of the finished ones, with a run that diverged


@dataclass(frozen=True)
class Candidate:
    """Settings and their figure, the mean over the search's seeds."""

    settings: Mapping[str, Value]  # dotted key to value
    figure: float


@dataclass(frozen=True)
class Chosen:
    """What was selected for one optimizer on one network."""

    trials: Trials
    best: Candidate | None = None  # None: every trial diverged
    next: Candidate | None = None  # the second best; None: there was no other
    ties: Annotated[int, Setting("other settings with the very same figure")] = 0
    edges: Mapping[str, End] = field(default_factory=dict)  # settings that are the lowest or the highest tried

    def text(self) -> str:
        """``57.89, next best 52.63, 4 trials, 1 of them diverged; at the highest optimizer.lr tried``."""
        words = [f"{self.trials.planned} trial{'s' if self.trials.planned != 1 else ''}"]
        if self.trials.diverged:
            words.append(f"{self.trials.diverged} of them diverged")
        if self.best is None:
            return ", ".join(words)
        others = f"next best {self.next.figure:.2f}" if self.next else "no other finished without diverging"
        text = ", ".join([f"{self.best.figure:.2f}", others, *words])
        if self.ties:
            text += (
                f"; equal to {self.ties} other{'s' if self.ties > 1 else ''}, of which the smaller settings are taken"
            )
        if self.edges:
            text += f"; at the {' and the '.join(f'{end} {key}' for key, end in self.edges.items())} tried"
        return text


@dataclass(frozen=True)
class Selection:
    """The outcome of a search, by network and optimizer."""

    sweep: str  # name of the search's folder
    metric: str  # of catalog.METRICS
    rule: str  # in words
    seeds: tuple[int, ...]  # that its runs had
    selected: Mapping[str, Mapping[str, Chosen]]
    format: int = FORMAT


@dataclass(frozen=True)
class SelectionFile:
    """A ``selected.yaml`` as it was read, and the hash of its bytes."""

    path: Path
    sha256: str
    selection: Selection


TrialSettings: TypeAlias = tuple[tuple[str, Value], ...]  # dotted key and value, in order of key


@dataclass(frozen=True)
class Tried:
    """What a run of a search tries, and in words what all runs of one search have to have alike."""

    settings: TrialSettings
    rest: str


def select(folder: Path) -> Selection:
    """What the finished search in ``runs/<sweep>`` selects.

    For each network and optimizer the settings with the best mean over the seeds of the search's first metric, at the
    end of training. Settings of which a run diverged are worse than all others, and counted. Of equal ones the
    smaller are taken: by learning rate, then by the other settings in order of name.

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
    found: dict[tuple[str, str], dict[TrialSettings, dict[int, float | None]]] = {}
    held = [run.path.name for run in runs_in(folder)]
    finished, total = 0, len(held) + sum(planned not in held for planned in spec.runs)
    rests: dict[str, str] = {}  # what the runs have alike, with the name of the first of each
    for run in runs_in(folder):
        config = run.config()
        tried = tried_by(config, spec)
        settings = tried.settings
        rests.setdefault(tried.rest, run.path.name)
        of_cell = found.setdefault((config.model.name, config.optimizer.name), {})
        of_cell.setdefault(settings, {})[config.seed] = None
        if run.status() in FINISHED:
            finished += 1
            of_cell[settings][config.seed] = _figure(run, config, name, metric.lower_is_better)
    if len(rests) > 1:
        (first, a), (second, b) = list(rests.items())[:2]
        raise UserError(
            f"{folder}: its runs are not of one search ({a}: {first}; {b}: {second}); move some to another folder"
        )
    seeds = {c: {s for by_seed in trials.values() for s in by_seed} for c, trials in found.items()}
    lacking = sum(len(seeds[c] - by_seed.keys()) for c, trials in found.items() for by_seed in trials.values())
    if finished < total or lacking or not total:
        raise UserError(
            f"{folder}: {total - finished + lacking} of {total + lacking} runs of the search are not finished; launch "
            f"grid={spec.name} as before, with seeds=[{','.join(map(str, sorted(set().union(*seeds.values()))))}]"
        )
    selected: dict[str, dict[str, Chosen]] = {}
    for (model, optimizer), trials in sorted(found.items()):
        means = {
            s: math.fsum(v for v in by_seed.values() if v is not None) / len(by_seed) for s, by_seed in trials.items()
        }
        selected.setdefault(model, {})[optimizer] = choose(optimizer, means, metric.better, list(means))
    rule = (
        f"{metric.direction} {name} after the last epoch, mean over seeds; diverged is worst; of equal ones the "
        "smaller settings, optimizer.lr first"
    )
    return Selection(folder.name, name, rule, tuple(sorted(set().union(*seeds.values()))), selected)


def tried_by(config: RunConfig, spec: SweepSpec) -> Tried:
    """What a run of a search tries."""
    varied = {*spec.search.get(config.optimizer.name, {}), *spec.axes}
    tries = {
        k: v for k, v in config.overrides.items() if k in varied or k.startswith(("optimizer.", "schedule", "train."))
    }
    d, s = config.data, config.scale
    rest = [f"{config.data.name}, {s.epochs} epochs, batch {s.global_batch_size}, evaluated on {d.evaluated_on}"]
    if d.kind == "images" and d.holdout is not None:
        rest.append(f"holdout {d.holdout}, holdout_seed {d.holdout_seed}")
    rest += [f"{k} {v}" for k, v in sorted(config.overrides.items()) if k not in tries and not k.startswith("data.")]
    return Tried(tuple(sorted((k, _value(v)) for k, v in tries.items())), ", ".join(rest))


def _value(text: object) -> Value:
    """A setting's text as a number, where it is one."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            if math.isfinite(found := kind(str(text))):
                return found
    return str(text)


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
    ranked = sorted(means, key=_smaller)
    ranked.sort(key=means.__getitem__, reverse=better(1.0, 0.0))  # a stable sort keeps the order of equal ones
    return ranked


def _smaller(settings: TrialSettings) -> list[tuple[bool, str, bool, float, str]]:
    """Sorts by learning rate, then by the others in order of name; numbers by size, before texts."""
    ordered = sorted(settings, key=lambda s: (s[0] != "optimizer.lr", s[0]))
    return [
        (k != "optimizer.lr", k, isinstance(v, str), 0.0 if isinstance(v, str) else float(v), str(v))  # type: ignore[arg-type]
        for k, v in ordered
    ]


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
    raw = {k: v for k, v in _plain(dataclasses.asdict(selection)).items() if k != "format"}  # type: ignore[attr-defined]
    text = "# Written by `adarem report` of a finished search; `adarem plan grid.settings_from=...` reads it.\n"
    text += yaml.safe_dump({"format": FORMAT, **raw}, sort_keys=False, allow_unicode=True)
    if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text:
        write_atomically(path, text)
    return path


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def read_selection(path: Path) -> SelectionFile:
    """Raises UserError where there is no such file, or it is damaged or of another format."""
    absent = f"{path}: no such file; `adarem report` of the search writes it once all of its runs are finished"
    raw = read_yaml(path, "have `adarem report` write it again", absent=absent)
    if raw.get("format") != FORMAT:
        raise UserError(f"{path}: no selection of format {FORMAT}; have `adarem report` write it again")
    try:
        selection = build(Selection, raw)
    except UserError as e:
        raise UserError(f"{path}: {e}; have `adarem report` write it again") from None
    return SelectionFile(path, hashlib.sha256(path.read_bytes()).hexdigest(), selection)
