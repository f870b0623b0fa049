"""What the paper states of optimizer settings next to its tables: ``results/paper/settings.yaml``."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from adarem.run.build import as_float, nearest
from adarem.run.catalog import IMAGE_NETWORKS, OPTIMIZERS
from adarem.run.errors import UserError
from adarem.run.files import read_yaml
from adarem.run.setting import Range


@dataclass(frozen=True)
class Stated:
    """By internal names; what is missing the paper leaves open."""

    settings: Mapping[str, Mapping[str, Mapping[str, object]]]  # kind of data, optimizer, setting
    figures: Mapping[str, tuple[str, ...]]  # networks of a figure that has fewer than its table

    def of(self, kind: str, optimizer: str) -> Mapping[str, object]:
        """What it states of one optimizer, ``lr`` among it."""
        return self.settings.get(kind, {}).get(optimizer, {})

    def is_paper(self, kind: str, optimizer: str, setting: str, value: object) -> bool:
        """Whether the paper states this very value."""
        of_optimizer = self.of(kind, optimizer)
        return setting in of_optimizer and of_optimizer[setting] == value


def read_stated(path: Path) -> Stated:
    """Reads and checks settings.yaml.

    Raises:
        UserError: an unknown name, with the nearest valid one, or a value that is no number where one is needed.
    """

    def mapping(where: str, value: object, valid: Iterable[str]) -> Mapping[str, object]:
        if not isinstance(value, Mapping):
            raise UserError(f"{path}: {where}: needs a mapping")
        names = list(valid)
        for key in value:
            if key not in names:
                raise UserError(f"{path}: {where}: {key}: no such name; {nearest(str(key), names)}")
        return value

    raw = read_yaml(Path(os.path.realpath(path)), "restore it from the repository")
    for key in raw:
        if key not in ("images", "text", "figures"):
            raise UserError(f"{path}: {key}: no such name; {nearest(str(key), ('images', 'text', 'figures'))}")
    settings: dict[str, dict[str, Mapping[str, object]]] = {}
    for kind in ("images", "text"):
        settings[kind] = {}
        for optimizer, of_optimizer in mapping(kind, raw.get(kind), OPTIMIZERS).items():
            where, known = f"{kind}: {optimizer}", OPTIMIZERS[optimizer].hparams
            settings[kind][optimizer] = mapping(where, of_optimizer, ("lr", *known))
            for name, value in settings[kind][optimizer].items():
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                numeric = name == "lr" or isinstance(known[name].allowed, Range)
                if numeric and not is_number:  # YAML reads 1e-4 as text
                    raise UserError(f"{path}: {where}: {name}: needs a number, with a point: not {value!r}")
                if is_number:
                    as_float(value, f"{path}: {where}: {name}")
    figures: dict[str, tuple[str, ...]] = {}
    drawn = raw.get("figures", {})
    for figure, models in mapping("figures", drawn, drawn if isinstance(drawn, Mapping) else ()).items():
        if not isinstance(models, list):
            raise UserError(f"{path}: figures: {figure}: needs a list of networks")
        figures[str(figure)] = tuple(mapping(f"figures: {figure}", dict.fromkeys(map(str, models)), IMAGE_NETWORKS))
    return Stated(settings, figures)
