"""What the paper states of settings, read from ``results/paper/settings.yaml`` and checked."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adarem.run.config import HYPER, MODELS, nearest
from adarem.run.errors import UserError


@dataclass(frozen=True)
class Stated:
    """By internal names; what is missing the paper leaves open."""

    settings: dict[str, dict[str, dict[str, Any]]]  # kind of data, optimizer, setting
    figures: dict[str, list[str]]  # networks of a figure that has fewer than its table

    def is_paper(self, kind: str, optimizer: str, setting: str, value: Any) -> bool:
        """Whether the paper states this very value."""
        of_optimizer = self.settings.get(kind, {}).get(optimizer, {})
        return setting in of_optimizer and of_optimizer[setting] == value


def read_stated(path: Path) -> Stated:
    """Raises UserError, one line with the nearest valid name, for whatever settings.yaml should not hold."""

    def mapping(where: str, value: Any, valid: Iterable[str]) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise UserError(f"{path}: {where or 'it'}: needs a mapping")
        for key in value:
            if key not in valid:
                raise UserError(f"{path}: {where}{': ' * bool(where)}{key}: no such name; {nearest(str(key), valid)}")
        return value

    try:
        raw = mapping("", yaml.safe_load(path.read_text()), ("images", "text", "figures"))
    except yaml.YAMLError:
        raise UserError(f"{path}: not valid YAML") from None
    for kind in ("images", "text"):
        for optimizer, settings in mapping(kind, raw.get(kind), HYPER).items():
            for name, value in mapping(f"{kind}: {optimizer}", settings, ("lr", *HYPER[optimizer])).items():
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                if not is_number and HYPER[optimizer].get(name, (0, 1)) is not None:  # YAML reads 1e-4 as text
                    raise UserError(f"{path}: {kind}: {optimizer}: {name}: needs a number, with a point: not {value!r}")
    figures = raw.pop("figures", {})
    for figure, models in mapping("figures", figures, figures if isinstance(figures, dict) else ()).items():
        mapping(f"figures: {figure}", dict.fromkeys(models), MODELS)
    return Stated(raw, figures)
