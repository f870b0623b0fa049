"""The settings that a search selects, read from its runs when the final table is planned."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from adarem.run.directory import FINISHED
from adarem.run.errors import UserError
from adarem.run.records import number
from adarem.run.sweep import read_sweep, runs_in


@dataclass(frozen=True)
class Selection:
    """Network and optimizer to the settings selected for them (dotted key to value); a line on where they come from."""

    settings: Mapping[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    how: str = ""

    def overrides(self, model: str, optimizer: str) -> list[str]:
        return [f"{key}={value}" for key, value in self.settings.get((model, optimizer), {}).items()]

    def how_for(self, models: Iterable[str]) -> str:
        """``how``, and the networks of which the search had none."""
        without = {*models} - {model for model, _ in self.settings}
        if not self.settings or not without:
            return self.how
        return f"{self.how}, which had no {', '.join(sorted(without))}: settings of configs/tuned there"


def selected_settings(folder: Path) -> Selection:
    """The settings of each network and optimizer with the lowest value of the search's primary metric at its end.

    Seeds of the same settings are averaged; a diverged run is never selected. Ties go to the settings whose text sorts
    first.

    Args:
        folder: runs/<sweep> of a finished search whose metric is better when lower.

    Raises:
        UserError: a run of the search is not finished, or an optimizer has none that did not diverge.
    """
    metric = read_sweep(folder).metrics[0]
    found: dict[tuple[str, str], dict[tuple[tuple[str, str], ...], list[float]]] = {}
    unfinished = total = 0
    for run in runs_in(folder):
        config, total = run.config(), total + 1
        if run.status() not in FINISHED:
            unfinished += 1
            continue
        final = number(run.result() or {}, metric)
        value = math.inf if final is None else final
        settings = tuple(sorted((k, str(v)) for k, v in config.overrides.items()))
        found.setdefault((config.model.name, config.optimizer.name), {}).setdefault(settings, []).append(value)
    if unfinished or not total:
        raise UserError(
            f"{folder}: {unfinished} of {total} runs of the search are not finished; finish it with `adarem launch`, "
            "or plan without it by grid.settings_from=null"
        )
    best = {}
    for (model, optimizer), by_settings in found.items():
        means = {s: sum(values) / len(values) for s, values in by_settings.items()}
        settings = min(sorted(means), key=means.__getitem__)
        if not math.isfinite(means[settings]):
            raise UserError(f"{folder}: every run of {optimizer} diverged; search lower learning rates")
        best[model, optimizer] = dict(settings)
    return Selection(best, f"settings with the lowest {metric} of {total} runs in {folder.name}")
