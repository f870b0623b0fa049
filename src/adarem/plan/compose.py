"""Hydra, and of Hydra only the Compose API: overrides are parsed and checked, and the config of one run is composed.

No other module knows Hydra. Errors name the key and the nearest valid name, which Hydra's own errors lack.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from adarem.plan import holdout
from adarem.plan.check_network import NetworkChecks, check_label, complete_network
from adarem.plan.check_optimizer import OptimizerChecks, complete
from adarem.plan.check_weights import complete_weights
from adarem.plan.micro_batch import AUTO, MicroBatches
from adarem.plan.one_value import check_axis, literal
from adarem.plan.own_schedule import apply_own_schedule, take_own_schedule
from adarem.plan.typed_text import as_typed, need_path, restore_text, set_path
from adarem.resources import config_dirs, config_files, config_groups
from adarem.run.batch_norm import MICRO_BATCH
from adarem.run.build import later_keys, nearest
from adarem.run.catalog import DATA_SETS, NETWORKS, OPTIMIZERS
from adarem.run.config import RunConfig
from adarem.run.errors import UserError
from adarem.run.identity import identity
from adarem.run.imported_names import Group, check_form, default_label, is_imported, is_own_network
from adarem.run.setting import Range
from adarem.run.sweep import RENAMED, SweepLabels, run_name, setting_text
from adarem.run.text import typed, user_path
from adarem.run.text_models import default_gpt_label

if TYPE_CHECKING:
    from adarem.data.images.own_folder import FolderReading

OmegaConf.register_new_resolver("half", lambda n: n // 2, replace=True)  # epochs, in schedule/halfway.yaml
OmegaConf.register_new_resolver("ranks_of", lambda run, ranks: ranks.get(run, 1), replace=True)

# They say where and how to run, not what: they never show in a run's name.
_NOT_IN_NAME = ("cluster", "wandb", "runs_dir", "results_dir", "seeds", "grid", "data", "scale")
_NOT_IN_NAME_KEYS = tuple(f"data.{key}" for key in ("root", "beton_dir", "workers", "name", "label", "num_classes"))
_NOT_IN_NAME_KEYS += ("train.watch_every",)
# Groups whose choice may be a name to import; a file that stands in for one while Hydra composes.
_IN_PLACE: Mapping[Group, str] = {"optimizer": "sgdm", "model": "resnet18"}
AXES = ("model", "optimizer", "schedule")  # choices of a file that a grid may vary, next to any dotted key

# Keys that may be in no file of configs/, since they have a default: an override of one adds it.
_IN_NO_FILE = (
    "model.label", "optimizer.label", "data.label", "data.expected_train", "data.expected_val", "data.expected_test",
    *later_keys(RunConfig),
    *(f"grid.{key}" for key in ("heading", "figure", "compare", "selection", "settings_from", "settings_of")),
)  # fmt: skip


class _ShippedConfigs(SearchPathPlugin):
    """Hydra looks into adarem's own configs for what the user's folder of configs lacks."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for place in config_dirs()[1:]:
            search_path.append(provider="adarem", path=f"file://{place}")


Plugins.instance().register(_ShippedConfigs)


def composing() -> contextlib.AbstractContextManager[object]:
    """A context in which the functions below find the user's configs and adarem's own."""
    context: contextlib.AbstractContextManager[object] = initialize_config_dir(
        str(config_dirs()[0]), version_base="1.3"
    )
    return context


def labels() -> SweepLabels:
    """What tables print for every model and optimizer of the catalog and of ``configs/``, in order of name."""
    found: dict[str, dict[str, str]] = {
        "model": {name: known.label for name, known in NETWORKS.items()},
        "optimizer": {name: known.label for name, known in OPTIMIZERS.items()},
    }
    for group, by_name in found.items():
        files = {stem: _load(p) for stem, p in sorted(config_files(group).items())}
        with _one_line():
            for stem, f in files.items():
                if {"name", "label"} <= set(f):
                    by_name[stem if is_imported(str(f.name)) else str(f.name)] = str(f.label)
    return SweepLabels(dict(sorted(found["model"].items())), dict(sorted(found["optimizer"].items())))


def _load(path: Path) -> DictConfig:
    """One file of ``configs/``. Raises UserError when it is no mapping in YAML."""
    try:
        loaded = OmegaConf.load(path)
    except yaml.MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else "?"
        raise UserError(f"{path}: not valid YAML at line {line} ({e.problem}); fix it") from None
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as e:
        raise UserError(f"{path}: cannot be read ({getattr(e, 'strerror', None) or _first_line(e)}); fix it") from None
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
    """Checks overrides that a grid file has at the key ``where``: one value each; a key may occur more than once.

    Raises:
        UserError: as ``parse``.
    """
    try:
        for o in _checked(overrides):
            if o.is_sweep_override():
                raise UserError(f"{o.input_line}: needs one value")
    except UserError as e:
        raise UserError(f"{where}: {e}") from None


def no_such_grid_key(key: str, valid: Iterable[str]) -> UserError:
    """With the name of now for a key that files of before had, else with the nearest valid one."""
    hint = f"its name is '{RENAMED[key]}'" if key in RENAMED else nearest(key, valid)
    return UserError(f"grid.{key}: no such key; {hint}")


def key_of(override: Override) -> str:
    """Its key, without the + or ~ before it."""
    return override.get_key_element().lstrip("+~")


def line_of(override: Override) -> str:
    """As the user wrote it."""
    return str(override.input_line)


def _checked(overrides: list[str]) -> list[Override]:
    parsed = []
    for text in overrides:
        named = bool(text.lstrip("+~").partition("=")[0].strip())
        if not named or "=" not in text and not text.startswith("~"):
            raise UserError(f"{text!r}: not an override; write key=value, for instance grid=table2 or optimizer.lr=0.1")
        try:
            parsed += OverridesParser.create().parse_overrides([as_typed(literal(text))])
        except OverrideParseException as e:
            form = typed(*text.split("=", 1)) if "=" in text else "key=value"
            raise UserError(
                f"{text!r}: not in Hydra's override grammar ({_first_line(e)}); quote special characters: {form}"
            ) from None
    _check_names(parsed)
    return parsed


def _check_names(parsed: list[Override]) -> None:
    """Raises UserError with the nearest valid name for groups and options that do not exist."""
    groups = {group: set(config_files(group)) for group in config_groups()}
    plain = set(_load(config_files("")["run"])) - {"defaults"}
    for o in parsed:
        key = key_of(o)
        head, _, rest = key.partition(".")
        if head == "grid" and rest.split(".")[0] in RENAMED:
            raise no_such_grid_key(rest.split(".")[0], ())
        if head not in groups and head not in plain:
            raise UserError(f"{key}: no such key; {nearest(key, {*groups, *plain})}")
        if o.is_delete() and head == key:
            raise UserError(f"~{key}: cannot be removed; give it another value, {key}=...")
        if o.is_sweep_override() and key == "seeds":
            raise UserError(f"{o.input_line}: needs a list, for instance 'seeds=[0,1,2]'")
        check_axis(o)
        if o.is_sweep_override() and (head == "grid" or head == key and key not in AXES):
            raise UserError(f"{o.input_line}: one value at a time; each makes a folder of runs of its own")
        if key in groups:
            for value in values(o):
                if key in ("optimizer", "model") and is_imported(value):
                    check_form(key, value, key)
                elif value not in groups[key]:
                    raise UserError(
                        f"{key}={value}: no such file configs/{key}/{value}.yaml; {nearest(value, groups[key])}"
                    )


def values(override: Override) -> list[str]:
    """The values after the equals sign; several where it is an axis.

    Raises:
        UserError: an axis without a list of values, as Hydra's interval().
    """
    if not override.is_sweep_override():
        return [override.get_value_element_as_str().replace("\\:", ":")]  # Hydra escapes the colon of torch:NAdam
    try:
        return [str(v).replace("\\:", ":") for v in override.sweep_string_iterator()]
    except HydraException:
        raise UserError(f"{override.input_line}: an axis needs its values, {key_of(override)}=VALUE,VALUE") from None


def _nested(override: str) -> bool:
    return "." in override.split("=")[0]


@dataclass(frozen=True)
class ComposedGrid:
    """A grid as composed, unchecked, and the folders of runs and results."""

    grid: object
    runs_dir: Path
    results_dir: Path


def compose_grid(given: list[str]) -> ComposedGrid:
    """The grid with those of the overrides that bear on it, and none of a single run's."""
    base = _compose(_added([s for s in given if _key(s) not in ("seeds", "model", "optimizer") and _of_grid(s)]))
    with _one_line():
        for key in ("runs_dir", "results_dir"):
            need_path(key, base[key])
        grid = OmegaConf.to_container(base.grid, resolve=True)
        return ComposedGrid(grid, *(Path(user_path(base[key])).absolute() for key in ("runs_dir", "results_dir")))


def _added(overrides: Iterable[str]) -> list[str]:
    """The overrides as Hydra takes them where a key is in no file."""
    return [f"++{s}" if s.split("=")[0] in _IN_NO_FILE else s for s in map(as_typed, overrides)]


def _key(override: str) -> str:
    return override.split("=")[0].lstrip("+~")


def _of_grid(override: str) -> bool:
    """Whether an override bears on the grid itself: a choice of files, or a key of the grid."""
    return not _nested(override) or _key(override).startswith("grid.")


def _compose(overrides: list[str]) -> DictConfig:
    try:
        with _one_line():
            return compose("run", overrides=list(map(literal, overrides)))
    except UserError:
        for group in ("", *sorted(config_groups())):
            for _, path in sorted(config_files(group).items()):  # a damaged file, which Hydra does not name
                _load(path)
        nested = [s.split("=")[0] for s in overrides if _nested(s)]
        if not nested:
            raise
        # Composed without dotted keys it shows which of them is misspelt, and the nearest valid one.
        plain = _compose([s for s in overrides if not _nested(s)])
        for key in nested:
            if not key.startswith(("+", "~")) and not _has_key(plain, key):
                raise _no_such_key(key, plain) from None
        raise


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Errors of Hydra and OmegaConf become UserErrors of one line."""
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


def imported_from(group: Group, choice: str) -> str | None:
    """Where an optimizer or a network of the axis is imported from: ``torch:NAdam`` itself, or what a file of
    ``configs/optimizer`` says as ``name`` or ``class``; None for those of the catalog."""
    if is_imported(choice):
        return choice
    path = config_files(group).get(choice)
    if path is None:
        return None
    file = _load(path)
    with _one_line():
        named = [str(file[key]) for key in ("class", "name") if key in file]
    return next(filter(is_imported, named), None)


def _with_own_settings(cfg: DictConfig, group: Group, name: str, lines: list[str]) -> None:
    """Puts an optimizer or a network that is in no file, with the settings of these overrides, in place of the composed
    one."""
    given = {o.get_key_element().lstrip("+~").removeprefix(f"{group}."): o.value() for o in _checked(lines)}
    with _one_line():
        OmegaConf.set_struct(cfg, False)
        cfg[group] = OmegaConf.create({"name": name, **given})


class Folders:
    """Fills in what configs leave to the images in a folder, of which each is listed once."""

    def __init__(self) -> None:
        self._reading: FolderReading | None = None

    def complete(self, data: object) -> None:
        """Adds to a composed ``data`` section, in place, what it leaves open; see `FolderReading.complete`."""
        if not isinstance(data, dict) or data.get("kind", "images") != "images":
            return
        if any(key in data and data[key] is None for key in ("name", "num_classes", "val_folder", "beton_dir")):
            if self._reading is None:
                from adarem.data.images.own_folder import FolderReading  # needs numpy

                self._reading = FolderReading()
            self._reading.complete(data)


@dataclass(frozen=True)
class Lookups:
    """What configs leave to things outside of them: signatures of imports, images in a folder, sizes that fit."""

    optimizers: OptimizerChecks
    networks: NetworkChecks
    folders: Folders
    micro_batches: MicroBatches


def compose_run(
    choice: Mapping[str, str],
    seed: int,
    shared: list[str],
    off_axes: list[Override],
    lookups: Lookups,
    *,
    of_search: bool = False,
) -> RunConfig:
    """One run's config, checked.

    Args:
        choice: its place on every axis, by key.
        seed: its seed.
        shared: overrides that all runs have, as Hydra reads them.
        off_axes: those of them that the user gave, which join the run's name.
        lookups: what configs leave to things outside of them.
        of_search: whether the grid is a search, which holds images out where nothing is said.

    Raises:
        UserError: a key that does not exist, a value that is missing or impossible.
    """
    lines = []
    for key, value in choice.items():
        # Of what is in no file, a file that is there; what it says is left out below.
        in_file = _IN_PLACE[key] if key in _IN_PLACE and is_imported(value) else value
        lines.append(f"{key}={in_file}")
    lines += shared
    sources = {group: imported_from(group, choice[group]) for group in _IN_PLACE}
    own: dict[Group, list[str]] = {}
    for group, source in sources.items():
        if source == choice[group]:
            own[group] = [s for s in lines if _key(s).startswith(f"{group}.")]
            lines = [s for s in lines if s not in own[group]]
        elif source is not None:  # a file may leave out any setting that has a default
            lines = [f"++{s.lstrip('+')}" if _key(s).startswith(f"{group}.") and s[0] != "~" else s for s in lines]
    cfg = _compose(_added(lines))
    for group, of_group in own.items():
        _with_own_settings(cfg, group, choice[group], of_group)
    if isinstance(cfg.data, DictConfig) and OmegaConf.is_missing(cfg.data, "root"):
        raise UserError(
            f"data.root: has no value; name the data set's folder, data.root=/data/{cfg.data.name or 'images'}, or "
            f"take data={'pydoc' if cfg.data.get('kind') == 'text' else 'digits'}"
        )
    with _one_line():
        raw: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    restore_text(raw)
    own_schedule = take_own_schedule(raw["optimizer"])
    for group, source in sources.items():
        if source is None or group == "model" and not is_own_network(source):
            continue
        # The report knows it by this name, also where two files name one class.
        raw[group]["name"] = choice[group]
        if source != choice[group]:
            raw[group]["class"] = source
        if group == "optimizer":
            signature = lookups.optimizers.signature(source)
            complete(raw[group], source, signature)
            if signature.averages:
                own_schedule = {"schedule.name": "constant", **own_schedule}
        else:
            kind = raw[group].setdefault("kind", (raw["data"] or {}).get("kind", "images"))
            complete_network(raw[group], source, lookups.networks.signature(source, kind))
    apply_own_schedule(raw, own_schedule, {*choice, *map(_key, shared)})
    set_path(raw["data"], "root")
    lookups.folders.complete(raw["data"])
    set_path(raw["data"], "beton_dir")
    complete_weights(raw["model"])
    with_catalog(raw)
    holdout.settle(raw["data"], of_search=of_search)
    in_name = {key_of(o): o.get_value_element_as_str() for o in off_axes if names_runs(key_of(o))}
    in_name |= {k: v for k, v in choice.items() if k not in ("model", "optimizer")}
    if "model.init" in in_name:  # where it lies does not matter
        in_name["model.init"] = os.path.basename(in_name["model.init"].strip("\"'"))
    grid = raw.pop("grid")["name"]
    for key in ("seeds", "runs_dir", "results_dir"):
        raw.pop(key)
    _as_floats(raw["optimizer"])
    config = lookups.micro_batches.complete({"grid": grid, "cell": "", "seed": seed, "overrides": {}, **raw})
    if in_name.get(MICRO_BATCH) == AUTO:
        in_name[MICRO_BATCH] = str(config.scale.micro_batch_size)
    flat = identity(config)
    if "data.holdout" in in_name:  # auto, as a number
        in_name["data.holdout"] = setting_text(flat.get("data.holdout"))
    if MICRO_BATCH not in flat and MICRO_BATCH not in choice:  # it makes no other run
        in_name.pop(MICRO_BATCH, None)
    in_name = {k: setting_text(v) if isinstance(v := flat.get(k), float) else text for k, text in in_name.items()}
    name = run_name(choice["model"], choice["optimizer"], seed, in_name)
    return replace(config, run_name=name, overrides=in_name)


def names_runs(key: str) -> bool:
    """Whether an override of ``key`` off the axes joins the names of runs."""
    return key not in (*_NOT_IN_NAME, *_NOT_IN_NAME_KEYS) and key.split(".")[0] not in ("cluster", "wandb", "grid")


def _as_floats(optimizer: dict[str, object]) -> None:
    """Writes the numbers of a built-in optimizer in one way, in place: 1 and 1.0 are one setting."""
    known = OPTIMIZERS.get(str(optimizer.get("name")))
    for key, setting in (known.hparams if known else {}).items():
        if isinstance(setting.allowed, Range) and type(value := optimizer.get(key)) is int:
            optimizer[key] = float(value)


def with_catalog(raw: Mapping[str, object]) -> None:
    """Adds to a composed config, in place, what the catalog knows of its parts and no file or override says.

    A part whose name the catalog does not know is labelled by that name; the counts of its data are not known.
    """
    for group, known in (("model", NETWORKS), ("optimizer", OPTIMIZERS), ("data", DATA_SETS)):
        part = raw.get(group)
        if not isinstance(part, dict) or not isinstance(name := part.get("name"), str):
            continue
        if group == "model" and name == "gpt":
            part.setdefault("label", default_gpt_label(part.get("layers"), part.get("width")))
        part.setdefault("label", known[name].label if name in known else default_label(name, group))
        if group == "model":
            check_label(name, str(part["label"]))
        if group == "optimizer" and name in known and part["label"] != known[name].label:
            raise UserError(
                f"optimizer.label={part['label']}: {name} is printed as {known[name].label}; leave the label out, or "
                "name an optimizer of your own"
            )
        if group == "data":
            splits = ("train", "val", "test") if part.get("kind") == "text" else ("train", "val")
            counts = DATA_SETS[name].counts if name in known else dict.fromkeys(splits)
            for split, count in counts.items():
                part.setdefault(f"expected_{split}", count)


def _has_key(cfg: DictConfig, key: str) -> bool:
    parent, _, leaf = key.rpartition(".")
    node = OmegaConf.select(cfg, parent)
    return isinstance(node, DictConfig) and leaf in list(node.keys())  # `in node` is False for a key without a value


def _no_such_key(key: str, cfg: DictConfig) -> UserError:
    parent, _, leaf = key.rpartition(".")
    if key.startswith(("optimizer.schedule", "optimizer.clip_grad_norm")):  # of a file of configs/optimizer
        for_all = "train.clip_grad_norm" if leaf == "clip_grad_norm" else key.removeprefix("optimizer.")
        return UserError(f"{key}: only a file of configs/optimizer says so; for all optimizers alike: {for_all}=...")
    node = OmegaConf.select(cfg, parent)
    if not isinstance(node, DictConfig):
        return UserError(f"{key}: no such key; {nearest(parent, [str(k) for k in cfg])}")
    owner = f" ({node.name})" if parent == "optimizer" else ""
    in_no_file = [k.rpartition(".")[2] for k in _IN_NO_FILE if k.rpartition(".")[0] == parent]
    return UserError(f"{key}: no such key{owner}; {nearest(leaf, [*map(str, node), *in_no_file])}")
