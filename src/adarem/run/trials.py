"""The trials of a search: the runs that its plan has, by network, optimizer and the settings that they try."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from adarem.run.config import RunConfig
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.setting import Value
from adarem.run.sweep import SweepSpec, runs_in

TrialSettings: TypeAlias = tuple[tuple[str, Value], ...]  # dotted key and value, in order of key


@dataclass(frozen=True)
class Tried:
    """What a run of a search tries, and in words what all runs of one search have to have alike."""

    settings: TrialSettings
    rest: str


@dataclass(frozen=True)
class TrialRun:
    """One run of a trial."""

    run: RunDir
    config: RunConfig


@dataclass(frozen=True)
class Trial:
    """Settings of one optimizer on one network, and a run of them for each seed."""

    settings: TrialSettings
    runs: Mapping[int, TrialRun]  # by seed


@dataclass(frozen=True)
class FoundTrials:
    """What is there of a search."""

    of: Mapping[tuple[str, str], tuple[Trial, ...]]  # by network and optimizer; smaller settings come first
    missing: tuple[str, ...]  # names of runs that are planned and not there, or cannot be read
    left_out: tuple[str, ...]  # names of runs that are there and that the plan no longer has
    unreadable: tuple[str, ...]  # a line on each run that is there and cannot be read


def read_trials(folder: Path, spec: SweepSpec) -> FoundTrials:
    """The trials in ``runs/<sweep>``."""
    found: dict[tuple[str, str], dict[TrialSettings, dict[int, TrialRun]]] = {}
    held, left_out, unreadable = set(), [], []
    for run in runs_in(folder):
        if spec.runs and run.path.name not in spec.runs:
            left_out.append(run.path.name)
            continue
        try:
            config = run.config()
        except UserError as e:
            unreadable.append(str(e))
            continue
        held.add(run.path.name)
        of_cell = found.setdefault((config.model.name, config.optimizer.name), {})
        of_cell.setdefault(tried_by(config, spec).settings, {})[config.seed] = TrialRun(run, config)
    of = {
        cell: tuple(Trial(settings, trials[settings]) for settings in sorted(trials, key=smaller))
        for cell, trials in sorted(found.items())
    }
    missing = tuple(name for name in spec.runs if name not in held)
    return FoundTrials(of, missing, tuple(left_out), tuple(unreadable))


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


def smaller(settings: TrialSettings) -> list[tuple[bool, str, bool, float, str]]:
    """Sorts by learning rate, then by the others in order of name; numbers by size, before texts."""
    ordered = sorted(settings, key=lambda s: (s[0] != "optimizer.lr", s[0]))
    return [
        (k != "optimizer.lr", k, isinstance(v, str), 0.0 if isinstance(v, str) else float(v), str(v))  # type: ignore[arg-type]
        for k, v in ordered
    ]
