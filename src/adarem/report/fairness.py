"""The fairness sheet: what each optimizer was given, and who chose it."""

from collections.abc import Mapping
from typing import Any

from adarem.report.cells import Table
from adarem.report.collect import Run
from adarem.report.labels import readable

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
# What the paper states: base rates (all but plain SGD's momentum twin), λ once an epoch, cosine without warm-up,
# 100 epochs, batch 1024. Everything else is ours.
PAPER_LR = {"sgd": 0.4, "sgdm": 0.4, "adarem": 0.4, "adarem_s": 0.4} | {"adam": 0.004, "adamw": 0.004}
PAPER_LR |= {"adabound": 0.004, "rmsprop": 0.0001}
PAPER_LAM = {"lam": 0.999, "decay_every": "epoch"}
OF_IMAGES = (
    "The paper states the base rates, λ, the cosine schedule without warm-up, 100 epochs and batch 1024. It says "
    "that grid searches chose the rest and leaves their results out, so weight decay, β's, seeds, augmentation, "
    "label smoothing and precision are our choice, made once and not tuned."
)
OF_TEXT = (
    "The paper states 100 epochs, a tenth of the rate from the 50th on, and the model of Merity et al. 2017. It says "
    "that grid searches chose learning rates and β's and leaves ranges and results out: ours are in "
    "configs/grid/table3_search.yaml, as many configurations for each optimizer, and what was taken stands under "
    "Selection. λ, batch and weight decay are our choice, the latter two from the code of Merity et al."
)


def effective_lr(lr: float, hyper: Mapping[str, Any]) -> float:
    """Step per unit of a constant gradient: lr (1 − dampening) / (1 − momentum).

    Adam, AdamW, RMSprop and AdaBound divide by the gradient's own size, so theirs is a length and not a rate.
    """
    momentum = float(hyper.get("momentum", 0.0))
    return lr * (1.0 - float(hyper.get("dampening", 0.0))) / (1.0 - momentum) if momentum < 1 else float("inf")


def _is_text(run: Run) -> bool:
    return run.config.data.kind == "text"


def _row(run: Run, label: str, configurations: int) -> list[str]:
    o, s = run.config.optimizer, run.config.scale
    lr = f"{o.lr:g}" + (" (paper)" if not _is_text(run) and PAPER_LR.get(o.name) == o.lr else " (ours)")
    lr += f" × {s.lr_factor:g}" if s.lr_factor != 1 else ""
    rest = []
    for k, v in o.hyper.items():
        if k not in ("dampening", "nesterov") or v:
            paper = PAPER_LAM.get(k) == v and not _is_text(run)
            rest.append(readable({k: v}) + (" (paper)" if paper else ""))
    return [
        label,
        lr,
        f"{effective_lr(o.lr * s.lr_factor, o.hyper):g}",
        f"{o.weight_decay:g}, {DECAY[o.name]}",
        ", ".join(rest) or "—",
        str(s.epochs),
        str(s.global_batch_size),
        f"{configurations} configuration{'s' * (configurations > 1)}",
    ]


def fairness_sheet(table: Table) -> tuple[list[str], list[list[str]], list[str]]:
    """Header, one row an optimizer and variant, and notes on what the paper leaves open."""
    header = ["Optimizer", "lr", "Effective lr", "Weight decay", "Other settings", "Epochs", "Batch", "Tried here"]
    runs = table.campaign.runs
    rows = []
    for o in table.columns:
        own = [r for r in runs if r.config.optimizer.name == o]
        seen: dict[str, Run] = {}
        for r in own:
            seen.setdefault(r.variant, r)
        rows += [_row(r, table.labels.cell(o, r.variant), len(seen)) for r in seen.values()]
    notes = [
        "Effective lr counts momentum: lr (1 − dampening) / (1 − momentum). Adam, AdamW, AdaBound and RMSprop divide "
        "by the gradient's own size, so their lr can't be read against the others'.",
        OF_TEXT if runs and _is_text(runs[0]) else OF_IMAGES,
    ]
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
