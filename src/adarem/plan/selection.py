"""The settings that a search selected, as overrides of the runs that take them."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from adarem.run.build import nearest
from adarem.run.catalog import OPTIMIZERS
from adarem.run.config import RunConfig
from adarem.run.errors import UserError
from adarem.run.reproduction import has_papers_setting
from adarem.run.selection import FILE, SelectionFile, read_selection
from adarem.run.sweep import Searched, SweepSpec, read_sweep, scale_in_name, setting_text, sweep_name
from adarem.run.text import user_path


@dataclass(frozen=True)
class Taken:
    """The file that a grid's settings are from; None: the grid has its own."""

    file: SelectionFile | None = None

    def overrides(self, model: str, optimizer: str) -> list[str]:
        """Raises UserError where the search selected nothing for them."""
        if self.file is None:
            return []
        path, selected = self.file.path, self.file.selection.selected
        for key, name, known in (("model", model, selected), ("optimizer", optimizer, selected.get(model, {}))):
            if name not in known:
                raise UserError(
                    f"{path}: has no settings for {key}={name}{'' if key == 'model' else f' on {model}'}; "
                    f"{nearest(name, known)}; search it too, or plan {key}={','.join(known)}"
                )
        best = selected[model][optimizer].best
        if best is None:
            raise UserError(
                f"{path}: every trial of {optimizer} on {model} diverged; search lower learning rates, or leave it out"
            )
        return [f"{key}={setting_text(value)}" for key, value in best.settings.items()]

    def places(self, own: list[dict[str, str]], settings_of: Mapping[str, str], given: Collection[str]) -> "Places":
        """The places of a grid, and further ones for ``grid.settings_of``, on each network.

        An optimizer that has no selected settings of its own on a network is there with those of the other alone.

        Args:
            own: of the grid.
            given: keys that the user has given, which no settings of a search replace.
        """
        if self.file is None or not settings_of:
            return Places(own, [])
        moved: list[dict[str, str]] = []
        kept = []
        for place in own:
            model, target = place["model"], place["optimizer"]
            if target not in settings_of:
                kept.append(place)
                continue
            if target in self.file.selection.selected.get(model, {}):
                kept.append(place)
            taken = dict(text.split("=", 1) for text in self.overrides(model, settings_of[target]))
            known = {f"optimizer.{key}" for key in ("lr", "weight_decay", *_hparams(target))}
            fit = {k: v for k, v in taken.items() if not k.startswith("optimizer.") or k in known}
            new = place | {k: v for k, v in fit.items() if k not in given}
            if new not in moved and new != place:
                moved.append(new)
        return Places(kept, moved)

    def check_seeds(self, seeds: tuple[int, ...]) -> None:
        """Raises UserError where a run would have a seed on which its settings were selected."""
        used = set(self.file.selection.seeds) if self.file else set()
        if both := sorted(used & set(seeds)):
            free = [s for s in range(len(seeds) + len(used)) if s not in used][: len(seeds)]
            raise UserError(
                f"seeds={list(seeds)}: the search {self.file.selection.sweep if self.file else ''} selected on "
                f"{', '.join(map(str, both))}; give seeds that it did not see, seeds=[{','.join(map(str, free))}]"
            )

    def check_same(self, folder: Path) -> None:
        """Raises UserError where the sweep was planned before from another selection."""
        try:
            before = read_sweep(folder).searched if self.file else None
        except UserError:
            return  # none yet, or damaged
        if self.file and before and before.sha256 != self.file.sha256:
            raise UserError(
                f"{self.file.path}: changed since {folder} was planned from it ({before.sha256[:12]} then, "
                f"{self.file.sha256[:12]} now); restore it, or give another runs_dir"
            )

    def searched(self, spec: SweepSpec) -> Searched | None:
        """What the sweep's grid.yaml says of it."""
        if self.file is None:
            return None
        selection = self.file.selection
        trials: Mapping[str, Mapping[str, int]] = {
            model: {o: chosen.trials.planned for o, chosen in by_optimizer.items() if o in spec.optimizers}
            for model, by_optimizer in selection.selected.items()
            if model in spec.models
        }
        return Searched(selection.sweep, self.file.sha256, trials)

    @property
    def how(self) -> str:
        """Where the settings are from, in words."""
        if self.file is None:
            return ""
        return f"settings selected in {self.file.selection.sweep}: {self.file.selection.rule}"


@dataclass(frozen=True)
class Places:
    """Places in a grid, each as settings by key."""

    own: list[dict[str, str]]  # with the settings selected for their own optimizer
    moved: list[dict[str, str]]  # with those of another one, in the place itself


def _hparams(optimizer: str) -> Collection[str]:
    """The settings that a built-in optimizer takes next to lr and weight_decay."""
    return OPTIMIZERS[optimizer].hparams if optimizer in OPTIMIZERS else ()


def taken(source: str | None, runs_dir: Path, first: RunConfig) -> Taken:
    """What ``grid.settings_from`` names: a grid's search on the same data and scale, or the file itself.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    if source is None:
        return Taken()
    if source.endswith(".yaml"):
        return Taken(read_selection(Path(os.path.abspath(user_path(source)))))
    scale = scale_in_name(first.data.name, first.scale.name, has_papers_setting(first))
    return Taken(read_selection(runs_dir / sweep_name(source, first.data.name, scale) / FILE))
