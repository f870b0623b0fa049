"""The runs of a grid: a grid file, checked, becomes a ``SweepSpec``; axes, overrides and search become runs."""

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from adarem.plan.compose import AXES, check, no_such_grid_key
from adarem.plan.draw import drawn, is_range
from adarem.plan.one_value import is_no_axis
from adarem.run.build import build, nearest
from adarem.run.catalog import METRICS, metric_named
from adarem.run.config import SEEDS
from adarem.run.errors import UserError
from adarem.run.sweep import Draw, Searched, SweepLabels, SweepSpec, check_names, setting_text

_BY_PLAN = ("data", "scale", "labels", "runs", "searched", "ranges")  # of a SweepSpec, and of no grid file
_REQUIRED = ("name", "title", "axes", "metrics", "seeds")


def spec_of(grid: object) -> SweepSpec:
    """The grid that a file, and what overrides made of it, describes. Inside of ``compose.composing``.

    Raises:
        UserError: an unknown, missing or ill-typed key, a name that fits no file, an empty axis, an unknown setting.
    """
    keys = [f.name for f in dataclasses.fields(SweepSpec) if f.name not in _BY_PLAN]
    if not isinstance(grid, Mapping):
        raise UserError(f"grid={grid!r}: needs a mapping with {', '.join(keys)}")
    for key in grid:
        if key not in keys:
            raise no_such_grid_key(str(key), keys)
    for key in _REQUIRED:
        if key not in grid:
            raise UserError(f"grid.{key}: missing")
    raw = {k: v for k, v in grid.items() if v is not None or k in _REQUIRED}
    raw["axes"] = _checked_axes(raw["axes"])
    for label, settings in _mapping("grid.overrides", raw.get("overrides", {})).items():
        where = f"grid.overrides.{label}"
        for key, value in _mapping(where, settings).items():
            _check_tried(where, key, [value])
    draw = build(Draw, raw["draw"], "grid.draw") if "draw" in raw else None
    searched: dict[str, Mapping[str, object]] = {}
    ranges: dict[str, Mapping[str, object]] = {}
    for optimizer, search in _mapping("grid.search", raw.get("search", {})).items():
        check([f"optimizer={optimizer}"], "grid.search")
        where = f"grid.search.{optimizer}"
        searched[optimizer] = settings = _mapping(where, search)
        if draw is not None:
            searched[optimizer] = drawn(where, settings, draw)
            ranges[optimizer] = {k: v if is_range(v) else {"choice": v} for k, v in settings.items()}
        for key, tried in searched[optimizer].items():
            if is_range(tried):
                raise UserError(f"{where}.{key}={tried}: a range needs grid.draw, for instance {{trials: 16, seed: 0}}")
            _check_tried(f"{where}.{key}", key, tried)
    raw |= {"search": searched, "ranges": ranges}
    spec = build(SweepSpec, raw, "grid")
    check_names(spec, "grid.")
    for target, source in spec.settings_of.items():
        check([f"optimizer={target}", f"optimizer={source}"], "grid.settings_of")
        if target == source:
            raise UserError(f"grid.settings_of={{{target}: {source}}}: needs another optimizer's settings")
    if spec.settings_of and spec.settings_from is None:
        raise UserError("grid.settings_of: needs a search to take settings from; give grid.settings_from=NAME too")
    for name in spec.metrics:
        try:
            metric_named(name)
        except UserError as e:
            raise UserError(f"grid.metrics={list(spec.metrics)}: {e}") from None
    if not spec.metrics:
        raise UserError(f"grid.metrics=[]: needs at least one of {', '.join(METRICS)}")
    check(list(spec.settings), "grid.settings")
    return spec


def check_compared(spec: SweepSpec, file: SweepSpec) -> None:
    """Raises UserError for a name under ``compare`` or ``settings_of`` that is on no axis, neither of the file nor as
    planned."""
    on_axis = {*file.optimizers, *spec.optimizers}
    for name in spec.compare:
        if name not in on_axis:
            raise UserError(
                f"grid.compare={list(spec.compare)}: {name}: no optimizer of its axis; {nearest(name, on_axis)}"
            )
    for name in spec.settings_of:
        if name not in on_axis:
            raise UserError(f"grid.settings_of: {name}: no optimizer of the grid's axis; {nearest(name, on_axis)}")


def _checked_axes(axes: object) -> dict[str, list[str]]:
    """The axes with every value as text."""
    named = _mapping("grid.axes", axes)
    for key in ("model", "optimizer"):
        if key not in named:
            raise UserError(f"grid.axes.{key}: missing; every grid has this axis, if only of one value")
    found = {}
    for key, tried in named.items():
        if "." not in key and key not in AXES:
            raise UserError(f"grid.axes.{key}: no axis; {nearest(key, AXES)}, or a dotted key such as optimizer.lr")
        found[key] = [setting_text(value) for value in _check_tried(f"grid.axes.{key}", key, tried)]
    return found


def _check_tried(where: str, key: str, tried: object) -> list[object]:
    """``tried``, a list of values that a run can have under ``key``, else UserError."""
    if is_no_axis(key):
        raise UserError(
            f"{where}: says where runs are or who watches them, and is no axis; give {key} on the command line, or in "
            "grid.settings"
        )
    if not isinstance(tried, list) or not tried:
        raise UserError(f"{where}={tried}: needs a list of at least one value")
    for value in tried:
        if isinstance(value, Mapping) or "." not in key and not isinstance(value, str | int | float):
            raise UserError(f"{where}={tried}: needs names and numbers, not {value}")
    check([f"{key}={setting_text(value)}" for value in tried], where)
    return tried


def _mapping(where: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{where}={value}: needs a mapping of settings, for instance {{optimizer.lr: ...}}")
    return value


def places(spec: SweepSpec, given: Collection[str]) -> list[dict[str, str]]:
    """Every place in the grid, as settings by key: the product of the axes, the grid's overrides, and what a search
    varies for the optimizer alone.

    Keys that the user has ``given`` leave the latter two. Places that are then alike count once.
    """
    own_settings = list(spec.overrides.values()) or [{}]
    found: list[dict[str, str]] = []
    for of_axes in itertools.product(*spec.axes.values()):
        choice = dict(zip(spec.axes, of_axes, strict=True))
        search = spec.search.get(choice["optimizer"], {})
        searched = {k: [setting_text(v) for v in tried] for k, tried in search.items() if k not in given}
        for settings in own_settings:
            own = choice | {k: setting_text(v) for k, v in settings.items() if k not in given}
            trials: Iterable[tuple[str, ...]] = itertools.product(*searched.values())
            if spec.draw is not None and searched:  # the n-th values are the n-th trial
                trials = zip(*searched.values(), strict=True)
            found += [own | dict(zip(searched, tried, strict=True)) for tried in trials]
    return [place for i, place in enumerate(found) if place not in found[:i]]


T = TypeVar("T")


def widened(now: SweepSpec, before: SweepSpec, file: SweepSpec) -> SweepSpec:
    """What is planned now with what was planned before, so that a plan of a part never narrows a sweep.

    Args:
        now: the grid as planned now.
        before: as its sweep's folder has it.
        file: the grid as its file has it, whose order is that of tables and figures. What is not in the file comes
            after, in the order in which it was planned.
    """

    def union(file: Iterable[T], before: Iterable[T], now: Iterable[T]) -> tuple[T, ...]:
        known = [*before, *now]
        return tuple(value for value in dict.fromkeys([*file, *known]) if value in known)

    keys = dict.fromkeys([*now.axes, *before.axes])
    axes = {key: union(*(spec.axes.get(key, ()) for spec in (file, before, now))) for key in keys}
    # Of mappings whose order is that of rows, those of now come first, and their values count.
    labels = SweepLabels(
        {**before.labels.model, **now.labels.model},
        {**before.labels.optimizer, **now.labels.optimizer},
        {**now.labels.overrides, **before.labels.overrides, **now.labels.overrides},
    )
    return dataclasses.replace(
        now,
        axes=axes,
        seeds=union(file.seeds, before.seeds, now.seeds),
        overrides={**now.overrides, **before.overrides, **now.overrides},
        search={**now.search, **before.search, **now.search},
        settings_of={**before.settings_of, **now.settings_of},
        searched=_both(now.searched, before.searched),
        labels=labels,
        runs=union((), before.runs, now.runs),
    )


def _both(now: Searched | None, before: Searched | None) -> Searched | None:
    """What was searched for the parts planned now and before, from one selection."""
    if now is None or before is None or now.sha256 != before.sha256:
        return now
    trials = {m: {**before.trials.get(m, {}), **now.trials.get(m, {})} for m in {**before.trials, **now.trials}}
    return dataclasses.replace(now, trials=trials)


def checked_seeds(seeds: object) -> tuple[int, ...]:
    """Raises UserError for anything but a list of distinct seeds, or a single one."""
    several = list(seeds) if isinstance(seeds, list | tuple) else [seeds]
    found = tuple(seed for seed in several if type(seed) is int and seed in SEEDS)
    if len(found) < len(several):
        raise UserError(
            f"seeds={several}: needs a list of integers of 0 or more, below 2**32, for instance 'seeds=[0,1,2]'"
        )
    if not found or len(set(found)) < len(found):
        raise UserError(f"seeds={several}: needs at least one seed, and each once")
    return found
