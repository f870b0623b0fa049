"""Control plane, first half: a grid file and the user's overrides become run directories.

The only module that knows Hydra, and of Hydra only the Compose API. Everything is composed and checked before the
first file is written; planning twice changes nothing.
"""

import itertools
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from adarem.config import MODELS, RunConfig, from_dict, nearest
from adarem.errors import UserError
from adarem.rundir import RunDir, campaign, cell_name, write_campaign
from adarem.winners import winners

OmegaConf.register_new_resolver("half", lambda n: n // 2, replace=True)  # epochs, in schedule/halfway.yaml

# Overrides of these say where and how to run, not what: they never show in a cell's name.
_NOT_IN_NAME = ("cluster", "wandb", "runs_dir", "results_dir", "seeds", "grid", "data", "scale")
_NOT_IN_NAME_KEYS = ("data.root", "data.beton_dir", "data.workers")


@dataclass(frozen=True)
class Cell:
    """One run of a plan; ``new`` when no run directory stood there before."""

    run: RunDir
    config: RunConfig
    new: bool


@dataclass(frozen=True)
class Plan:
    """A composed and checked grid. Nothing is on disk before ``write``."""

    folder: Path  # runs/<campaign>
    runs_dir: Path
    results_dir: Path
    grid: dict[str, Any]
    cells: list[Cell]

    def write(self) -> None:
        """Freezes every cell's run directory and the grid file beside them."""
        write_campaign(self.folder, self.grid)
        for cell in self.cells:
            cell.run.freeze(cell.config)

    def describe(self) -> str:
        """The cells as a plain table, and where they lie."""
        rows = [("cell", "model", "optimizer", "lr", "weight decay", "seed", "status")]
        for cell in self.cells:
            c = cell.config
            status = "new" if cell.new else cell.run.status()
            rows.append(
                (
                    c.cell,
                    c.model.label,
                    c.optimizer.label,
                    f"{c.optimizer.lr:g}",
                    f"{c.optimizer.weight_decay:g}",
                    str(c.seed),
                    status,
                )
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        table = ["  ".join(word.ljust(w) for word, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        c = self.cells[0].config
        head = [
            f"{self.grid['name']}: {self.grid['title']}",
            f"{c.data.label}, {c.scale.epochs} epochs, global batch {c.scale.global_batch_size}, {c.schedule.name} "
            f"schedule, {c.cluster.nodes} x {c.cluster.ranks_per_node} ranks on {c.cluster.device} ({c.cluster.name})",
        ]
        if c.rehearsal:
            head.append(f"REHEARSAL: {c.rehearsal}")
        if self.grid.get("winners"):
            head.append(f"selection: {self.grid['selection']}")
        new = sum(cell.new for cell in self.cells)
        return "\n".join([*head, "", *table, "", f"{len(self.cells)} cells, {new} new, in {self.folder}"])


def config_dir() -> Path:
    """The ``configs/`` folder: $ADAREM_CONFIGS, that of the working directory, or that of the checkout."""
    asked = os.environ.get("ADAREM_CONFIGS")
    places = [Path(asked)] if asked else [Path.cwd() / "configs", Path(__file__).parents[2] / "configs"]
    for place in places:
        if (place / "run.yaml").is_file():
            return place.resolve()
    raise UserError(f"{places[0]}: no run.yaml there; run from a checkout, or set ADAREM_CONFIGS to its configs folder")


def make_plan(overrides: list[str]) -> Plan:
    """Composes and checks every cell of a grid.

    Args:
        overrides: Hydra overrides. A comma-separated value is an axis of the grid; one of an axis that the grid has
            replaces it (``optimizer=sgdm,adarem``); any other becomes a further axis (``optimizer.lr=0.1,0.2``).

    Raises:
        UserError: one line that names the key and the nearest valid name.
    """
    parsed = _parse(overrides)
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        given = {o.get_key_element(): o for o in parsed}
        axes_given = {k for k, o in given.items() if k in ("model", "optimizer") or o.is_sweep_override()}
        shared = [o.input_line for k, o in given.items() if k not in axes_given]
        _check_names(parsed)
        base = _compose([s for s in shared if s.split("=")[0].lstrip("+~") != "seeds" and _of_base(s)])
        for key in ("runs_dir", "results_dir"):
            _need_path(key, base[key])
        # What the grid itself settles, where the user does not settle it otherwise.
        settled = [s for s in base.grid.get("settings", []) if s.split("=")[0] not in given]
        axes = {k: [str(v) for v in values] for k, values in base.grid.axes.items()}
        for key in axes_given:
            axes[key] = _values(given[key])
        seeds = _seeds(given, base)
        off_axes = [o for k, o in given.items() if k not in axes_given]
        choices = [
            dict(zip(axes, values, strict=True)) | further
            for values in itertools.product(*axes.values())
            for further in _further_axes(base, dict(zip(axes, values, strict=True)), given)
        ]
        first = _compose_cell(choices[0], seeds[0], [*settled, *shared], off_axes)
        best, chosen = _winners(base, first)
        cells = []
        for choice in choices:
            won = [f"{k}={v}" for k, v in best.get(choice["optimizer"], {}).items() if k not in given]
            cells += [_compose_cell(choice, seed, [*settled, *won, *shared], off_axes) for seed in seeds]
        folder = Path(base.runs_dir).absolute() / campaign(base.grid.name, first.data.name, first.scale.name)
    _check_library_models({c.model.name for c in cells if c.model.kind == "images"} - set(MODELS))
    runs = [RunDir(folder / c.cell) for c in cells]
    twice = {c.cell for c in cells if sum(c.cell == d.cell for d in cells) > 1}
    if twice:
        raise UserError(
            f"two cells of the grid have the same name {sorted(twice)[0]}: the same value twice on an axis?"
        )
    for run, config in zip(runs, cells, strict=True):
        run.check(config)
    grid = OmegaConf.to_container(base.grid, resolve=True)
    grid |= {"axes": axes, "seeds": seeds, "data": first.data.name, "scale": first.scale.name}
    grid["selection"] = "; ".join(filter(None, [grid.get("selection"), chosen]))
    return Plan(
        folder=folder,
        runs_dir=Path(base.runs_dir).absolute(),
        results_dir=Path(base.results_dir).absolute(),
        grid=grid,
        cells=[Cell(r, c, not r.config_file.exists()) for r, c in zip(runs, cells, strict=True)],
    )


def _further_axes(base: DictConfig, choice: Mapping[str, str], given: Mapping[str, Override]) -> list[dict[str, str]]:
    """What a search varies for this optimizer alone, less what the user settles; one empty choice without a search."""
    of_optimizer = base.grid.get("search", {}).get(choice["optimizer"], {})
    axes = {k: [str(v) for v in values] for k, values in of_optimizer.items() if k not in given}
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _winners(base: DictConfig, first: RunConfig) -> tuple[dict[str, dict[str, Any]], str]:
    """The settings that the grid's search found on the same data and scale, and a line on where settings come from."""
    search = base.grid.get("winners")
    if search is None:
        return {}, ""
    folder = Path(base.runs_dir).absolute() / campaign(search, first.data.name, first.scale.name)
    if not (folder / "grid.yaml").exists():
        return {}, f"settings of configs/tuned, no {folder.name} in {folder.parent.name}"
    return winners(folder)


def _parse(overrides: list[str]) -> list[Override]:
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
    keys = [o.get_key_element() for o in parsed]
    for key in keys:
        if keys.count(key) > 1:
            both = " and ".join(o.input_line for o in parsed if o.get_key_element() == key)
            raise UserError(f"{key}: given twice ({both}); keep one")
    return parsed


def _need_path(key: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        given = "null" if value is None else value
        raise UserError(f"{key}={given}: needs a folder, for instance {key}=./{value or 'folder'}")


def _of_base(override: str) -> bool:
    """Whether an override bears on the grid itself: a choice of files, or a key of the grid."""
    return not _nested(override) or override.lstrip("+~").startswith("grid.")


def _nested(override: str) -> bool:
    return "." in override.split("=")[0]


def _check_names(parsed: list[Override]) -> None:
    """Group names and options that do not exist get the nearest valid name, which Hydra's own message lacks."""
    root = config_dir()
    groups = {p.name: {f.stem for f in p.glob("*.yaml")} for p in root.iterdir() if p.is_dir()}
    plain = set(OmegaConf.load(root / "run.yaml")) - {"defaults"}
    for o in parsed:
        key = o.get_key_element().lstrip("+~")
        head = key.split(".")[0]
        if head not in groups and head not in plain:
            raise UserError(f"{key}: no such key; {nearest(key, {*groups, *plain})}")
        if o.is_delete() and head == key:
            raise UserError(f"~{key}: cannot be removed; give it another value, {key}=...")
        if o.is_sweep_override() and head == key and key not in ("model", "optimizer", "schedule", "seeds"):
            raise UserError(f"{o.input_line}: one value at a time; each makes a folder of runs of its own")
        if key in groups:
            for value in _values(o):
                if value not in groups[key] and not (key == "model" and ":" in value):
                    raise UserError(
                        f"{key}={value}: no such file configs/{key}/{value}.yaml; {nearest(value, groups[key])}"
                    )


def _values(override: Override) -> list[str]:
    if override.is_sweep_override():
        return [str(v) for v in override.sweep_string_iterator()]
    return [override.get_value_element_as_str()]


def _seeds(given: Mapping[str, Override], base: DictConfig) -> list[int]:
    seeds = given["seeds"].value() if "seeds" in given else OmegaConf.to_container(base.grid.seeds)
    seeds = seeds if isinstance(seeds, list) else [seeds]
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise UserError(f"seeds={seeds}: needs a list of integers of 0 or more, for instance seeds=[0,1,2]")
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds={seeds}: needs at least one seed, and each once")
    return seeds


def _compose(overrides: list[str]) -> DictConfig:
    try:
        return compose("run", overrides=overrides)
    except (HydraException, OmegaConfBaseException) as e:
        raise UserError(_first_line(e)) from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def _compose_cell(choice: Mapping[str, str], seed: int, shared: list[str], off_axes: list[Override]) -> RunConfig:
    lines = []
    for key, value in choice.items():
        if key == "model" and ":" in value:
            lines += ["model=resnet18", f"model.name={value}", f"model.label={value}"]
        else:
            lines.append(f"{key}={value}")
    try:
        cfg = _compose([*lines, *shared])
    except UserError:
        # Composed without dotted keys it tells which of them is misspelt, and what it was meant to be.
        plain = _compose([s for s in (*lines, *shared) if not _nested(s)])
        for key in (*choice, *(o.get_key_element() for o in off_axes)):
            if "." in key and not key.startswith(("+", "~")) and not _has_key(plain, key):
                raise _no_such_key(key, plain) from None
        raise
    if OmegaConf.is_missing(cfg.data, "root"):
        raise UserError(
            f"data.root: has no value; name the data set's folder, data.root=/data/{cfg.data.name}, or take "
            f"data={'pydoc' if cfg.data.get('kind') == 'text' else 'digits'}"
        )
    try:
        raw = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as e:
        raise UserError(f"{e.full_key}: {_first_line(e)}") from None
    for key in {"root", "beton_dir"} & raw["data"].keys():
        _need_path(f"data.{key}", raw["data"][key])
        raw["data"][key] = os.path.abspath(raw["data"][key])
    in_name = {
        o.get_key_element(): o.get_value_element_as_str()
        for o in off_axes
        if o.get_key_element() not in (*_NOT_IN_NAME, *_NOT_IN_NAME_KEYS)
        and o.get_key_element().split(".")[0] not in ("cluster", "wandb", "grid")
    }
    in_name |= {k: v for k, v in choice.items() if k not in ("model", "optimizer")}
    grid = raw.pop("grid")["name"]
    for key in ("seeds", "runs_dir", "results_dir"):
        raw.pop(key)
    name = cell_name(
        choice.get("model", raw["model"]["name"]), choice.get("optimizer", raw["optimizer"]["name"]), seed, in_name
    )
    return from_dict({"grid": grid, "cell": name, "seed": seed, "overrides": in_name, **raw})


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


def _check_library_models(names: set[str]) -> None:
    """A misspelt timm: or torchvision: name must not wait for the queue. A child looks it up: no torch here."""
    if names:
        done = subprocess.run([sys.executable, "-m", "adarem.models", *sorted(names)], capture_output=True, text=True)
        if done.returncode:
            raise UserError((done.stderr.strip().splitlines() or ["adarem.models could not be run"])[-1])
