"""``adarem plan``: a grid file and the user's overrides become run directories.

Everything is composed and checked before the first file is written; planning twice changes nothing.
"""

import contextlib
import functools
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adarem.plan import halving
from adarem.plan.check_network import NetworkChecks
from adarem.plan.check_optimizer import OptimizerChecks
from adarem.plan.check_weights import try_weights
from adarem.plan.child_process import ChildProcess
from adarem.plan.compose import (
    Folders,
    Lookups,
    compose_grid,
    compose_run,
    composing,
    labels,
    line_of,
    names_runs,
    parse,
    values,
)
from adarem.plan.grid import check_compared, checked_seeds, places, spec_of, widened
from adarem.plan.micro_batch import MicroBatches
from adarem.plan.price import Price, keep_estimates, price
from adarem.plan.same_run import spelled_out, under_earlier_names
from adarem.plan.selection import Taken, taken
from adarem.resources import find_paper_file
from adarem.run import locks
from adarem.run.catalog import METRICS
from adarem.run.config import DataConfig, RunConfig
from adarem.run.directory import RunDir, check_same_images
from adarem.run.errors import UserError
from adarem.run.files import writing
from adarem.run.frozen_claims import freeze as freeze_claims
from adarem.run.reproduction import Standing, has_papers_setting, standing_of_run
from adarem.run.schedules import schedules
from adarem.run.stated import read_stated
from adarem.run.sweep import (
    Ending,
    SweepLabels,
    SweepSpec,
    is_named_after,
    moved_label,
    overrides_text,
    read_sweep,
    runs_in,
    same_setting,
    scale_in_name,
    setting_text,
    sweep_name,
    write_sweep,
)
from adarem.run.text import aligned

PATIENCE_SECONDS = 60.0  # with another plan in the same folder, which writes for a moment


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan; ``new`` when there was no run directory before."""

    run: RunDir
    config: RunConfig
    new: bool
    standing: Standing


@dataclass(frozen=True)
class Plan:
    """A composed and checked grid. Nothing is on disk before ``write``."""

    folder: Path  # runs/<sweep>
    runs_dir: Path
    results_dir: Path
    spec: SweepSpec
    file: SweepSpec  # the grid as its file has it
    runs: list[PlannedRun]
    notes: Sequence[str] = ()  # what a person should know of it
    replaced: frozenset[str] = frozenset()  # names of runs of earlier plans that this one leaves out of a search
    words: str = ""  # the overrides that it was made of, as a shell takes them
    time_given: bool = False  # whether they say cluster.time
    micro_batch_asked: bool = False  # of runs without scale.micro_batch_size: auto is to be measured

    def price(self) -> Price:
        """What is left of it costs, as far as it was measured here."""
        return price(self.runs, self.runs_dir, self.words, self.spec.halving, time_given=self.time_given)

    def check_data(self) -> None:
        """Raises UserError where a run is finished, and the data that are there now are not those that it read."""
        finished = [(p.run, p.config) for p in self.runs if p.run.result_file.exists()]
        if finished:
            from adarem.data.unchanged import check_unchanged  # needs numpy

            check_unchanged(finished)

    def write(self, keep: Collection[str] = ()) -> None:
        """Freezes every run's config in its directory, and writes grid.yaml next to these directories.

        grid.yaml keeps what earlier plans of the same sweep have put there.

        Args:
            keep: names of runs whose config stays as it is, where there is one: a job in a queue was made for it.

        Raises:
            UserError: as `check_data`; nothing is written then.
        """
        self.check_data()
        with writing(self.runs_dir, "choose another runs_dir"):
            self.runs_dir.mkdir(parents=True, exist_ok=True)
        with locks.hold(self.runs_dir / ".plan.lock", patience=PATIENCE_SECONDS):  # grid.yaml is read, then written
            try:
                before = read_sweep(self.folder)
            except UserError:  # none yet, or damaged: this one takes its place
                before = replace(self.spec, runs=())
            if not before.runs:  # a file of before, or none that can be read
                before = replace(before, runs=tuple(r.path.name for r in runs_in(self.folder)))
            before = replace(before, runs=tuple(name for name in before.runs if name not in self.replaced))
            write_sweep(self.folder, widened(self.spec, before, self.file))
            freeze_claims(self.folder, find_paper_file("claims.yaml", self.results_dir))
            for planned in self.runs:
                if planned.config.run_name in keep and planned.run.config_file.exists():
                    planned.run.check(planned.config)
                else:
                    planned.run.freeze(planned.config)
            keep_estimates(self.folder, self.price())

    def describe(self) -> str:
        """The runs as a plain table, and their folder."""
        rows = [("run", "model", "optimizer", "lr", "weight decay", "seed", "status")]
        for planned in self.runs:
            c = planned.config
            rows.append(
                (
                    c.run_name,
                    c.model.label,
                    c.optimizer.label,
                    f"{c.optimizer.lr:g}",
                    f"{c.optimizer.weight_decay:g}",
                    str(c.seed),
                    "new" if planned.new else planned.run.status(),
                )
            )
        first = next((p for p in self.runs if p.standing.kind == "rehearsal"), self.runs[0])
        c = first.config
        found = schedules(planned.config for planned in self.runs)
        schedule = found.common.schedule.name
        head = [
            f"{self.spec.name}: {self.spec.title}",
            f"{c.data.label}, {c.scale.epochs} epochs, global batch {c.scale.global_batch_size}, {schedule} "
            f"schedule, {self._ranks()} ranks on {c.cluster.device} ({c.cluster.name}){self._passes()}",
        ]
        head += [f"own schedule: {label}: {text}" for label, text in found.own.items()]
        if isinstance(c.data, DataConfig) and c.data.holdout is not None:
            part = f"{c.data.holdout:,}" if isinstance(c.data.holdout, int) else f"{c.data.holdout:.3g} of all"
            seed = f", holdout_seed {c.data.holdout_seed}" if c.data.holdout_seed else ""
            head.append(f"evaluated on training images that are held out ({part}{seed}); the validation set is unread")
        if isinstance(c.data, DataConfig) and c.data.listing is not None:
            head.append(_images_of(c.data))
        if first.standing.kind == "rehearsal":
            head.append(f"REHEARSAL: {first.standing.reason}")
        head += dict.fromkeys(f"variation: {p.standing.reason}" for p in self.runs if p.standing.kind == "variation")
        if budget := halving.budget_text(self.spec, [planned.config for planned in self.runs]):
            head.append(budget)
        if self.spec.settings_from:
            head.append(f"selection: {self.spec.selection}")
        head += self.notes
        new = sum(planned.new for planned in self.runs)
        return "\n".join([*head, "", *aligned(rows), "", f"{len(self.runs)} runs, {new} new, in {self.folder}"])

    def _ranks(self) -> str:
        found = sorted({(p.config.cluster.nodes, p.config.cluster.ranks_per_node) for p in self.runs})
        return " or ".join(f"{nodes} x {ranks}" for nodes, ranks in found)

    def _passes(self) -> str:
        configs = [planned.config for planned in self.runs]
        found = sorted({c.scale.passes(c.cluster.world_size) for c in configs})
        sizes = sorted({c.scale.micro_batch_size or 0 for c in configs})
        if found == [1]:
            return ""
        return f", {' or '.join(map(str, found))} passes of {' or '.join(map(str, sizes))} a step"


def _measured(spec: SweepSpec, configs: list[RunConfig]) -> tuple[str, ...]:
    """The metrics of the runs: of held-out images where they have those in place of the grid's own.

    Raises:
        UserError: the grid names a metric of held-out images, and no image is held out.
    """
    held_out = {METRICS[m].held_out or m: m for m in METRICS if METRICS[m].held_out}
    if all(c.data.evaluated_on == "holdout" for c in configs):
        return tuple(METRICS[m].held_out or m for m in spec.metrics)
    for m in spec.metrics:
        if m in held_out:
            raise UserError(f"grid.metrics={list(spec.metrics)}: {m}: nothing is held out; give data.holdout=auto")
    return spec.metrics


def _images_of(data: DataConfig) -> str:
    split = f"val/ is {data.val_folder}/"
    if data.val_share is not None:
        split = f"{data.val_share:g} of each class validates, split_seed {data.split_seed}"
    return (
        f"{data.root}: {data.num_classes} classes, {data.expected_train:,} images for training, {data.expected_val:,} "
        f"for validation ({split}); prepared files go to {data.beton_dir}"
    )


def make_plan(overrides: list[str], *, measured: bool = True) -> Plan:
    """Composes and checks every run of a grid.

    Args:
        measured: False for a plan that is about to be measured: it needs no number for scale.micro_batch_size=auto.
        overrides: Hydra overrides. A comma-separated value is an axis of the grid; one of an axis that the grid has
            replaces it (``optimizer=sgdm,adarem``); any other becomes a further axis (``optimizer.lr=0.1,0.2``).

    Raises:
        UserError: one line that names the key and the nearest valid name.
    """
    given = parse(overrides)
    with composing(), ChildProcess() as child:
        optimizers, networks = OptimizerChecks(child), NetworkChecks(child)
        base = compose_grid([line_of(o) for o in given.values() if not o.is_sweep_override()])
        micro_batches = MicroBatches(base.runs_dir, shlex.join(overrides), measured=measured)
        lookups = Lookups(optimizers, networks, Folders(), micro_batches)
        spec = file = spec_of(base.grid)
        axes_given = {k for k, o in given.items() if k in spec.axes or o.is_sweep_override()}
        spec = replace(
            spec,
            axes={**spec.axes, **{k: tuple(values(o)) for k, o in given.items() if k in axes_given}},
            seeds=checked_seeds(given["seeds"].value() if "seeds" in given else spec.seeds),
        )
        check_compared(spec, file)
        selection = Taken()

        @functools.cache
        def composed(place: int, seed: int, left_out: frozenset[str] = frozenset()) -> RunConfig:
            """The run at one of ``choices``, without some of the user's overrides."""
            choice = choices[place]
            said = given.keys() - left_out
            off_axes = [o for k, o in given.items() if k in said and k not in axes_given]
            # The grid's own settings and those of a search, where the user gives no other.
            selected = [] if choice in moved else selection.overrides(choice["model"], choice["optimizer"])
            settled = [*spec.settings, *selected]
            words = [s for s in settled if s.split("=")[0].lstrip("+~") not in said]
            shared = [*words, *map(line_of, off_axes)]
            return compose_run(choice, seed, shared, off_axes, lookups, of_search=bool(spec.search))

        choices, moved = places(spec, set(given)), list[dict[str, str]]()
        first = composed(0, spec.seeds[0])
        selection = taken(spec.settings_from, base.runs_dir, first)
        selection.check_seeds(spec.seeds)
        found = selection.places(choices, spec.settings_of, set(given))
        choices, moved = [*found.own, *found.moved], found.moved
        composed.cache_clear()  # the selection is a part of each
        named = [k for k in given if k not in axes_given and names_runs(k)]
        configs = []
        for place in range(len(choices)):
            defaults = spelled_out(named, functools.partial(composed, place, spec.seeds[0]))
            configs += [composed(place, seed, defaults) for seed in spec.seeds]
        configs = [c for i, c in enumerate(configs) if c not in configs[:i]]  # 1 and 1.0 on an axis are one
        _check_labels(configs)
        notes = optimizers.try_runs(configs)
        networks.try_runs(configs)
        notes += try_weights(child, configs)
        spec = replace(spec, labels=_labels(spec, configs, moved), metrics=_measured(spec, configs))
        spec = replace(spec, halving=halving.settle(spec, configs))
    scale = scale_in_name(first.data.name, first.scale.name, all(map(has_papers_setting, configs)))
    endings: list[Ending] = ["searched"] if spec.settings_from else []
    if not spec.search and all(c.data.evaluated_on == "holdout" for c in configs):
        endings.append("holdout")
    folder = base.runs_dir / sweep_name(spec.name, first.data.name, scale, *endings)
    # A setting that is typed now is part of the run, as it is of one on an axis.
    configs = under_earlier_names(folder, configs, _varied(spec, folder, moved) - set(named))
    names = [c.run_name for c in configs]
    if twice := sorted(name for name in set(names) if names.count(name) > 1):
        raise UserError(
            f"{twice[0]}: two different runs of the grid have this name; let the values of its axes differ in "
            "letters or digits"
        )
    runs = [RunDir(folder / name) for name in names]
    _check_same_folder(folder, configs)
    for run, config in zip(runs, configs, strict=True):
        run.check(config)
    selection.check_same(folder)
    how_selected = "; ".join(filter(None, [spec.selection, selection.how]))
    spec = replace(
        spec,
        data=first.data.name,
        scale=scale,
        selection=how_selected,
        runs=tuple(names),
        searched=selection.searched(spec),
    )
    settings = find_paper_file("settings.yaml", base.results_dir)
    stated = read_stated(settings) if settings and spec.paper else None
    planned = [
        PlannedRun(run, config, not run.config_file.exists(), standing_of_run(config, spec, stated=stated))
        for run, config in zip(runs, configs, strict=True)
    ]
    replaced = _replaced(folder, spec, configs, set(given))
    if replaced:
        first_name, more = min(replaced), f" and {len(replaced) - 1} more" if len(replaced) > 1 else ""
        notes = [
            *notes,
            f"left out of the search, planned before with other ranges or more trials: {first_name}{more}; what is on "
            "disk stays, and counts again where it is planned again",
        ]
    return Plan(
        folder, base.runs_dir, base.results_dir, spec, file, planned, notes, replaced,
        words=shlex.join(overrides), time_given="cluster.time" in given, micro_batch_asked=micro_batches.asked,
    )  # fmt: skip


def _replaced(folder: Path, spec: SweepSpec, configs: list[RunConfig], given: set[str]) -> frozenset[str]:
    """The runs that earlier plans had of a network and optimizer whose trials are all planned now, and are none of
    them.

    A user who gives values of what is searched plans a part, which replaces nothing.
    """
    try:
        before = read_sweep(folder).runs if spec.search else ()
    except UserError:
        return frozenset()  # none yet, or damaged
    cells = {
        (c.model.name, c.optimizer.name) for c in configs if not given & spec.search.get(c.optimizer.name, {}).keys()
    }
    trials = {name.rpartition("-s")[0] for name in spec.runs}  # on whatever seed
    found = set()
    for name in before:
        if name.rpartition("-s")[0] in trials:
            continue
        try:
            config = RunDir(folder / name).config()
            is_of_cell = (config.model.name, config.optimizer.name) in cells
        except UserError:
            is_of_cell = any(is_named_after(name, *cell) for cell in cells)
        if is_of_cell:
            found.add(name)
    return frozenset(found)


def _check_same_folder(sweep: Path, configs: list[RunConfig]) -> None:
    """Raises UserError where runs of the sweep are planned on other images, of the folder or of another of its name, or
    where some validate on a folder of its own and others on a part of each class, which no table may mix.

    They all have the same images, so one run of each way to split them is looked at.
    """
    new = {_split(c.data): c.data for c in configs if isinstance(c.data, DataConfig) and c.data.listing}
    for run in runs_in(sweep) if new else ():
        try:
            old = run.config().data
        except UserError:
            continue  # where it is of this plan, its own check says so
        if not isinstance(old, DataConfig):
            continue
        other = next((d for d in new.values() if (d.val_share is None) != (old.val_share is None)), None)
        if other is not None and old.listing:
            raise UserError(
                f"data.root={other.root}: the runs in {sweep} are of {old.root}, and validate on other images; give "
                f"this one a name of its own, data.name={other.name}_{'split' if other.val_share else 'folders'}"
            )
        if (same := new.pop(_split(old), None)) is not None:
            check_same_images(run.config_file, old, same)
        if not new:
            return


def _split(data: DataConfig) -> tuple[float | None, int]:
    return data.val_share, data.split_seed


def _labels(spec: SweepSpec, configs: list[RunConfig], moved: list[dict[str, str]]) -> SweepLabels:
    """What the report prints for models, optimizers and overrides, also for runs that are in no plan.

    Args:
        moved: places with the selected settings of another optimizer.
    """
    found = labels()
    of_runs = {c.model.name: c.model.label for c in configs}  # networks of a library are in no file,
    optimizers = {c.optimizer.name: c.optimizer.label for c in configs}  # and so are optimizers that are imported
    by_text = {}
    for label, settings in spec.overrides.items():
        held = {k: setting_text(v) for k, v in settings.items()}
        for c in configs:  # numbers as the runs have them
            held |= {k: str(v) for k, v in c.overrides.items() if k in settings and same_setting(v, settings[k])}
        by_text[overrides_text(held)] = label
    for c in configs:
        source = spec.settings_of.get(c.optimizer.name)
        if source is not None and any(_is_at(c, place) for place in moved):
            by_text[overrides_text(c.overrides)] = moved_label(found.optimizer.get(source, source))
    return SweepLabels(
        {**found.model, **{k: v for k, v in of_runs.items() if k not in found.model}},
        {**found.optimizer, **{k: v for k, v in optimizers.items() if k not in found.optimizer}},
        by_text,
    )


def _is_at(config: RunConfig, place: Mapping[str, str]) -> bool:
    """Whether a run is the one at this place."""
    held = {"model": config.model.name, "optimizer": config.optimizer.name, **config.overrides}
    return all(key in held and same_setting(held[key], value) for key, value in place.items())


def _varied(spec: SweepSpec, folder: Path, moved: list[dict[str, str]]) -> set[str]:
    """The settings that the grid varies, and those that it varied when it was planned before."""
    specs = [spec]
    with contextlib.suppress(UserError):
        specs.append(read_sweep(folder))
    return {
        key
        for s in specs
        for keys in (s.axes, *s.search.values(), *s.overrides.values(), *moved)
        for key in keys
        if key not in ("model", "optimizer")
    }


def _check_labels(configs: list[RunConfig]) -> None:
    """Raises UserError where a table could not tell two optimizers or two networks apart."""
    names: dict[tuple[str, str], str] = {}
    for c in configs:
        for group, part in (("optimizer", c.optimizer), ("model", c.model)):
            first = names.setdefault((group, part.label), part.name)
            if first != part.name:
                raise UserError(
                    f"{group}={part.name}: printed as {part.label}, and so is {first}; give one of them a label in a "
                    f"file of its own, configs/{group}/NAME.yaml"
                )
