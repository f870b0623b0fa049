"""A sweep: the runs of one grid on one data set at one scale, ``runs/<sweep>/``; what was planned, and all names.

``SweepSpec`` is the grid from the file in ``configs/grid`` to the report: plan makes it from that file and the user's
overrides, ``grid.yaml`` in the sweep's folder holds it, and every reader parses that file into it.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import yaml

from adarem.run.build import build
from adarem.run.catalog import DATA_SETS, METRICS, default_scale
from adarem.run.config import check_name
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.files import read_file, read_yaml, write_atomically
from adarem.run.setting import AT_LEAST_0, AT_LEAST_1, Setting, Value
from adarem.run.text import listed

Settings: TypeAlias = Mapping[str, Value]  # dotted key to value: {"optimizer.lam": 0.9}

# Of grid.yaml. Files of before have no such key; 2: typed ``paper``, ``overrides`` and ``settings_from``.
FORMAT = 2


@dataclass(frozen=True)
class PaperPart:
    """The part of the paper that a grid repeats."""

    source: Annotated[str, Setting('in the paper\'s own words: "Table 2", "Section 4.2"')]
    values: Annotated[str | None, Setting("file in results/paper/ with its numbers; null: the paper prints none")] = (
        None
    )


@dataclass(frozen=True)
class SweepLabels:
    """What tables print instead of internal names."""

    model: Mapping[str, str] = field(default_factory=dict)
    optimizer: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, str] = field(default_factory=dict)  # by ``overrides_text``


@dataclass(frozen=True)
class Draw:
    """How the trials of a search are drawn out of ranges. More trials leave the first ones where they are."""

    method: Annotated[Literal["sobol", "halton"], Setting("which of scipy's scrambled sequences")] = "sobol"
    trials: Annotated[int, Setting("of each optimizer on each network", AT_LEAST_1)] = 16
    seed: Annotated[int, Setting("of the sequence; another seed draws other trials", AT_LEAST_0)] = 0


@dataclass(frozen=True)
class Halving:
    """Which trials of a search train to the end, see ``adarem.run.halving``; the same rungs for every optimizer."""

    rungs: Annotated[
        tuple[int | float, ...],
        Setting("where a share of the trials goes on and the others stop: epochs, or shares of scale.epochs below 1"),
    ]
    keep: Annotated[
        str | float, Setting('share of the trials of each optimizer on each network that goes on, "1/3", rounded up')
    ] = "1/3"

    @property
    def epochs(self) -> tuple[int, ...]:
        """The rungs, which plan has written as epochs."""
        return tuple(int(rung) for rung in self.rungs)

    @property
    def share(self) -> Fraction:
        """Raises ValueError or ZeroDivisionError where ``keep`` is no fraction; plan has checked it."""
        return Fraction(str(self.keep))

    def text(self) -> str:
        """``after 10 and 30 epochs the better 1/3 of each optimizer's trials on a network goes on``."""
        rungs = listed([str(rung) for rung in self.rungs])
        return f"after {rungs} epochs the better {self.share} of each optimizer's trials on a network goes on"


@dataclass(frozen=True)
class Searched:
    """The search that a sweep's settings were selected by."""

    sweep: str  # name of its folder
    sha256: str  # of its selected.yaml, as plan read it
    trials: Mapping[str, Mapping[str, int]]  # by network and optimizer

    def of(self, optimizer: str) -> str:
        """``searched, 16 trials``; of several networks the fewest and the most."""
        counts = sorted({n for by_optimizer in self.trials.values() for o, n in by_optimizer.items() if o == optimizer})
        if not counts:
            return "not searched"
        several = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
        return f"searched, {several} trial{'' if counts == [1] else 's'}"


@dataclass(frozen=True)
class SweepSpec:
    """A grid: what runs there are, and what the report makes of them."""

    name: Annotated[str, Setting("of the grid, and of its file: names its folders")]
    axes: Annotated[
        Mapping[str, tuple[str, ...]],
        Setting("key to its values; model and optimizer are always there. Each combination is a run"),
    ]
    metrics: Annotated[
        tuple[str, ...],
        Setting("what tables show, the primary one first, of " + ", ".join(METRICS)),
    ]
    title: Annotated[str, Setting("of tables and pages; a grid's file has to give it")] = ""
    heading: Annotated[
        str | None, Setting("goes before the title; null: the paper's source, else the name in words; a study has none")
    ] = None
    paper: Annotated[PaperPart | None, Setting("what of the paper it repeats; null: nothing, it is a study")] = None
    figure: Annotated[str | None, Setting("name of its figures' files")] = None
    selection: Annotated[str, Setting("how the reported epoch and settings are chosen, in words")] = "final epoch"
    seeds: Annotated[
        tuple[int, ...], Setting("one run of each combination for each; a grid's file has to give them")
    ] = (0,)
    settings: Annotated[tuple[str, ...], Setting("overrides of every run, as on the command line")] = ()
    overrides: Annotated[Mapping[str, Settings], Setting("label in tables to settings off the axes")] = field(
        default_factory=dict
    )
    search: Annotated[
        Mapping[str, Mapping[str, tuple[Value, ...]]],
        Setting("optimizer to further axes of it alone; with draw also ranges: log_uniform, uniform, choice"),
    ] = field(default_factory=dict)
    draw: Annotated[
        Draw | None, Setting("trials are drawn out of what search has; null: each combination of its values is one")
    ] = None
    halving: Annotated[Halving | None, Setting("trials of a search that stop early; null: each trains to the end")] = (
        None
    )
    settings_from: Annotated[
        str | None,
        Setting(
            "a search whose selected settings are taken, in a sweep next to that of the grid's own: the name of its "
            "grid, for the same data and scale, or its selected.yaml"
        ),
    ] = None
    settings_of: Annotated[
        Mapping[str, str],
        Setting(
            "with settings_from: optimizer to another one whose selected settings it has in further runs, as far as it "
            "knows them: {adarem: sgdm}"
        ),
    ] = field(default_factory=dict)
    compare: Annotated[
        tuple[str, ...],
        Setting(
            "optimizers that the comparisons are about, each against all others of its network; without it AdaRem and "
            "AdaRem-S in a grid of the paper, and in a study every optimizer against the first"
        ),
    ] = ()
    runs: tuple[str, ...] = ()  # set by plan: the names of all that was planned; empty in files of before
    data: str | None = None  # set by plan; None in files of before
    scale: str | None = None  # as of data; "trial" where the sweep's name would be a reproduction's and it is none
    labels: SweepLabels = field(default_factory=SweepLabels)
    searched: Searched | None = None  # set by plan
    # Set by plan where trials are drawn, of which ``search`` then has the values: what they were drawn out of.
    ranges: Mapping[str, Mapping[str, Mapping[str, tuple[Value, ...]]]] = field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        return self.axes.get("model", ())

    @property
    def optimizers(self) -> tuple[str, ...]:
        return self.axes.get("optimizer", ())

    @property
    def printed_heading(self) -> str:
        """What the grid calls itself, else the paper's name of it, else its own name in words; of a study its title."""
        if self.paper is None:
            return self.heading or self.title or heading(self.name)
        return self.heading or (self.paper.source if self.paper.values else heading(self.name))

    @property
    def printed_title(self) -> str:
        """``Table 2. Test accuracy of ResNet-18 under six optimizers``; of a study what its grid says, and no more."""
        if self.printed_heading == self.title:
            return self.title.rstrip(". ")
        return f"{self.printed_heading}. {self.title}".rstrip(". ")


# Keys of before and of now, at the top and of labels.
RENAMED = {"variants": "overrides", "winners": "settings_from"}
_RENAMED_LABELS = {"settings": "overrides"}
# Grids of the paper for which it prints no numbers: their files of before say ``paper: null``, as those of a study do.
_PARTS_WITHOUT_NUMBERS = {
    "figure2": "Figures 1 and 2",
    "lambda": "Section 4.1.1",
    "table3_search": "Section 4.2",
}


def spec_from_dict(raw: Mapping[str, object]) -> SweepSpec:
    """A grid from the plain mapping of grid.yaml, of this format or of the one before.

    Raises:
        UserError: an unknown, missing or ill-typed key.
    """
    new = {k: v for k, v in raw.items() if k != "format"}
    if raw.get("format") is None:
        for old, key in RENAMED.items():
            if old in new:
                new[key] = new.pop(old)
        labels = new.get("labels")
        if isinstance(labels, Mapping):
            new["labels"] = {_RENAMED_LABELS.get(str(k), k): v for k, v in labels.items()}
        name, paper = str(new.get("name")), new.get("paper")
        if isinstance(paper, str):
            new["paper"] = {"source": heading(name), "values": paper}
        elif paper is None and name in _PARTS_WITHOUT_NUMBERS:
            new["paper"] = {"source": _PARTS_WITHOUT_NUMBERS[name]}
    empty = [k for k in ("title", "seeds", "settings", "overrides", "search", "labels") if new.get(k, ...) is None]
    spec = build(SweepSpec, {k: v for k, v in new.items() if k not in empty})
    check_names(spec)
    return spec


def check_names(spec: SweepSpec, where: str = "") -> None:
    """Raises UserError for a name that would lead out of the folder of the files that it names.

    Args:
        where: goes before the keys.
    """
    of_files = {
        "name": spec.name,
        "paper.values": spec.paper.values if spec.paper else None,
        "figure": spec.figure,
        "settings_from": None if (spec.settings_from or "").endswith(".yaml") else spec.settings_from,
    }
    for key, name in of_files.items():
        if name is not None:
            check_name(f"{where}{key}", name)
    of_folders = {
        "searched.sweep": spec.searched.sweep if spec.searched else "-",
        "data": spec.data,
        "scale": spec.scale,
    }
    for key, value in (*of_folders.items(), *(("runs", run) for run in spec.runs)):
        if value is not None:
            check_folder_name(f"{where}{key}", value)


def check_folder_name(where: str, name: str) -> None:
    """Raises UserError for what names no folder within another, as a run's name does."""
    if not re.fullmatch(r"[^/.\x00-\x1f\x7f][^/\x00-\x1f\x7f]{0,254}", name):
        raise UserError(f"{where}: {name[:80]!r}: names no folder next to this one; plan the grid again")


def read_names(path: Path) -> list[str]:
    """The names in a list of runs, one a line.

    Raises:
        UserError: one of them leads elsewhere, or the list is no file.
        OSError: it cannot be read.
    """
    names = read_file(path).decode(errors="replace").splitlines()
    for name in names:
        check_folder_name(str(path), name)
    return names


def spec_to_dict(spec: SweepSpec) -> dict[str, object]:
    """The plain form, as grid.yaml holds it; what is empty is left out. ``spec_from_dict`` reads it back."""
    raw = {k: _plain(v) for k, v in dataclasses.asdict(spec).items()}
    keep = ("name", "title", "paper", "metrics", "axes", "seeds", "labels")
    order = (
        "name",
        "heading",
        "title",
        "paper",
        "figure",
        "metrics",
        "selection",
        "axes",
        "compare",
        "overrides",
        "search",
    )
    last = ("labels", "runs")
    ordered = dict.fromkeys((*order, *(k for k in raw if k not in last), *last))
    return {"format": FORMAT} | {k: raw[k] for k in ordered if k in keep or raw[k] not in (None, [], {}, "")}


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def write_sweep(folder: Path, spec: SweepSpec) -> None:
    """Writes grid.yaml into ``runs/<sweep>/``."""
    text = "# Written by `adarem plan` for `adarem report`.\n" + yaml.safe_dump(
        spec_to_dict(spec), sort_keys=False, allow_unicode=True
    )
    write_atomically(folder / "grid.yaml", text)


def read_sweep(folder: Path) -> SweepSpec:
    """What was planned in ``runs/<sweep>/``.

    Raises:
        UserError: the folder was not made by ``adarem plan``, or its grid.yaml is damaged.
    """
    path = folder / "grid.yaml"
    raw = read_yaml(path, "plan the grid again", absent=f"{folder}: no grid.yaml there; `adarem plan` makes it")
    try:
        return spec_from_dict(raw)
    except UserError as e:
        raise UserError(f"{path}: {e}; plan the grid again") from None


def runs_in(folder: Path) -> list[RunDir]:
    """The runs of one sweep, in order of name."""
    if not folder.is_dir():
        return []
    return [RunDir(p) for p in sorted(folder.iterdir()) if (p / "config.yaml").exists()]


def directories(folder: Path) -> list[RunDir]:
    """Whatever under ``runs/<sweep>/`` holds a file of a run, in order of name; Slurm's logs and the like do not."""
    runs = [RunDir(p) for p in sorted(folder.iterdir()) if p.is_dir()]
    return [
        r
        for r in runs
        if any(f.exists() for f in (r.config_file, r.attempts_file, r.metrics_file, r.result_file, r.checkpoints))
    ]


Ending: TypeAlias = Literal["searched", "holdout"]


def sweep_name(grid: str, data: str, scale: str, *endings: Ending) -> str:
    """Name of the folder under runs/ for a grid: ``table2`` for the paper's own setting, else with what differs.

    ``endings``: for a sweep next to that of the grid itself, with the settings of a search, or on held-out images.
    """
    words = [grid]
    if data not in DATA_SETS or DATA_SETS[data].in_folder_name:
        words.append(data)
    if scale != default_scale(data):
        words.append(scale)
    return "-".join([*words, *endings])


def scale_in_name(data: str, scale: str, reproduces: bool) -> str:
    """The scale in a sweep's name: ``trial`` where the name would be a reproduction's and a run of it is none.

    One shorter run in ``runs/table2`` would make a rehearsal of the complete table.
    """
    of_paper = data in DATA_SETS and not DATA_SETS[data].in_folder_name and scale == default_scale(data)
    return "trial" if of_paper and not reproduces else scale


LONGEST_NAME = 60  # characters of a run's name, which `adarem status` shows whole at 80 columns


def run_name(model: str, optimizer: str, seed: int, overrides: Mapping[str, object]) -> str:
    """``resnet18-adarem-s0``; overrides off the axes join it: ``resnet18-adarem-weight_decay=0.0005-s0``.

    Of a longer one the beginning, with imported names without their module, and a hash of all of it:
    ``vit_tiny-MyOptimizer-betas=0.9_0.99-weight_decay=0.05--1f2e3d4c-s0``.
    """
    settings = [f"{k.rsplit('.', 1)[-1]}={str(v).strip('[]')}" for k, v in sorted(overrides.items())]  # betas=0.9_0.99
    name, end = _safe("-".join([model, optimizer, *settings])), f"-s{seed}"
    if len(name + end) <= LONGEST_NAME:
        return name + end
    every = json.dumps([model, optimizer, {k: str(v) for k, v in overrides.items()}], sort_keys=True)
    end = f"--{hashlib.sha256(every.encode()).hexdigest()[:8]}{end}"
    short = _safe("-".join([model.rpartition(":")[2], optimizer.rpartition(":")[2], *settings]))
    return short[: LONGEST_NAME - len(end)].rstrip("-_.") + end


def is_named_after(name: str, model: str, optimizer: str) -> bool:
    """Whether ``run_name`` may have given the name to a run of this network and optimizer."""
    short = f"{model.rpartition(':')[2]}-{optimizer.rpartition(':')[2]}-"
    return name.startswith((_safe(f"{model}-{optimizer}-"), _safe(short)))


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.=+-]+", "_", text)


def moved_label(source: str) -> str:
    """What tables print for the selected settings of another optimizer: ``settings of SGDM``."""
    return f"settings of {source}"


def setting_text(value: object) -> str:
    """A setting as on the command line: ``[0.9,0.99]``, ``null``."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(setting_text, value))}]"
    return "null" if value is None else str(value)


def same_setting(a: object, b: object) -> bool:
    """Whether two settings are the same value, however a number is written: 1e-4 and 0.0001, 1 and 1.0."""
    if setting_text(a) == setting_text(b):
        return True
    try:
        return float(setting_text(a)) == float(setting_text(b))
    except ValueError:
        return False


def overrides_text(settings: Mapping[str, object]) -> str:
    """What sets a run apart from the grid's own, by settings off the axes: ``lam=0.9, weight_decay=0.0005``, else
    empty."""
    return ", ".join(f"{k.rsplit('.', 1)[-1]}={v}" for k, v in sorted(settings.items()))


def heading(grid: str) -> str:
    """``Table 2`` for the grid table2, ``Table 3 search``; what is neither a table nor a figure keeps its name."""
    for kind in ("table", "figure"):
        if grid.startswith(kind) and grid.removeprefix(kind)[:1].isdigit():
            return f"{kind.title()} {grid.removeprefix(kind)}".replace("_", " ")
    return grid.replace("_", " ")
