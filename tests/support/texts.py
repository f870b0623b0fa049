"""Configs over small texts."""

from pathlib import Path
from typing import Any

from adarem.run.config import TextConfig


def text_config(root: Path, **changes: Any) -> TextConfig:
    """The Penn Treebank's settings with seven words and any counts."""
    base: dict[str, Any] = {"name": "ptb", "label": "Penn Treebank", "embedded": False, "vocabulary": 7}
    base |= {"expected_train": None, "expected_val": None, "expected_test": None}
    return TextConfig(kind="text", root=str(root), **(base | changes))
