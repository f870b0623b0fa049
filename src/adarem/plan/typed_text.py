"""Settings that are text are what was typed, also where Hydra or YAML would read a number, a time or a truth value."""

import dataclasses
import functools
import os
import re
import types
import typing
from collections.abc import Iterator, Mapping

import yaml

from adarem.resources import config_files
from adarem.run.config import RunConfig
from adarem.run.errors import UserError
from adarem.run.text import user_path

PATHS = ("runs_dir", "results_dir", "data.root", "data.beton_dir", "model.init", "grid.settings_from")
# Quotes, lists, axes, functions, escapes and interpolations are Hydra's.
_HYDRAS = re.compile(r"""['"\[\]{}(),\\]|\$\{""")
_HYDRA_READS_TEXT = re.compile(r"(?!(?i:true|false|null|inf|nan)$)[A-Za-z_/.][A-Za-z_/][\w./:@?*|%+-]*", re.ASCII)


def as_typed(override: str) -> str:
    """The override as Hydra reads it as text, where its key is one of text; the ``~`` of a path as the user's home.

    Raises:
        UserError: the ``~`` of a user who does not exist.
    """
    head, equals, value = override.partition("=")
    key = head.lstrip("+")
    if not equals or key not in _text_keys() or value in ("", "null", "???"):
        return override
    if key in PATHS and value.lstrip("'\"").startswith("~"):
        quote = value[0] if value[0] in "'\"" else ""
        value = quote + user_path(value[len(quote) :])
    if _HYDRAS.search(value) or _HYDRA_READS_TEXT.fullmatch(value):
        return f"{head}={value}"
    return f'{head}="{value}"'


def need_path(key: str, value: object) -> None:
    """Raises UserError for what cannot name a folder."""
    if not isinstance(value, str) or not value:
        given = "null" if value is None else value
        raise UserError(f"{key}={given}: needs a folder, for instance {key}=./{value or 'folder'}")


def set_path(data: object, key: str) -> None:
    """Makes a folder of a composed ``data`` section absolute, in place."""
    if isinstance(data, dict) and key in data:
        need_path(f"data.{key}", data[key])
        data[key] = os.path.abspath(user_path(data[key]))


def restore_text(raw: Mapping[str, object]) -> None:
    """Puts the text of the files of ``configs/`` in place of what YAML made of it: ``time: 12:00:00`` is no number."""
    for key in _text_keys():
        group, _, leaf = key.partition(".")
        section = raw.get(group)
        if isinstance(section, dict) and isinstance(value := section.get(leaf), bool | int | float):
            typed = {text for text, read in _scalars(group, leaf) if read == value and type(read) is type(value)}
            if len(typed) == 1:
                section[leaf] = typed.pop()


def _scalars(group: str, leaf: str) -> Iterator[tuple[str, object]]:
    """What the files of a group have at a key: as it is written, and as YAML reads it."""
    for path in config_files(group).values():
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        for name, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if name.value == leaf and isinstance(value, yaml.ScalarNode):
                yield value.value, yaml.safe_load(value.value)


@functools.cache
def _text_keys() -> frozenset[str]:
    return frozenset((*PATHS, "grid.name", *_text_of(RunConfig)))


def _text_of(cls: type, prefix: str = "") -> Iterator[str]:
    """Dotted keys of the settings of a dataclass that are text, and not one of several words."""
    for name, hint in typing.get_type_hints(cls).items():
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if str in kinds and set(kinds) <= {str, type(None)}:
            yield f"{prefix}{name}"
        for kind in kinds:
            if dataclasses.is_dataclass(kind) and isinstance(kind, type):
                yield from _text_of(kind, f"{prefix}{name}.")
