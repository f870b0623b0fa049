"""The fairness sheet: what each optimizer was given, and who chose it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from adarem.report.load import Run
from adarem.report.tables.table import Table
from adarem.run.catalog import OPTIMIZERS
from adarem.run.config import ModelConfig
from adarem.run.directory import FINISHED
from adarem.run.errors import UserError
from adarem.run.imported_names import NOT_STATED
from adarem.run.labels import readable
from adarem.run.records import number
from adarem.run.reproduction import has_papers_setting, of_paper
from adarem.run.schedules import schedule_text, schedules
from adarem.run.stated import Stated
from adarem.run.sweep import overrides_text, runs_in, scale_in_name, sweep_name
from adarem.run.text_models import LmConfig

OF_IMAGES = (
    "The paper states the base rates, λ, the cosine schedule without warm-up, 100 epochs and batch 1024. It says "
    "that grid searches chose the rest and leaves their results out, so weight decay, β's, seeds, augmentation, "
    "label smoothing and precision are our choice. "
)
NOT_TUNED = "One configuration of each optimizer was tried here, so none was tuned."
ALL_SHOWN = (
    "Where several configurations of an optimizer were tried here, each has rows of its own in the table: none was "
    "picked for its result."
)
OF_TEXT = (
    "The paper states 100 epochs, a tenth of the rate from the 50th on, and the model of Merity et al. 2017. It says "
    "that grid searches chose learning rates and β's and leaves ranges and results out. {} λ, batch and weight decay "
    "are our choice, the latter two from the code of Merity et al."
)


def effective_lr(lr: float, hyper: Mapping[str, object]) -> float:
    """Step per unit of a constant gradient: lr (1 − dampening) / (1 − momentum).

    Adam, AdamW, RMSprop and AdaBound divide by the gradient's own size, so theirs is a length and not a rate.
    """
    momentum, dampening = number(hyper, "momentum") or 0.0, number(hyper, "dampening") or 0.0
    return lr * (1.0 - dampening) / (1.0 - momentum) if momentum < 1 else float("inf")


class Tried(NamedTuple):
    """Configurations of an optimizer."""

    finished: int
    planned: int


@dataclass(frozen=True)
class Search:
    """The runs that chose a table's settings, where its grid names such a search."""

    name: str
    found: bool
    tried: Mapping[str, Tried]  # by optimizer

    def text(self, optimizer: str) -> str:
        """How many configurations it tried, to end a sentence with."""
        if not self.found:
            return f"; no runs of {self.name} here"
        finished, planned = self.tried.get(optimizer, Tried(0, 0))
        return f"; {finished if finished == planned else f'{finished} of {planned}'} in {self.name}"


def search_of(table: Table) -> Search | None:
    """Read from the search's run directories next to the table's own; None where the table rests on no search."""
    c = table.sweep
    if not c.spec.settings_from or not c.runs:
        return None
    own = c.runs[0].config
    scale = scale_in_name(own.data.name, own.scale.name, has_papers_setting(own))
    folder = c.folder.with_name(sweep_name(c.spec.settings_from, own.data.name, scale))
    finished: dict[str, dict[str, bool]] = {}
    for run in runs_in(folder):
        try:
            config = run.config()
        except UserError:
            continue  # its own report names it
        of_optimizer, settings = finished.setdefault(config.optimizer.name, {}), overrides_text(config.overrides)
        of_optimizer[settings] = of_optimizer.get(settings, True) and run.status() in FINISHED
    tried = {optimizer: Tried(sum(each.values()), len(each)) for optimizer, each in finished.items()}
    return Search(folder.name, bool(tried), tried)


def _on_text(table: Table, search: Search | None) -> str:
    """OF_TEXT with what was searched here."""
    if table.sweep.spec.search:
        source = "Ours are this table's rows, as many configurations for each optimizer."
    elif search is None:
        source = "No search of ours is behind this table."
    elif search.found:
        source = f"Ours are those of {search.name}, counted above; what was taken of them is under Selection."
    else:
        source = f"Ours are those of {search.name}, of which no runs are here; Selection says what was taken."
    return OF_TEXT.format(source)


def _row(run: Run, stated: Stated | None, label: str, tried: str, own_schedules: Mapping[str, str]) -> list[str]:
    """``stated``: what the paper states; None where no paper is behind the grid."""
    o, s, schedule = run.config.optimizer, run.config.scale, run.config.schedule
    known = OPTIMIZERS.get(o.name)

    def is_papers(name: str, value: object) -> bool:
        return stated is not None and stated.is_paper(run.config.data.kind, o.name, name, value)

    lr = f"{o.lr:g}"
    if stated is not None:
        lr += f" ({'paper' if is_papers('lr', o.lr) else 'ours'})"
    if s.lr_factor != 1:
        lr += f" × {s.lr_factor:g}"
    if o.label in own_schedules or schedule.min_lr or run.config.train.clip_grad_norm is not None:
        lr += f"; {schedule_text(run.config)}"
    decay = known.decay if known else f"how: {NOT_STATED}"
    if o.no_decay:
        decay += f"; none on {', '.join(o.no_decay)}"
    rest = [
        readable({k: v}) + (" (paper)" if is_papers(k, v) else "")
        for k, v in o.hparams.items()
        if k not in ("dampening", "nesterov") or v
        if known or not (v is None or v is False)  # of an imported one all settings are there, most of them switches
    ]
    return [
        label,
        lr,
        f"{effective_lr(o.lr * s.lr_factor, o.hparams):g}" if known else NOT_STATED,
        f"{o.weight_decay:g}, {decay}",
        ", ".join(rest) or "—",
        str(s.epochs),
        str(s.global_batch_size),
        tried,
    ]


def _network(run: Run) -> str:
    """Where an imported network comes from, with the settings of its signature that no axis varies."""
    m = run.config.model
    if not isinstance(m, ModelConfig | LmConfig) or m.imported is None:
        return ""
    own = {k: v for k, v in m.settings.items() if f"model.{k}" not in run.config.overrides}
    return ", ".join(filter(None, [m.imported, readable(own)]))


class FairnessSheet(NamedTuple):
    """What each optimizer was given: one row per optimizer and settings off the axes."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]  # on what the paper leaves open


def fairness_sheet(table: Table) -> FairnessSheet:
    """See FairnessSheet."""
    header = ["Optimizer", "lr", "Effective lr", "Weight decay", "Other settings", "Epochs", "Batch", "Tried here"]
    runs, search = table.sweep.runs, search_of(table)
    study = table.sweep.spec.paper is None
    stated = None if study else table.paper.stated
    own_schedules = schedules(r.config for r in runs).own if runs else {}
    rows: list[list[str]] = []
    most = 0
    for o in table.columns:
        own = [r for r in runs if r.config.optimizer.name == o]
        seen = dict.fromkeys(r.overrides for r in own)
        most = max(most, len(seen))
        tried = f"{len(seen)} configuration{'s' if len(seen) > 1 else ''}{search.text(o) if search else ''}"
        for text in seen:
            label = table.labels.cell(o, text)
            by_network: dict[str, list[str]] = {}
            for r in (r for r in own if r.overrides == text):
                by_network.setdefault(r.config.model.name, _row(r, stated, label, tried, own_schedules))
            first, *others = by_network.values()
            if all(row == first for row in others):
                rows.append(first)
            else:  # a rate is a network's, too
                rows += [[f"{label}, {table.labels.model(name)}", *row[1:]] for name, row in by_network.items()]
    notes = [
        "Effective lr counts momentum: lr (1 − dampening) / (1 − momentum). Adam, AdamW, AdaBound and RMSprop divide "
        "by the gradient's own size, so their lr can't be read against the others'."
    ]
    imported = {r.config.optimizer.label: r.config.optimizer.imported for r in runs if r.config.optimizer.imported}
    if imported:
        named = ", ".join(f"{label} is {name}" for label, name in imported.items())
        notes.append(
            f"Imported by name: {named}. Its settings are those of its signature, those that are off or None left out; "
            "what its lr means and how it applies weight decay is not stated."
        )
    networks = {r.config.model.label: _network(r) for r in runs}
    if named_networks := [f"{label} is {text}" for label, text in networks.items() if text]:
        notes.append(f"Networks imported by name: {'; '.join(named_networks)}.")
    if not study and (others_than := dict.fromkeys(r.config.model.label for r in runs if not of_paper(r.config))):
        notes.append(f"No network of the paper: {', '.join(others_than)}.")
    if study:
        notes.append(NOT_TUNED if most < 2 else ALL_SHOWN)
    elif runs and runs[0].config.data.kind == "text":
        notes.append(_on_text(table, search))
    else:
        notes.append(OF_IMAGES + (NOT_TUNED if most < 2 else ALL_SHOWN))
    if runs and runs[0].config.scale.lr_factor != 1:
        factor = runs[0].config.scale.lr_factor
        why = " (scale.lr_factor)" if study else ", whose batch is not the paper's"
        notes.append(f"Every base rate is multiplied by {factor:g} at this scale{why}.")
    if runs:
        c = runs[0].config
        t, d = c.train, c.data
        alike = f"{'Alike' if study else 'Ours, alike'} for all: precision {c.scale.precision}, "
        alike += f"label smoothing {t.label_smoothing:g}, "
        alike += f"weight decay on norm and bias: {'yes' if t.decay_norm_and_bias else 'no'}"
        if any(r.config.optimizer.no_decay for r in runs):
            alike += " but for the kinds that rows above leave out"
        if d.kind == "images":
            alike += f", random resized crop {d.train_crop} px of {d.crop_area[0]:g} to {d.crop_area[1]:g} of the area"
            alike += f", flip {d.flip:g}"
        notes.append(f"{alike}.")
        starts = {r.config.model.label: r.config.model for r in runs if r.config.model.init}
        notes += [
            f"{label} starts from the weights in {m.init} ({(m.init_sha256 or '')[:12]})."
            for label, m in starts.items()
        ]
    return FairnessSheet(header, rows, notes)
