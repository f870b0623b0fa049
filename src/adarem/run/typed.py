"""Dataclasses from the plain dicts and lists of YAML, by their type hints. Standard library only."""

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from adarem.run.errors import UserError


def nearest(name: str, valid: Iterable[str]) -> str:
    """``; did you mean 'x'?`` or the list of valid names, to end an error message with."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else "valid: " + ", ".join(valid)


# Asked for the same dozen classes with every run that is read.
_hints = functools.cache(typing.get_type_hints)


def build(cls: type, raw: Any, prefix: str = "") -> Any:
    """A ``cls`` from a mapping of its fields, nested dataclasses included.

    Args:
        prefix: dotted key of ``raw`` in the whole, for messages.

    Raises:
        UserError: an unknown, missing or ill-typed key, named with the nearest valid one.
    """
    if not isinstance(raw, Mapping):
        raise UserError(
            f"{prefix or 'config'}={raw!r}: needs a mapping with {', '.join(f.name for f in dataclasses.fields(cls))}"
        )
    dot = f"{prefix}." if prefix else ""
    hints = _hints(cls)
    for k in raw:
        if k not in hints:
            raise UserError(f"{dot}{k}: no such key; {nearest(str(k), hints)}")
    values = {}
    for f in dataclasses.fields(cls):
        if f.name in raw:
            values[f.name] = coerce(raw[f.name], hints[f.name], dot + f.name)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise UserError(f"{dot}{f.name}: missing")
    return cls(**values)


def coerce(value: Any, kind: Any, key: str) -> Any:
    """``value`` as the type hint ``kind`` wants it; ``key`` names it in messages.

    Raises:
        UserError: it is of another type, not one of the choices, or not finite.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):  # T | None, or dataclasses told apart by their kind
        inner = [a for a in args if a is not type(None)]
        if len(inner) > 1:
            return build(_of_kind(inner, value, key), value, key)
        return None if value is None else coerce(value, inner[0], key)
    if origin is Literal:
        if value not in args:
            raise UserError(f"{key}={value}: {nearest(str(value), map(str, args))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{key}={value!r}: needs a list of {args[0].__name__}")
        return tuple(coerce(v, args[0], f"{key}[{i}]") for i, v in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return build(kind, value, key)
    if origin is not None:  # Mapping[str, Any]
        if not isinstance(value, Mapping):
            raise UserError(f"{key}={value!r}: needs a mapping")
        return dict(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is str and isinstance(value, int | float):  # what looks like a number to YAML: --time=60
        quoted = "'" + f'{key}="{value}"' + "'"
        raise UserError(f'{key}={value!r}: needs text; quote it: {quoted} on the command line, "{value}" in a file')
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{key}={value!r}: needs {kind.__name__}, not {type(value).__name__}")
    if kind is float and not math.isfinite(value):
        raise UserError(f"{key}={value}: needs a finite number")
    return value


def _of_kind(classes: list[type], raw: Any, key: str) -> type:
    """The dataclass whose ``kind`` the mapping names; the first where it names none."""
    kinds = {typing.get_args(_hints(c)["kind"])[0]: c for c in classes}
    if not isinstance(raw, Mapping) or "kind" not in raw:
        return classes[0]
    if raw["kind"] not in kinds:
        raise UserError(f"{key}.kind={raw['kind']}: {nearest(str(raw['kind']), kinds)}")
    return kinds[raw["kind"]]
