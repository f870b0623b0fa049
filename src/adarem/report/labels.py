"""What a table prints instead of internal names: the paper's, for every run, planned, added by hand or left over."""

from collections.abc import Mapping
from dataclasses import dataclass

from adarem.report.load import Sweep
from adarem.run.labels import own_settings
from adarem.run.streams import one_line


def in_a_cell(text: str) -> str:
    """The text on one line, and without what ends the cell of a Markdown table."""
    return one_line(text).replace("|", "¦")


@dataclass(frozen=True)
class Labels:
    """By internal name; a name without a label is printed as it is."""

    models: Mapping[str, str]
    optimizers: Mapping[str, str]
    settings: Mapping[str, str]  # by the text of the overrides; in the grid's order, then those off its plan

    def model(self, name: str) -> str:
        return in_a_cell(self.models.get(name, name))

    def optimizer(self, name: str) -> str:
        return in_a_cell(self.optimizers.get(name, name))

    def overrides(self, text: str) -> str:
        return in_a_cell(self.settings.get(text, text))

    def cell(self, optimizer: str, overrides: str) -> str:
        """An optimizer with its settings: ``AdaRem (λ 0.9)``."""
        own = self.overrides(overrides)
        return f"{self.optimizer(optimizer)} ({own})" if own else self.optimizer(optimizer)


def labels(sweep: Sweep) -> Labels:
    """The labels that plan wrote into grid.yaml, those of the runs' own configs, and settings in words."""
    planned = sweep.spec.labels
    models, optimizers, off_plan = dict(planned.model), dict(planned.optimizer), {}
    labels_of: dict[str, dict[str, None]] = {}
    for r in sweep.runs:
        labels_of.setdefault(r.config.model.name, {})[r.config.model.label] = None
        optimizers[r.config.optimizer.name] = r.config.optimizer.label
        if r.overrides not in planned.overrides:
            off_plan[r.overrides] = own_settings(r.config)
    for name, own in labels_of.items():  # several where an axis changes the size that the label says
        models[name] = next(iter(own)) if len(own) == 1 else planned.model.get(name, name)
    return Labels(models, optimizers, dict(planned.overrides) | dict(sorted(off_plan.items())))
