"""What a table prints instead of internal names: the paper's, for every cell, planned, added by hand or left over."""

from collections.abc import Mapping
from dataclasses import dataclass

from adarem.report.load import Campaign
from adarem.run.labels import readable


@dataclass(frozen=True)
class Labels:
    """By internal name; a name that nobody labelled stands for itself."""

    models: Mapping[str, str]
    optimizers: Mapping[str, str]
    variants: Mapping[str, str]  # in the grid's order, then those off its plan

    def model(self, name: str) -> str:
        return self.models.get(name, name)

    def optimizer(self, name: str) -> str:
        return self.optimizers.get(name, name)

    def variant(self, text: str) -> str:
        return self.variants.get(text, text)

    def cell(self, optimizer: str, variant: str) -> str:
        """An optimizer with its settings: ``AdaRem (λ 0.9)``."""
        own = self.variant(variant)
        return f"{self.optimizer(optimizer)} ({own})" if own else self.optimizer(optimizer)


def labels(campaign: Campaign) -> Labels:
    """The labels that ``plan`` wrote into grid.yaml, those of the runs' own configs, and readable settings."""
    written: dict[str, dict[str, str]] = campaign.grid.get("labels") or {}
    models, optimizers = dict(written.get("model", {})), dict(written.get("optimizer", {}))
    variants = dict(written.get("settings", {}))
    off_plan = {}
    for r in campaign.runs:
        models[r.config.model.name] = r.config.model.label
        optimizers[r.config.optimizer.name] = r.config.optimizer.label
        if r.variant not in variants:
            off_plan[r.variant] = readable(r.config.overrides)
    return Labels(models, optimizers, variants | dict(sorted(off_plan.items())))
