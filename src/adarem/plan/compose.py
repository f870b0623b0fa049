"""Hydra, and of Hydra only the Compose API: overrides are parsed and checked, and one cell's config composed.

No other module knows it. Errors name the key and the nearest valid name, which Hydra's own lack.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from adarem.resources import config_dir
from adarem.run.config import RunConfig, from_dict, nearest
from adarem.run.errors import UserError
from adarem.run.sweep import cell_name

OmegaConf.register_new_resolver("half", lambda n: n // 2, replace=True)  # epochs, in schedule/halfway.yaml

# Overrides of these say where and how to run, not what: they never show in a cell's name.
_NOT_IN_NAME = ("cluster", "wandb", "runs_dir", "results_dir", "seeds", "grid", "data", "scale")
_NOT_IN_NAME_KEYS = ("data.root", "data.beton_dir", "data.workers")
AXES = ("model", "optimizer", "schedule")  # choices of a file that a grid may vary, beside any dotted key


def composing() -> contextlib.AbstractContextManager[Any]:
    """Inside of it the functions below find ``configs/``."""
    return initialize_config_dir(str(config_dir()), version_base="1.3")


def labels() -> dict[str, dict[str, str]]:
    """The paper's name of every model and optimizer in ``configs/``, by its own name."""
    found: dict[str, dict[str, str]] = {}
    for group in ("model", "optimizer"):
        files = [_load(p) for p in sorted((config_dir() / group).glob("[!.]*.yaml"))]
        with _told():
            found[group] = {str(f.name): str(f.label) for f in files if {"name", "label"} <= set(f)}
    return found


def _load(path: Path) -> DictConfig:
    """One file of ``configs/``. Raises UserError when it is no mapping in YAML."""
    try:
        loaded = OmegaConf.load(path)
    except yaml.MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else "?"
        raise UserError(f"{path}: not valid YAML at line {line} ({e.problem}); mend it") from None
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as e:
        why = e.strerror if isinstance(e, OSError) else _first_line(e)
        raise UserError(f"{path}: cannot be read ({why}); mend it") from None
    if not isinstance(loaded, DictConfig):
        raise UserError(f"{path}: needs a mapping of settings")
    return loaded


def parse(overrides: list[str]) -> dict[str, Override]:
    """Hydra overrides by key, checked for names that do not exist.

    Raises:
        UserError: not an override, a key twice, an unknown key or option, or an axis where none can be.
    """
    parsed: dict[str, Override] = {}
    for o in _checked(overrides):
        key = key_of(o)
        if key in parsed:
            raise UserError(f"{key}: given twice ({parsed[key].input_line} and {o.input_line}); keep one")
        parsed[key] = o
    return parsed


def check(overrides: list[str], where: str) -> None:
    """The same for what stands in a grid file at the key ``where``: one value each, a key as often as it likes.

    Raises:
        UserError: as of ``parse``.
    """
    try:
        for o in _checked(overrides):
            if o.is_sweep_override():
                raise UserError(f"{o.input_line}: needs one value")
    except UserError as e:
        raise UserError(f"{where}: {e}") from None


def key_of(override: Override) -> str:
    """Its key, without the + or ~ before it."""
    return override.get_key_element().lstrip("+~")


def _checked(overrides: list[str]) -> list[Override]:
    parsed = []
    for text in overrides:
        named = bool(text.lstrip("+~").partition("=")[0].strip())
        if not named or "=" not in text and not text.startswith("~"):
            raise UserError(f"{text!r}: not an override; write key=value, for instance grid=table2 or optimizer.lr=0.1")
        try:
            parsed += OverridesParser.create().parse_overrides([text])
        except OverrideParseException as e:
            raise UserError(
                f"{text!r}: not in Hydra's override grammar ({_first_line(e)}); quote special characters"
            ) from None
    _check_names(parsed)
    return parsed


def _check_names(parsed: list[Override]) -> None:
    """Group names and options that do not exist get the nearest valid name, which Hydra's own message lacks."""
    root = config_dir()
    groups = {p.name: {f.stem for f in p.glob("*.yaml")} for p in root.iterdir() if p.is_dir()}
    plain = set(_load(root / "run.yaml")) - {"defaults"}
    for o in parsed:
        key = key_of(o)
        head = key.split(".")[0]
        if head not in groups and head not in plain:
            raise UserError(f"{key}: no such key; {nearest(key, {*groups, *plain})}")
        if o.is_delete() and head == key:
            raise UserError(f"~{key}: cannot be removed; give it another value, {key}=...")
        if o.is_sweep_override() and key == "seeds":
            raise UserError(f"{o.input_line}: needs a list, for instance seeds=[0,1,2]")
        if o.is_sweep_override() and (head == "grid" or head == key and key not in AXES):
            raise UserError(f"{o.input_line}: one value at a time; each makes a folder of runs of its own")
        if key in groups:
            for value in values(o):
                if value not in groups[key] and not (key == "model" and ":" in value):
                    raise UserError(
                        f"{key}={value}: no such file configs/{key}/{value}.yaml; {nearest(value, groups[key])}"
                    )


def values(override: Override) -> list[str]:
    """What stands behind the equals sign; several where it is an axis.

    Raises:
        UserError: an axis without a list of values, as Hydra's interval().
    """
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    try:
        return [str(v) for v in override.sweep_string_iterator()]
    except HydraException:
        raise UserError(f"{override.input_line}: an axis needs its values, {key_of(override)}=VALUE,VALUE") from None


def _need_path(key: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        given = "null" if value is None else value
        raise UserError(f"{key}={given}: needs a folder, for instance {key}=./{value or 'folder'}")


def _nested(override: str) -> bool:
    return "." in override.split("=")[0]


def compose_grid(given: list[str]) -> tuple[dict[str, Any], Path, Path]:
    """The grid, the folder of runs and that of results, with the overrides that bear on them and no cell's own."""
    base = _compose([s for s in given if _key(s) not in ("seeds", "model", "optimizer") and _of_grid(s)])
    with _told():
        for key in ("runs_dir", "results_dir"):
            _need_path(key, base[key])
        grid: Any = OmegaConf.to_container(base.grid, resolve=True)
        return grid, Path(base.runs_dir).absolute(), Path(base.results_dir).absolute()


def _key(override: str) -> str:
    return override.split("=")[0].lstrip("+~")


def _of_grid(override: str) -> bool:
    """Whether an override bears on the grid itself: a choice of files, or a key of the grid."""
    return not _nested(override) or _key(override).startswith("grid.")


def _compose(overrides: list[str]) -> DictConfig:
    try:
        with _told():
            return compose("run", overrides=overrides)
    except UserError:
        for path in sorted(config_dir().rglob("[!.]*.yaml")):  # a damaged file, which Hydra does not name
            _load(path)
        nested = [s.split("=")[0] for s in overrides if _nested(s)]
        if not nested:
            raise
        # Composed without dotted keys it tells which of them is misspelt, and what it was meant to be.
        plain = _compose([s for s in overrides if not _nested(s)])
        for key in nested:
            if not key.startswith(("+", "~")) and not _has_key(plain, key):
                raise _no_such_key(key, plain) from None
        raise


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What Hydra and OmegaConf have against a config becomes one line."""
    try:
        yield
    except OmegaConfBaseException as e:
        line, key = _first_line(e), e.full_key
        raise UserError(f"{key}: {line}" if key and key not in line else line) from None
    except (HydraException, yaml.YAMLError, OSError, ValueError) as e:
        raise UserError(_first_line(e)) from None


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or str(error.__cause__ or "").strip()
    return next(iter(text.splitlines()), type(error).__name__).rstrip(".")


def compose_cell(choice: Mapping[str, str], seed: int, shared: list[str], off_axes: list[Override]) -> RunConfig:
    """One cell's config, checked.

    Args:
        choice: its place on every axis, by key.
        seed: its seed.
        shared: overrides that all cells have, as Hydra reads them.
        off_axes: those of them that the user gave, which join the cell's name.

    Raises:
        UserError: a key that does not exist, a value that is missing or impossible.
    """
    lines = []
    for key, value in choice.items():
        if key == "model" and ":" in value:
            lines += ["model=resnet18", f"model.name={value}", f"model.label={value}"]
        else:
            lines.append(f"{key}={value}")
    cfg = _compose([*lines, *shared])
    if isinstance(cfg.data, DictConfig) and OmegaConf.is_missing(cfg.data, "root"):
        raise UserError(
            f"data.root: has no value; name the data set's folder, data.root=/data/{cfg.data.name}, or take "
            f"data={'pydoc' if cfg.data.get('kind') == 'text' else 'digits'}"
        )
    with _told():
        raw: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    for key in {"root", "beton_dir"} & set(raw["data"] or ()):
        _need_path(f"data.{key}", raw["data"][key])
        raw["data"][key] = os.path.abspath(raw["data"][key])
    in_name = {
        key_of(o): o.get_value_element_as_str()
        for o in off_axes
        if key_of(o) not in (*_NOT_IN_NAME, *_NOT_IN_NAME_KEYS)
        and key_of(o).split(".")[0] not in ("cluster", "wandb", "grid")
    }
    in_name |= {k: v for k, v in choice.items() if k not in ("model", "optimizer")}
    grid = raw.pop("grid")["name"]
    for key in ("seeds", "runs_dir", "results_dir"):
        raw.pop(key)
    cell = cell_name(choice["model"], choice["optimizer"], seed, in_name)
    return from_dict({"grid": grid, "cell": cell, "seed": seed, "overrides": in_name, **raw})


def _has_key(cfg: DictConfig, key: str) -> bool:
    parent, _, leaf = key.rpartition(".")
    node = OmegaConf.select(cfg, parent)
    return isinstance(node, DictConfig) and leaf in list(node.keys())  # `in node` is False for a key without a value


def _no_such_key(key: str, cfg: DictConfig) -> UserError:
    parent, _, leaf = key.rpartition(".")
    node = OmegaConf.select(cfg, parent)
    if not isinstance(node, DictConfig):
        return UserError(f"{key}: no such key; {nearest(parent, [str(k) for k in cfg])}")
    owner = f" ({node.name})" if parent == "optimizer" else ""
    return UserError(f"{key}: no such key{owner}; {nearest(leaf, [str(k) for k in node])}")
