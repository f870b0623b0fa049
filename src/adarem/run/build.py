"""Frozen dataclasses from the plain dicts and lists of YAML, by their type hints.

Not pydantic: to import it and to build the schema of a config takes 0.25 s of CPU time at every start, of which reading
100 configs wins back 0.06 s; ``adarem status`` of 100 runs takes 0.6 to 0.8 s (pydantic 2.14, 2026-11-25).
"""

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Annotated, Literal, TypeVar

from adarem.run.errors import UserError
from adarem.run.setting import Setting

T = TypeVar("T")

# Metadata of a field: its key in the file, where that is not its name; that it takes all keys that are no field's; that
# it came after version 0.1, so that a config of before is one with its default (see ``identity``).
KEY, REST, LATER = "key", "rest", "later"


def nearest(name: str, valid: Iterable[str]) -> str:
    """``did you mean 'x'?`` or the list of valid names, to end an error message with."""
    valid = sorted(valid)
    close = closest(name, valid)
    return f"did you mean '{close}'?" if close is not None else "valid: " + ", ".join(valid)


def closest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that ``name`` resembles most; None where it resembles none."""
    return next(iter(difflib.get_close_matches(name, sorted(valid), n=1, cutoff=0.5)), None)


def build(cls: type[T], raw: object, prefix: str = "") -> T:
    """A ``cls`` from a mapping of its fields, nested dataclasses included.

    Args:
        cls: a dataclass.
        prefix: dotted key of ``raw`` in the file, for messages.

    Raises:
        UserError: an unknown, missing or ill-typed key, named with the nearest valid one.
    """
    known = _fields(typing.cast(Hashable, cls))
    if not isinstance(raw, Mapping):
        raise UserError(f"{prefix or 'config'}={raw!r}: needs a mapping with {', '.join(known)}")
    dot = f"{prefix}." if prefix else ""
    rest = next((f for f in known.values() if f.rest), None)
    values: dict[str, object] = {}
    others: dict[str, object] = {}
    for k in raw:
        if k in known and not known[k].rest:
            continue
        if rest is None:
            raise UserError(f"{dot}{k}: no such key; {nearest(str(k), known)}")
        others[str(k)] = coerce(raw[k], typing.get_args(rest.hint)[1], f"{dot}{k}")
    for key, f in known.items():
        if f.rest:
            values[f.name] = others
        elif key in raw:
            values[f.name] = coerce(raw[key], f.hint, dot + key)
        elif f.required:
            raise UserError(f"{dot}{key}: missing")
    return cls(**values)


class _Field(typing.NamedTuple):
    name: str
    hint: object
    required: bool
    rest: bool
    later: bool


@functools.cache  # the same dozen classes are asked for with every run that is read
def _fields(cls: Hashable) -> dict[str, _Field]:
    """The fields of a dataclass by their keys in a file."""
    assert isinstance(cls, type) and dataclasses.is_dataclass(cls)
    hints, none = typing.get_type_hints(cls, include_extras=True), dataclasses.MISSING
    return {
        f.metadata.get(KEY, f.name): _Field(
            f.name,
            hints[f.name],
            f.default is none and f.default_factory is none,
            bool(f.metadata.get(REST)),
            bool(f.metadata.get(LATER)),
        )
        for f in dataclasses.fields(cls)
    }


def own_keys(cls: type) -> list[str]:
    """The keys of a dataclass's own fields, without those that it takes for no field of its own."""
    return [key for key, f in _fields(typing.cast(Hashable, cls)).items() if not f.rest]


def later_keys(cls: type, prefix: str = "") -> Iterator[str]:
    """Dotted keys of all settings that came after version 0.1, which a file may leave out."""
    for key, f in _fields(typing.cast(Hashable, cls)).items():
        if f.later:
            yield f"{prefix}{key}"
        else:
            inner = (f.hint, *typing.get_args(f.hint))
            for hint in (h for h in inner if isinstance(h, type) and dataclasses.is_dataclass(h)):
                yield from later_keys(hint, f"{prefix}{key}.")


def unset(section: object, prefix: str = "") -> Iterator[str]:
    """Dotted keys of the settings of later versions that have their default."""
    assert dataclasses.is_dataclass(section)
    for f in dataclasses.fields(section):
        key, value = f"{prefix}{f.metadata.get(KEY, f.name)}", getattr(section, f.name)
        if f.metadata.get(LATER) and value == f.default:
            yield key
        elif dataclasses.is_dataclass(value):
            yield from unset(value, f"{key}.")


def coerce(value: object, hint: object, key: str) -> object:
    """``value`` as the type hint ``hint`` wants it; ``key`` names it in messages.

    Raises:
        UserError: it is of another type, not one of the choices, out of its range, or not finite.
    """
    if hint in (object, typing.Any):
        return value
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _allowed(coerce(value, args[0], key), args[1:], key)
    if origin in (types.UnionType, typing.Union):
        return _one_of(value, args, key)
    if origin is Literal:
        if value not in args:
            raise UserError(f"{key}={value}: {nearest(str(value), map(str, args))}")
        return value
    if origin is tuple:  # tuple[X, ...]
        if not isinstance(value, list | tuple):
            raise UserError(f"{key}={value!r}: needs a list of {_name(args[0])}")
        return tuple(coerce(v, args[0], f"{key}[{i}]") for i, v in enumerate(value))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, key)
    if origin is not None:  # Mapping[str, X]
        if not isinstance(value, Mapping):
            raise UserError(f"{key}={value!r}: needs a mapping")
        return {str(k): coerce(v, args[1], f"{key}.{k}") for k, v in value.items()}
    return _plain(value, hint, key)


def _allowed(value: object, notes: tuple[object, ...], key: str) -> object:
    """``value``, if the ``Setting`` among the notes of an ``Annotated`` allows it; None is no number and always is."""
    for note in notes:
        if isinstance(note, Setting) and note.allowed is not None and value is not None and value not in note.allowed:
            raise UserError(f"{key}={value}: needs {note.allowed}")
    return value


def as_float(value: object, key: str) -> float:
    """``value`` as a finite float. Raises UserError, which names ``key``."""
    number = _plain(value, float, key)
    assert isinstance(number, float)
    return number


def _plain(value: object, kind: object, key: str) -> object:
    """A str, int, float or bool; an int is taken for a float, and nothing else for anything."""
    assert isinstance(kind, type)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is str and isinstance(value, int | float):  # what looks like a number to YAML: --time=60
        raise UserError(f"{key}={value!r}: needs text; put it in quotes where it is written, as it is to be read")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{key}={value!r}: needs {kind.__name__}, not {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={value}: needs a finite number")
    return value


def _one_of(value: object, hints: tuple[object, ...], key: str) -> object:
    """``T | None``, plain types (str | int | float | bool), or dataclasses that differ by their ``kind``."""
    if value is None and type(None) in hints:
        return None
    inner = [h for h in hints if h is not type(None)]
    if len(inner) == 1:
        return coerce(value, inner[0], key)
    classes = [h for h in inner if isinstance(h, type) and dataclasses.is_dataclass(h)]
    if classes:
        return build(_of_kind(classes, value, key), value, key)
    if isinstance(value, list | tuple):
        for sequence in (h for h in inner if typing.get_origin(h) is tuple):
            return coerce(value, sequence, key)
    if not any(type(value) is h for h in inner):
        raise UserError(f"{key}={value!r}: needs {' or '.join(map(_name, inner))}")
    return _plain(value, type(value), key)


def _of_kind(classes: list[type], raw: object, key: str) -> type:
    """The dataclass whose ``kind`` the mapping names, the first where it names none; of several of one kind the one
    whose ``name`` is its very name, else the last."""
    kinds: dict[str, list[type]] = {}
    for c in classes:
        kinds.setdefault(str(typing.get_args(_fields(c)["kind"].hint)[0]), []).append(c)
    if not isinstance(raw, Mapping) or "kind" not in raw:
        return classes[0]
    if raw["kind"] not in kinds:
        raise UserError(f"{key}.kind={raw['kind']}: {nearest(str(raw['kind']), kinds)}")
    *named, last = kinds[raw["kind"]]
    return next((c for c in named if raw.get("name") in typing.get_args(_fields(c)["name"].hint)), last)


def _name(hint: object) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    return hint.__name__ if isinstance(hint, type) else str(hint)
