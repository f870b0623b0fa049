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

from adarem.report.run import MEANS, Run
from adarem.resources import find_paper_file, paper_file
from adarem.run.build import build, nearest
from adarem.run.catalog import NETWORKS, OPTIMIZERS
from adarem.run.config import ScaleConfig, ScheduleConfig, TrainConfig
from adarem.run.errors import UserError
from adarem.run.imported_names import is_imported

Relation = Literal["higher", "lower", "as_good", "equal", "about", "above", "grows_as_models_shrink"]

# Numbers of an entry by relation; those without a default must be given.
NUMBERS: dict[Relation, tuple[str, ...]] = {
    "higher": ("threshold",),
    "lower": ("threshold",),
    "as_good": ("margin",),
    "equal": ("margin",),
    "about": ("value", "margin"),
    "above": ("value",),
    "grows_as_models_shrink": (),
}

FINAL = ("top1", "top5", "perplexity", "train_loss", "q_mean")  # at the end; Q over the last window
CURVES = {"train_loss": ("train", "loss"), "test_error": ("val", "top1")}  # test_error is 100 − top1
# train_loss@0.1, train_loss_fall@0.1-0.5, train_loss_rate@0.1-0.5
POINTS = (*CURVES, *(f"{name}_{kind}" for name in CURVES for kind in ("fall", "rate")))


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
    also: tuple[str, ...] = ()  # further metrics of which the same has to hold
    at_least: int = 0  # comparisons in which it has to hold; 0: all
    small: tuple[str, ...] = ()  # of an order of gains: the networks whose gains are above 0 and above the others'

    @property
    def comparisons(self) -> int:
        """How many the claim is made of, but for an order of networks."""
        others = len(self.against) * len(self.against_variant or ("",)) if self.against else 1
        return len(self.model) * others * (1 + len(self.also))

    @property
    def sentence(self) -> str:
        """The claim with the numbers by which it is judged, which are thus shown wherever it is."""
        most = f"; in {self.at_least} of {self.comparisons} comparisons or more" if self.at_least else ""
        return f"{self.claim.strip().rstrip('.')} ({self._numbers}{most})."

    @property
    def _numbers(self) -> str:
        def number(x: float) -> str:
            return f"{x:g} {unit(self.metric) if x else ''}".rstrip().replace("-", "−")

        if self.relation == "higher":
            return f"difference above {number(self.threshold)}"
        if self.relation == "lower":
            return f"difference below {number(-self.threshold if self.threshold else 0.0)}"
        if self.relation == "as_good":
            return f"at most {number(self.margin)} worse"
        if self.relation == "equal":
            return f"within {number(self.margin)}"
        if self.relation == "about":
            return f"within {number(self.margin)} of {self.value:g}".replace("-", "−")
        if self.relation == "above":
            return f"above {number(self.value or 0.0)}"
        positive = "; small ones' gains above 0" if self.small and self.against else ""
        above = (
            "; their mean above the others'" if positive else "; small ones' mean above the others'" * bool(self.small)
        )
        return f"slope below 0, also without any one network{positive}{above}"


def unit(metric: str) -> str:
    """Of differences."""
    return "points" if metric.split("@")[0] in ("top1", "top5", "test_error", "test_error_fall") else ""


def lower_is_better(metric: str) -> bool:
    return metric.split("@")[0] not in ("top1", "top5", *(p for p in POINTS if p not in CURVES))


def measure(run: Run, metric: str) -> float | None:
    """A metric of a claim, of a finished run; None where the run did not record what it takes."""
    if run.status != "done":
        return None
    name, _, shares = metric.partition("@")
    if not shares:
        return run.value(name)
    curve, kind = next(((name.removesuffix(end), end) for end in ("_fall", "_rate") if name.endswith(end)), (name, ""))
    points = [_point(run, curve, float(share)) for share in shares.split("-")]
    known = [p for p in points if p is not None]
    if len(known) < len(points):
        return None
    if kind == "_rate":  # of what was left to fall: a head start alone makes it neither fast nor slow
        return 100.0 * math.log(known[0] / known[1]) if min(known) > 0 else None
    return known[0] - known[1] if kind else known[0]


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


@dataclass(frozen=True)
class Contradiction:
    """Of the paper with itself, in our words."""

    what: str
    where: str

    @property
    def text(self) -> str:
        return f"{self.what.strip()} ({self.where})"


def read_contradictions(results_dir: Path) -> list[Contradiction]:
    """``results/paper/contradictions.yaml``; none where there is no such file. Raises UserError for a damaged one."""
    path = find_paper_file("contradictions.yaml", results_dir)
    if path is None:
        return []
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        return [build(Contradiction, entry) for entry in entries]
    except (ValueError, TypeError, OSError, yaml.YAMLError) as e:
        reason = str(e).splitlines()[0]
        raise UserError(f"{path}: {reason}; fix it, or restore it from the repository") from None


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
    for metric in (c.metric, *c.also):
        _check_metric(metric)
    _check_sides(c)
    for key in ("threshold", "value", "margin"):
        _require(key not in entry or key in NUMBERS[c.relation], f"{key}: relation {c.relation} reads no such number")
    _require(
        c.value is not None or "value" not in NUMBERS[c.relation],
        f"value: missing; relation {c.relation} compares with it",
    )
    _require(c.margin > 0, f"margin={c.margin:g}: needs a number above 0")
    _require(0 <= c.at_least <= c.comparisons, f"at_least={c.at_least}: the claim has {c.comparisons} comparisons")
    _check_order(c)
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


def _check_order(c: Claim) -> None:
    in_order = c.relation == "grows_as_models_shrink"
    _require(not (in_order and (c.also or c.at_least)), "also, at_least: an order of networks is judged as one")
    _require(in_order or not c.small, f"small: relation {c.relation} reads no such networks")
    for i, model in enumerate(c.small):
        _known(f"small[{i}]", model, c.model)
    _require(not c.small or len(set(c.small)) < len(c.model), "small: leaves no network that they are held against")


def _check_metric(metric: str) -> None:
    name, at, shares = metric.partition("@")
    examples = {p: f"{p}@0.1" if p in CURVES else f"{p}@0.1-0.5" for p in POINTS}
    plain = (*FINAL, *MEANS)
    if not at:
        _require(name in plain, f"metric={name}: unknown; {nearest(name, (*plain, *examples.values()))}")
        return
    _known("metric", name, POINTS)
    number = r"(0?\.\d+|1(?:\.0+)?)"
    found = re.fullmatch(number if name in CURVES else f"{number}-{number}", shares)
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
