"""The fairness sheet: what each optimizer was given, and who chose it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adarem.report.load import Run
from adarem.report.paper import Stated
from adarem.report.tables.table import Table
from adarem.run.directory import FINISHED
from adarem.run.errors import UserError
from adarem.run.labels import readable
from adarem.run.schema import variant
from adarem.run.sweep import campaign_scale, folder_name, runs_in

# How torch, pytorch_optimizer and our own optimizers apply weight decay.
DECAY = {
    "sgd": "added to the gradient",
    "sgdm": "added to the gradient",
    "adam": "added to the gradient",
    "adabound": "added to the gradient",
    "rmsprop": "added to the gradient",
    "adamw": "decoupled, × lr",
    "adarem": "decoupled, × lr",
    "adarem_s": "sphere: through the sphere lr; others: decoupled, × lr",
}
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


def effective_lr(lr: float, hyper: Mapping[str, Any]) -> float:
    """Step per unit of a constant gradient: lr (1 − dampening) / (1 − momentum).

    Adam, AdamW, RMSprop and AdaBound divide by the gradient's own size, so theirs is a length and not a rate.
    """
    momentum = float(hyper.get("momentum", 0.0))
    return lr * (1.0 - float(hyper.get("dampening", 0.0))) / (1.0 - momentum) if momentum < 1 else float("inf")


@dataclass(frozen=True)
class Search:
    """The runs that chose a table's settings, where its grid names such a search."""

    name: str
    there: bool
    tried: Mapping[str, tuple[int, int]]  # optimizer to its configurations that have finished and those planned

    def told(self, optimizer: str) -> str:
        if not self.there:
            return f"; no runs of {self.name} here"
        finished, planned = self.tried.get(optimizer, (0, 0))
        return f"; {finished if finished == planned else f'{finished} of {planned}'} in {self.name}"


def search_of(table: Table) -> Search | None:
    """Read from the search's run directories beside the table's own; None where the table rests on no search."""
    c = table.sweep
    if not c.grid.get("winners") or not c.runs:
        return None
    own = c.runs[0].config
    scale = campaign_scale(own.data.name, own.scale.name, own.rehearsal is None)
    folder = c.folder.with_name(folder_name(str(c.grid["winners"]), own.data.name, scale))
    finished: dict[str, dict[str, bool]] = {}
    for run in runs_in(folder):
        try:
            config = run.config()
        except UserError:
            continue  # its own report names it
        of_optimizer, settings = finished.setdefault(config.optimizer.name, {}), variant(config.overrides)
        of_optimizer[settings] = of_optimizer.get(settings, True) and run.status() in FINISHED
    tried = {optimizer: (sum(each.values()), len(each)) for optimizer, each in finished.items()}
    return Search(folder.name, bool(tried), tried)


def _on_text(table: Table, search: Search | None) -> str:
    """OF_TEXT with what was searched here."""
    if table.sweep.grid.get("search"):
        told = "Ours are this table's rows, as many configurations for each optimizer."
    elif search is None:
        told = "No search of ours stands behind this table."
    elif search.there:
        told = f"Ours are those of {search.name}, counted above; what was taken of them stands under Selection."
    else:
        told = f"Ours are those of {search.name}, of which no runs are here; Selection says what was taken."
    return OF_TEXT.format(told)


def _row(run: Run, stated: Stated, label: str, tried: str) -> list[str]:
    o, s = run.config.optimizer, run.config.scale

    def of_paper(name: str, value: Any) -> bool:
        return stated.is_paper(run.config.data.kind, o.name, name, value)

    lr = f"{o.lr:g} ({'paper' if of_paper('lr', o.lr) else 'ours'})" + (f" × {s.lr_factor:g}" * (s.lr_factor != 1))
    rest = [
        readable({k: v}) + " (paper)" * of_paper(k, v)
        for k, v in o.hyper.items()
        if k not in ("dampening", "nesterov") or v
    ]
    return [
        label,
        lr,
        f"{effective_lr(o.lr * s.lr_factor, o.hyper):g}",
        f"{o.weight_decay:g}, {DECAY[o.name]}",
        ", ".join(rest) or "—",
        str(s.epochs),
        str(s.global_batch_size),
        tried,
    ]


def fairness_sheet(table: Table) -> tuple[list[str], list[list[str]], list[str]]:
    """Header, one row an optimizer and variant, and notes on what the paper leaves open."""
    header = ["Optimizer", "lr", "Effective lr", "Weight decay", "Other settings", "Epochs", "Batch", "Tried here"]
    runs, search = table.sweep.runs, search_of(table)
    rows, most = [], 0
    for o in table.columns:
        seen: dict[str, Run] = {}
        for r in (r for r in runs if r.config.optimizer.name == o):
            seen.setdefault(r.overrides, r)
        most = max(most, len(seen))
        tried = f"{len(seen)} configuration{'s' * (len(seen) > 1)}{search.told(o) if search else ''}"
        rows += [_row(r, table.paper.stated, table.labels.cell(o, r.overrides), tried) for r in seen.values()]
    notes = [
        "Effective lr counts momentum: lr (1 − dampening) / (1 − momentum). Adam, AdamW, AdaBound and RMSprop divide "
        "by the gradient's own size, so their lr can't be read against the others'."
    ]
    if runs and runs[0].config.data.kind == "text":
        notes.append(_on_text(table, search))
    else:
        notes.append(OF_IMAGES + (NOT_TUNED if most < 2 else ALL_SHOWN))
    if runs and runs[0].config.scale.lr_factor != 1:
        factor = runs[0].config.scale.lr_factor
        notes.append(f"Every base rate is multiplied by {factor:g} at this scale, whose batch is not the paper's.")
    if runs:
        c = runs[0].config
        t, d = c.train, c.data
        alike = f"Ours, alike for all: precision {c.scale.precision}, label smoothing {t.label_smoothing:g}, "
        alike += f"weight decay on norm and bias: {'yes' if t.decay_norm_and_bias else 'no'}"
        if d.kind == "images":
            alike += f", random resized crop {d.train_crop} px of {d.crop_area[0]:g} to {d.crop_area[1]:g} of the area"
            alike += f", flip {d.flip:g}"
        notes.append(f"{alike}.")
    return header, rows, notes
