"""``selected.yaml`` of a search, which `adarem report` writes once its runs are finished, and the same in words."""

from dataclasses import dataclass
from pathlib import Path

from adarem.report.labels import labels
from adarem.report.load import Sweep
from adarem.run.errors import UserError
from adarem.run.labels import readable
from adarem.run.selection import select, write_selection
from adarem.run.text import typed


@dataclass(frozen=True)
class Outcome:
    """Of a search: its file, None while there is no selection, and what it says in lines."""

    file: Path | None
    rule: str  # or why nothing is selected yet
    lines: tuple[str, ...] = ()  # one for each network and optimizer

    @property
    def screen(self) -> tuple[str, ...]:
        """The lines for the screen, with what the user types to take the settings."""
        end = (
            () if self.file is None else (f"A grid takes these settings by {typed('grid.settings_from', self.file)}.",)
        )
        return (self.rule, *(f"  {line}" for line in self.lines), *end)


def select_and_write(sweep: Sweep) -> Outcome | None:
    """Writes what a finished search selects into its folder; None of a sweep that is no search."""
    if not sweep.spec.search:
        return None
    try:
        selection = select(sweep.folder)
        path = write_selection(sweep.folder, selection)
    except UserError as e:
        return Outcome(None, f"Nothing selected: {e}.")
    printed = labels(sweep)
    lines = []
    for model, by_optimizer in selection.selected.items():
        for optimizer, chosen in by_optimizer.items():
            settings = readable(chosen.best.settings) if chosen.best else "nothing"
            lines.append(f"{printed.model(model)}, {printed.optimizer(optimizer)}: {settings}: {chosen.text()}")
    return Outcome(path, f"Selected in {sweep.name}: {selection.rule}.", tuple(lines))
