"""The claims of results/paper/claims.yaml: what an entry may hold, and the metrics that it may name."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import yaml

from adarem.report.load import Run
from adarem.resources import paper_file
from adarem.run.build import build, nearest
from adarem.run.catalog import NETWORKS, OPTIMIZERS
from adarem.run.config import ScaleConfig, ScheduleConfig, TrainConfig
from adarem.run.errors import UserError
from adarem.run.imported_names import is_imported

Relation = Literal["higher", "lower", "equal", "about", "above", "grows_as_models_shrink"]

# Numbers of an entry by relation; those without a default must be given.
NUMBERS: dict[Relation, tuple[str, ...]] = {
    "higher": ("threshold",),
    "lower": ("threshold",),
    "equal": ("margin",),
    "about": ("value", "margin"),
    "above": ("value",),
    "grows_as_models_shrink": (),
}

FINAL = ("top1", "top5", "perplexity", "train_loss", "q_mean")  # at the end; Q over the last window
MEANS = {  # over all epochs, or all windows of training
    "mean_train_loss": ("train", "loss"),
    "mean_q_mean": ("oscillation", "q_mean"),
    "mean_q_median_with_gradient": ("oscillation", "q_median_with_gradient"),
}
CURVES = {"train_loss": ("train", "loss"), "test_error": ("val", "top1")}  # test_error is 100 − top1
POINTS = (*CURVES, *(f"{name}_fall" for name in CURVES))  # train_loss@0.1, train_loss_fall@0.1-0.5


@dataclass(frozen=True)
class Claim:
    id: str
    claim: str
    where: str
    grid: str
    model: tuple[str, ...]
    optimizer: str
    metric: str
    relation: Relation
    against: tuple[str, ...] = ()
    against_grid: str = ""
    against_variant: tuple[str, ...] = ()
    threshold: float = 0.0
    value: float | None = None
    margin: float = 0.5
    same: tuple[str, ...] = ()  # settings that both sides must share


def measure(run: Run, metric: str) -> float | None:
    """A metric of a claim, of a finished run; None where the run did not record what it takes."""
    if run.status != "done":
        return None
    name, _, shares = metric.partition("@")
    if not shares:
        return _mean(run, name) if name in MEANS else run.value(name)
    points = [_point(run, name.removesuffix("_fall"), float(share)) for share in shares.split("-")]
    known = [p for p in points if p is not None]
    if len(known) < len(points):
        return None
    return known[0] - known[1] if len(known) == 2 else known[0]


def _mean(run: Run, metric: str) -> float | None:
    """Over all of training: a run that lacks an epoch or a window of it has no such mean."""
    split, key = MEANS[metric]
    curve = run.curve(split, key)
    window = run.config.train.oscillation_window if split == "oscillation" else 1
    return float(curve[:, 1].mean()) if len(curve) == math.ceil(run.config.scale.epochs / window) else None


def _point(run: Run, name: str, share: float) -> float | None:
    """The last recorded value up to that share of the epochs."""
    split, key = CURVES[name]
    curve = run.curve(split, key)
    curve = curve[curve[:, 0] <= math.ceil(round(share * run.config.scale.epochs, 6))]
    if not len(curve):
        return None
    value = float(curve[-1, 1])
    return 100.0 - value if name == "test_error" else value


def read_claims(results_dir: Path, models: Collection[str] = (), optimizers: Collection[str] = ()) -> list[Claim]:
    """``results/paper/claims.yaml``.

    Args:
        results_dir: its folder ``paper/``, else adarem's own, has the file.
        models: names that grids have, next to those of the catalog and those that are imported.
        optimizers: as models.

    Raises:
        UserError: the first entry, key or name that is not known, with the nearest that is.
    """
    path = paper_file("claims.yaml", results_dir)
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as e:
        where = getattr(e, "problem_mark", None)
        at = f" at line {where.line + 1}" if where else ""
        raise UserError(f"{path}: not valid YAML{at}; fix it, or restore it from the repository") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        keys = ", ".join(f.name for f in fields(Claim))
        raise UserError(f"{path}: needs a list of claims, each a mapping with {keys}")
    claims = []
    for number, entry in enumerate(entries, 1):
        try:
            claim = build(Claim, entry)
            _check(claim, entry, {*NETWORKS, *models}, {*OPTIMIZERS, *optimizers})
        except UserError as e:
            raise UserError(f"{path}: {entry.get('id', f'claim {number}')}: {e}") from None
        claims.append(claim)
    twice = [name for name, count in Counter(c.id for c in claims).items() if count > 1]
    if twice:
        raise UserError(f"{path}: {twice[0]}: two claims have this id; give one of them another")
    return claims


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise UserError(message)


def _check(c: Claim, entry: Mapping[str, object], models: Collection[str], optimizers: Collection[str]) -> None:
    """Raises UserError for a name that no run can have, or a key that the claim's relation does not read."""
    for i, model in enumerate(c.model):
        if not is_imported(model):
            _known(f"model[{i}]", model, models)
    for key, optimizer in (("optimizer", c.optimizer), *((f"against[{i}]", o) for i, o in enumerate(c.against))):
        if not is_imported(optimizer):
            _known(key, optimizer, optimizers)
    _check_metric(c.metric)
    _check_sides(c)
    for key in ("threshold", "value", "margin"):
        _require(key not in entry or key in NUMBERS[c.relation], f"{key}: relation {c.relation} reads no such number")
    _require(
        c.value is not None or "value" not in NUMBERS[c.relation],
        f"value: missing; relation {c.relation} compares with it",
    )
    _require(c.margin > 0, f"margin={c.margin:g}: needs a number above 0")
    known = _settings(c)
    for i, key in enumerate(c.same):
        _known(f"same[{i}]", key, known)
    for i, text in enumerate(c.against_variant):
        for part in text.split(", "):
            _known(f"against_variant[{i}]", part.partition("=")[0], {key.partition(".")[2] for key in known})


def _known(key: str, name: str, valid: Collection[str]) -> None:
    _require(name in valid, f"{key}={name}: unknown; {nearest(name, valid)}")


def _check_sides(c: Claim) -> None:
    _require(bool(c.model), "model: needs at least one network")
    if c.relation == "grows_as_models_shrink":
        _require(len(c.model) > 1, "model: an order needs two networks or more")
        _require(len(c.against) < 2, "against: an order of gains is over one optimizer, of figures over none")
    elif c.relation == "above":
        _require(not c.against, "against: above compares with the value alone; leave it out")
    else:
        _require(bool(c.against), f"against: missing; {c.relation} needs at least one optimizer")


def _check_metric(metric: str) -> None:
    name, at, shares = metric.partition("@")
    examples = {p: f"{p}@0.1-0.5" if p.endswith("_fall") else f"{p}@0.1" for p in POINTS}
    plain = (*FINAL, *MEANS)
    if not at:
        _require(name in plain, f"metric={name}: unknown; {nearest(name, (*plain, *examples.values()))}")
        return
    _known("metric", name, POINTS)
    number = r"(0?\.\d+|1(?:\.0+)?)"
    found = re.fullmatch(f"{number}-{number}" if name.endswith("_fall") else number, shares)
    rising = [0.0, *map(float, found.groups())] if found else [0.0, 0.0]
    ok = all(a < b for a, b in itertools.pairwise(rising))
    _require(ok, f"metric={metric}: needs rising shares of the epochs, above 0 and at most 1: {examples[name]}")


def _settings(c: Claim) -> set[str]:
    """Dotted names of the settings that all optimizers of the claim have."""
    sections = {"schedule": ScheduleConfig, "scale": ScaleConfig, "train": TrainConfig}
    known = [set(OPTIMIZERS[o].hparams) for o in (c.optimizer, *c.against) if o in OPTIMIZERS]
    shared = set.intersection(*known) if known else set()
    of_optimizer = {f"optimizer.{k}" for k in ("lr", "weight_decay", *shared)}
    return of_optimizer | {f"{section}.{f.name}" for section, cls in sections.items() for f in fields(cls)}
