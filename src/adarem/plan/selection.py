"""Which settings won a search: read from its run directories when the final table is planned."""

import math
from pathlib import Path
from typing import Any

from adarem.run.directory import FINISHED
from adarem.run.errors import UserError
from adarem.run.sweep import read_campaign, runs_in


def winners(folder: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """The settings of each optimizer with the lowest figure of the search's metric at its final epoch.

    Args:
        folder: runs/<campaign> of a finished search whose metric is better when lower.

    Returns:
        Optimizer to its winner's settings (dotted key to value), and a line that says how they were chosen. Seeds of
        the same settings are averaged; a diverged run never wins. Ties go to the settings whose text sorts first.

    Raises:
        UserError: a run of the search is not finished, or an optimizer has none that did not diverge.
    """
    metric = read_campaign(folder)["metrics"][0]
    found: dict[str, dict[tuple[tuple[str, str], ...], list[float]]] = {}
    unfinished = total = 0
    for run in runs_in(folder):
        config, total = run.config(), total + 1
        if run.status() not in FINISHED:
            unfinished += 1
            continue
        value = (run.result() or {}).get(metric, math.inf)
        settings = tuple(sorted((k, str(v)) for k, v in config.overrides.items()))
        found.setdefault(config.optimizer.name, {}).setdefault(settings, []).append(value)
    if unfinished or not total:
        raise UserError(
            f"{folder}: {unfinished} of {total} runs of the search are not finished; finish it with `adarem launch`, "
            "or leave it aside with grid.winners=null"
        )
    best = {}
    for optimizer, by_settings in found.items():
        means = {s: sum(values) / len(values) for s, values in by_settings.items()}
        settings = min(sorted(means), key=means.__getitem__)
        if not math.isfinite(means[settings]):
            raise UserError(f"{folder}: every run of {optimizer} diverged; search lower learning rates")
        best[optimizer] = dict(settings)
    return best, f"settings with the lowest {metric} of {total} runs in {folder.name}"
