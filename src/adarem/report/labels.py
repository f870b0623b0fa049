"""What a table prints instead of internal names: the paper's, for every cell, planned, added by hand or left over."""

from collections.abc import Mapping
from dataclasses import dataclass

from adarem.report.load import Sweep
from adarem.run.labels import readable


@dataclass(frozen=True)
class Labels:
    """By internal name; a name that nobody labelled stands for itself."""

    models: Mapping[str, str]
    optimizers: Mapping[str, str]
    settings: Mapping[str, str]  # in the grid's order, then those off its plan

    def model(self, name: str) -> str:
        return self.models.get(name, name)

    def optimizer(self, name: str) -> str:
        return self.optimizers.get(name, name)

    def overrides(self, text: str) -> str:
        return self.settings.get(text, text)

    def cell(self, optimizer: str, overrides: str) -> str:
        """An optimizer with its settings: ``AdaRem (λ 0.9)``."""
        own = self.overrides(overrides)
        return f"{self.optimizer(optimizer)} ({own})" if own else self.optimizer(optimizer)


def labels(sweep: Sweep) -> Labels:
    """The labels that ``plan`` wrote into grid.yaml, those of the runs' own configs, and readable settings."""
    written: dict[str, dict[str, str]] = sweep.grid.get("labels") or {}
    models, optimizers = dict(written.get("model", {})), dict(written.get("optimizer", {}))
    settings = dict(written.get("settings", {}))
    off_plan = {}
    for r in sweep.runs:
        models[r.config.model.name] = r.config.model.label
        optimizers[r.config.optimizer.name] = r.config.optimizer.label
        if r.overrides not in settings:
            off_plan[r.overrides] = readable(r.config.overrides)
    return Labels(models, optimizers, settings | dict(sorted(off_plan.items())))
