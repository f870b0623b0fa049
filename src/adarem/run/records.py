"""Values of a record that a run's files hold: any key may be absent, or hold what nobody expects."""

import math
from collections.abc import Mapping
from typing import TypeAlias

JsonRecord: TypeAlias = Mapping[str, object]


def is_number(value: object) -> bool:
    """Whether ``value`` is a finite number, which True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(record: JsonRecord, key: str) -> float | None:
    """A finite number, else None."""
    value = record.get(key)
    return float(value) if isinstance(value, int | float) and is_number(value) else None


def count(record: JsonRecord, key: str) -> int | None:
    """An integer, else None."""
    value = record.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text(record: JsonRecord, key: str) -> str:
    """A value in words; empty where there is none."""
    value = record.get(key)
    return "" if value is None else str(value)


def section(record: JsonRecord, key: str) -> JsonRecord:
    """A mapping within the record; empty where there is none."""
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}
