"""What people read instead of internal names: settings in words, a table's cell. Standard library only."""

import hashlib
from collections.abc import Mapping

from adarem.run.batch_norm import MICRO_BATCH, batch_norm_text, normalised_together
from adarem.run.catalog import SYMBOLS
from adarem.run.config import RunConfig
from adarem.run.sweep import SweepLabels, heading, overrides_text, setting_text

__all__ = ["heading", "own_settings", "readable", "shortened", "table_cell"]


def readable(settings: Mapping[str, object]) -> str:
    """Settings in words: ``λ 0.9, weight decay 0.0005``; in the order of ``adarem.run.sweep.overrides_text``."""
    words = ((k.rsplit(".", 1)[-1], v) for k, v in sorted(settings.items()))
    return ", ".join(f"{SYMBOLS.get(k, k.replace('_', ' '))} {setting_text(v)}" for k, v in words)


def own_settings(config: RunConfig) -> str:
    """A run's overrides in words; a number of images in one pass as what it does to a network with BatchNorm."""
    others = {k: v for k, v in config.overrides.items() if k != MICRO_BATCH}
    if len(others) == len(config.overrides) or normalised_together(config) is None:
        return readable(config.overrides)
    return ", ".join(filter(None, [batch_norm_text(config.overrides[MICRO_BATCH]), readable(others)]))


def table_cell(config: RunConfig, labels: SweepLabels) -> str:
    """The cell of its table that a run is one seed of: ``ResNet-18 · AdaRem``, ``ResNet-18 · AdaRem (λ 0.9)``.

    Args:
        labels: the sweep's own, which replace ``readable`` where they name the settings.
    """
    settings = labels.overrides.get(overrides_text(config.overrides), own_settings(config))
    cell = f"{config.model.label} · {config.optimizer.label}"
    return f"{cell} ({settings})" if settings else cell


def shortened(text: str, longest: int) -> str:
    """At most ``longest`` characters; a hash of the complete text ends a shortened one."""
    if len(text) <= longest:
        return text
    return f"{text[: longest - 9]}… {hashlib.sha256(text.encode()).hexdigest()[:7]}"
