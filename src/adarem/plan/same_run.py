"""Two ways to say one run: overrides that spell out a default, and runs of before under other names."""

import dataclasses
import json
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from adarem.run.config import RunConfig
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.identity import identity
from adarem.run.sweep import runs_in, same_setting


def spelled_out(keys: Iterable[str], composed: Callable[[frozenset[str]], RunConfig]) -> frozenset[str]:
    """Those of the overrides that change nothing, because they give what a run has without them.

    Args:
        keys: of overrides off the axes that would join the run's name.
        composed: the run without some of them.
    """
    found: frozenset[str] = frozenset()
    now = None
    for key in sorted(keys, key=lambda key: ("." not in key, key)):  # a choice of a file last: keys may belong to it
        now = now or _unnamed(composed(found))
        try:
            without = _unnamed(composed(found | {key}))
        except UserError:  # a setting that has no default
            continue
        if without == now:
            found |= {key}
    return found


def _unnamed(config: RunConfig) -> RunConfig:
    return dataclasses.replace(config, run_name="", overrides={})


def under_earlier_names(folder: Path, configs: list[RunConfig], varied: Collection[str]) -> list[RunConfig]:
    """The runs, of which those that were planned before under another name keep that name.

    A run of before is the same where it computes the same; one that a grid distinguishes by a setting that it varies is
    the same only if it carries that setting too, since tables and searches read it there.

    Args:
        folder: of the sweep.
        configs: as planned now.
        varied: the settings that the grid varies, by key.
    """
    names = {c.run_name for c in configs}
    new = [c for c in configs if not RunDir(folder / c.run_name).config_file.exists()]
    earlier: dict[str, list[RunConfig]] = {}
    for run in runs_in(folder) if new else ():
        try:
            config = run.config() if run.path.name not in names else None
        except UserError:
            continue  # the report names it
        if config is not None and config.run_name == run.path.name:
            earlier.setdefault(_what_it_computes(config), []).append(config)
    found = []
    for config in configs:
        same = earlier.get(_what_it_computes(config), []) if config in new else []
        of_before = next((old for old in same if _varied_alike(old, config, varied)), None)
        if of_before is not None:
            micro_batch = config.scale.micro_batch_size  # which may differ with the number of ranks
            scale = dataclasses.replace(of_before.scale, micro_batch_size=micro_batch)
            where = {"data": config.data, "cluster": config.cluster, "wandb": config.wandb, "train": config.train}
            config = dataclasses.replace(of_before, scale=scale, **where)  # type: ignore[arg-type]  # of these four
        found.append(config)
    return found


def _what_it_computes(config: RunConfig) -> str:
    """The same text for configs that differ in names alone, or in how numbers are written."""

    def plain(value: object) -> object:
        if isinstance(value, list):
            return [plain(v) for v in value]
        return float(value) if type(value) is int else value

    settings = {k: plain(v) for k, v in identity(config).items() if k != "cell" and not k.startswith("overrides.")}
    return json.dumps(settings, sort_keys=True)


def _varied_alike(a: RunConfig, b: RunConfig, varied: Collection[str]) -> bool:
    return all(
        (key in a.overrides) == (key in b.overrides) and same_setting(a.overrides.get(key), b.overrides.get(key))
        for key in varied
    )
