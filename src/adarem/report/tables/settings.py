"""The fairness sheet: what each optimizer was given, and who chose it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from adarem.report.load import Run
from adarem.report.search.trials import Search
from adarem.report.tables.table import Table
from adarem.run.catalog import OPTIMIZERS
from adarem.run.config import ModelConfig
from adarem.run.imported_names import NOT_STATED
from adarem.run.labels import readable
from adarem.run.records import number
from adarem.run.reproduction import of_paper
from adarem.run.schedules import schedule_text, schedules
from adarem.run.stated import Stated
from adarem.run.sweep import setting_text
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
SEARCH = (
    "A search: shown are the settings of each optimizer's best trial so far. All trials are listed above, with the "
    "same number for each optimizer unless a warning says otherwise."
)
SEARCHED = (
    "Searched here: the settings are those that {} selected for each optimizer and network, out of as many trials as "
    "the last column says; how is under Selection."
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


def _on_text(table: Table) -> str:
    """OF_TEXT with what was searched here."""
    spec = table.sweep.spec
    if spec.search:
        source = "Ours are the trials above."
    elif spec.searched:
        source = f"Ours are those of {spec.searched.sweep}, counted above; how it selected is under Selection."
    elif spec.settings_from:  # of a sweep that was planned before searches left a file
        source = f"Ours are those of {spec.settings_from}; Selection says what was taken."
    else:
        source = "No search of ours is behind this table."
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


def _rows_of_search(
    table: Table, search: Search, optimizer: str, stated: Stated | None, own_schedules: Mapping[str, str]
) -> list[list[str]]:
    """One row for each network: the best trial so far."""
    rows = []
    for part in (p for p in search.parts if p.optimizer == optimizer):
        label = table.labels.optimizer(optimizer)
        if len(search.models) > 1:
            label += f", {table.labels.model(part.model)}"
        best, n = part.best or part.trials[0], len(part.trials)
        rows.append(_row(best.runs[0], stated, label, f"{n} trial{'s' if n > 1 else ''}", own_schedules))
    return rows


def _ranges(table: Table, search: Search) -> list[str]:
    """What was tried of each setting, one line per optimizer."""
    found: dict[str, str] = {}
    for part in search.parts:
        words = []
        for d in part.dimensions:
            tried = f"{d.low:g} to {d.high:g}"
            if d.scale == "category" or not search.drawn:
                tried = ", ".join(map(setting_text, d.values))
            words.append(f"{d.label} {tried}{' (log)' if search.drawn and d.scale == 'log' else ''}")
        found.setdefault(table.labels.optimizer(part.optimizer), "; ".join(words))
    verb = "Drawn for" if search.drawn else "Tried with"
    return [f"{verb} {name}: {words}." for name, words in found.items() if words]


class FairnessSheet(NamedTuple):
    """What each optimizer was given: one row per optimizer and settings off the axes."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]  # on what the paper leaves open


def fairness_sheet(table: Table) -> FairnessSheet:
    """See FairnessSheet."""
    header = ["Optimizer", "lr", "Effective lr", "Weight decay", "Other settings", "Epochs", "Batch", "Tried here"]
    runs, searched = table.sweep.runs, table.sweep.spec.searched
    study = table.sweep.spec.paper is None
    stated = None if study else table.paper.stated
    own_schedules = schedules(r.config for r in runs).own if runs else {}
    rows: list[list[str]] = []
    most = 0
    for o in table.columns:
        own = [r for r in runs if r.config.optimizer.name == o]
        if table.search is not None:
            rows += _rows_of_search(table, table.search, o, stated, own_schedules)
            continue
        seen = dict.fromkeys(r.overrides for r in own)
        most = max(most, len(seen))
        tried = f"{len(seen)} configuration{'s' if len(seen) > 1 else ''}{f'; {searched.of(o)}' if searched else ''}"
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
    not_picked = NOT_TUNED if most < 2 else ALL_SHOWN
    if table.search is not None:
        not_picked = SEARCH
        notes += _ranges(table, table.search)
    if searched:
        not_picked = SEARCHED.format(searched.sweep)
    if study:
        notes.append(not_picked)
    elif runs and runs[0].config.data.kind == "text":
        notes += [_on_text(table), *([SEARCH] if table.search is not None else [])]
    else:
        notes.append(OF_IMAGES + not_picked)
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
