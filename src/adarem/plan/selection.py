"""The settings that a search selects, read from its runs when the final table is planned."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from adarem.run.directory import FINISHED
from adarem.run.errors import UserError
from adarem.run.records import number
from adarem.run.sweep import read_sweep, runs_in


@dataclass(frozen=True)
class Selection:
    """Optimizer to the settings selected for it (dotted key to value), and one line on where settings come from."""

    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    how: str = ""

    def overrides(self, optimizer: str) -> list[str]:
        return [f"{key}={value}" for key, value in self.settings.get(optimizer, {}).items()]


def selected_settings(folder: Path) -> Selection:
    """The settings of each optimizer with the lowest value of the search's primary metric at the final epoch.

    Seeds of the same settings are averaged; a diverged run is never selected. Ties go to the settings whose text sorts
    first.

    Args:
        folder: runs/<sweep> of a finished search whose metric is better when lower.

    Raises:
        UserError: a run of the search is not finished, or an optimizer has none that did not diverge.
    """
    metric = read_sweep(folder).metrics[0]
    found: dict[str, dict[tuple[tuple[str, str], ...], list[float]]] = {}
    unfinished = total = 0
    for run in runs_in(folder):
        config, total = run.config(), total + 1
        if run.status() not in FINISHED:
            unfinished += 1
            continue
        final = number(run.result() or {}, metric)
        value = math.inf if final is None else final
        settings = tuple(sorted((k, str(v)) for k, v in config.overrides.items()))
        found.setdefault(config.optimizer.name, {}).setdefault(settings, []).append(value)
    if unfinished or not total:
        raise UserError(
            f"{folder}: {unfinished} of {total} runs of the search are not finished; finish it with `adarem launch`, "
            "or plan without it by grid.settings_from=null"
        )
    best = {}
    for optimizer, by_settings in found.items():
        means = {s: sum(values) / len(values) for s, values in by_settings.items()}
        settings = min(sorted(means), key=means.__getitem__)
        if not math.isfinite(means[settings]):
            raise UserError(f"{folder}: every run of {optimizer} diverged; search lower learning rates")
        best[optimizer] = dict(settings)
    return Selection(best, f"settings with the lowest {metric} of {total} runs in {folder.name}")
