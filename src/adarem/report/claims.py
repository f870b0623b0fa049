"""The claim ledger: the paper's sentences, each with a comparison, and what our runs say of it."""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from scipy import stats

from adarem.config import nearest
from adarem.errors import UserError
from adarem.report import statistics
from adarem.report.cells import paper_file
from adarem.report.collect import Campaign, Run, fingerprints
from adarem.report.labels import Labels, labels

Status = Literal["supported", "contradicted", "undecided", "not run"]
RELATIONS = ("higher", "lower", "equal", "about", "grows_as_models_shrink")

RULE = (
    "Rule: d = optimizer − the other, over finished seeds, with Welch's interval at 95 % corrected (Bonferroni) for "
    "the number of comparisons in the claim. higher / lower: *supported* when the interval lies beyond the threshold, "
    "*contradicted* when it lies short of it. equal / about: *supported* when the interval lies within the margin, "
    "*contradicted* when it lies outside. The order of gains: Kendall's τ against the number of parameters, exact, "
    "5 % one-sided. Anything else is *undecided*, so one seed a cell leaves a claim undecided. A claim holds only if "
    "all of its comparisons do. Diverged runs count as runs without a figure and are named. Rehearsals are no evidence."
)


@dataclass(frozen=True)
class Claim:
    id: str
    claim: str
    where: str
    grid: str
    model: tuple[str, ...]
    optimizer: str
    against: tuple[str, ...]
    metric: str
    relation: str
    against_grid: str = ""
    against_variant: str = ""
    threshold: float = 0.0
    value: float = 0.0
    margin: float = 0.5
    same: tuple[str, ...] = ()  # settings that both sides must share


@dataclass(frozen=True)
class Judged:
    claim: Claim
    status: Status
    evidence: list[str]  # one line a comparison
    runs: list[str]
    rehearsed: Status = "not run"  # by the same rule on rehearsals, which are no evidence


def read_claims(results_dir: Path) -> list[Claim]:
    """``results/paper/claims.yaml``. Raises UserError for an unknown key or relation."""
    path = paper_file("claims.yaml", results_dir)
    known = [f.name for f in fields(Claim)]
    claims = []
    for raw in yaml.safe_load(path.read_text()):
        for key in raw:
            if key not in known:
                raise UserError(f"{path}: {raw.get('id')}: {key}: no such key; {nearest(key, known)}")
        if raw.get("relation") not in RELATIONS:
            raise UserError(f"{path}: {raw.get('id')}: relation: {nearest(str(raw.get('relation')), RELATIONS)}")
        claims.append(Claim(**{k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}))
    return claims


def measure(run: Run, metric: str) -> float | None:
    """A figure of a finished run: from result.json, or a point or the mean of a curve (see claims.yaml).

    A point of a curve is the last recorded one up to that share of the epochs.
    """
    name, _, share = metric.partition("@")
    if run.status != "done" or metric == name != "mean_train_loss":
        return run.value(metric)
    curve = run.curve("train", "loss") if name.endswith("train_loss") else run.curve("val", "top1")
    if share:
        curve = curve[curve[:, 0] <= math.ceil(float(share) * run.config.scale.epochs)][-1:]
    if not len(curve):
        return None
    value = float(curve[:, 1].mean())
    return 100.0 - value if name == "test_error" else value


def _side(campaign: Campaign | None, model: str, optimizer: str, variant: str) -> list[Run]:
    if campaign is None:
        return []
    return [
        r
        for r in campaign.runs
        if (r.config.model.name, r.config.optimizer.name, r.variant) == (model, optimizer, variant)
    ]


def _printed(campaign: Campaign | None) -> Labels:
    return labels(campaign) if campaign else Labels({}, {}, {})


def _judge_interval(c: Claim, low: float, high: float) -> Status:
    if c.relation in ("higher", "lower"):
        low, high = (low, high) if c.relation == "higher" else (-high, -low)
        return "supported" if low > c.threshold else "contradicted" if high < c.threshold else "undecided"
    center = c.value if c.relation == "about" else 0.0
    if center - c.margin <= low and high <= center + c.margin:
        return "supported"
    return "contradicted" if high < center - c.margin or low > center + c.margin else "undecided"


def _compare(c: Claim, head: str, a: list[Run], b: list[Run], comparisons: int) -> tuple[Status, str]:
    """One comparison of a claim and its line of evidence, which begins with ``head``."""
    x = [v for r in a if (v := measure(r, c.metric)) is not None]
    y = [v for r in b if (v := measure(r, c.metric)) is not None]
    diverged = [r.dir.path.name for r in (*a, *b) if r.status == "diverged"]
    tail = f"; diverged: {', '.join(diverged)}" if diverged else ""
    if not x or not y:
        return "not run", f"{head}: n = {len(x)} and {len(y)}{tail}"
    used = [r for r in (*a, *b) if measure(r, c.metric) is not None]
    if len({fingerprints(r) for r in used}) > 1:
        return "undecided", f"{head}: made on different data, not compared"
    differing = [k for k in c.same if len({str(r.settings.get(k)) for r in used}) > 1]
    if differing:
        return "undecided", f"{head}: the two differ in {', '.join(differing)}, which the claim holds alike"
    mx, my = statistics.summarize(x), statistics.summarize(y)
    shown = f"{head}: {mx.text(3)} (n={mx.n}) − {my.text(3)} (n={my.n}) = {mx.mean - my.mean:+.3f}"
    if min(mx.n, my.n) < 2:
        return "undecided", f"{shown}; one seed tells nothing of another{_paired(c, a, b)}{tail}"
    test = statistics.welch([(x, y)], confidence=1 - 0.05 / comparisons)[0]
    low, high = test.difference - test.half_width, test.difference + test.half_width
    return _judge_interval(c, low, high), f"{shown}, interval {low:+.3f} to {high:+.3f}, p = {test.p:.2g}{tail}"


def _paired(c: Claim, a: list[Run], b: list[Run]) -> str:
    """What two checkpoints alone can say, for accuracies."""
    if c.metric not in ("top1", "top5"):
        return ""
    try:
        x, y = (next((r.dir.correct() for r in side if r.status == "done"), None) for side in (a, b))
    except UserError as e:
        return f" ({e})"
    if not x or not y or c.metric not in x or c.metric not in y or x[c.metric].size != y[c.metric].size:
        return ""
    p = statistics.paired(x[c.metric], y[c.metric])
    return f" (the two checkpoints: {p.difference:+.2f}, {p.low:+.2f} to {p.high:+.2f}, McNemar p = {p.p:.2g})"


def _trend(c: Claim, campaign: Campaign | None) -> tuple[Status, list[str]]:
    """Kendall's τ between the number of parameters and the gain: negative where gains grow as networks shrink."""
    gains, sizes, lines = [], [], []
    for model in c.model:
        label = _printed(campaign).model(model)
        sides = [_side(campaign, model, o, "") for o in (c.optimizer, c.against[0])]
        values = [[v for r in side if (v := measure(r, c.metric)) is not None] for side in sides]
        size = next((r.result.get("parameters") for side in sides for r in side if r.result.get("parameters")), None)
        if not all(values) or size is None:
            lines.append(f"{label}: n = {len(values[0])} and {len(values[1])}")
            continue
        gains.append(float(np.mean(values[0]) - np.mean(values[1])))
        sizes.append(size)
        lines.append(f"{label}, {size:,} parameters: gain {gains[-1]:+.3f} (n = {len(values[0])} and {len(values[1])})")
    if not gains:
        return "not run", []
    if len(gains) < len(c.model):
        return "undecided", lines
    tau, p = stats.kendalltau(sizes, gains, method="exact" if len(set(gains)) == len(gains) else "auto")
    lines.append(f"τ(parameters, gain) = {tau:+.2f}, two-sided p = {p:.2g}, {len(gains)} networks")
    if p / 2 >= 0.05:
        return "undecided", lines
    return ("supported" if tau < 0 else "contradicted"), lines


def judge(c: Claim, campaigns: Mapping[str, Campaign]) -> Judged:
    """A claim by the runs of these campaigns, by grid: reproductions, or rehearsals to see that the rule works."""
    ours, theirs = campaigns.get(c.grid), campaigns.get(c.against_grid or c.grid)
    if c.relation == "grows_as_models_shrink":
        status, lines = _trend(c, ours)
        runs = [r for m in c.model for o in (c.optimizer, *c.against) for r in _side(ours, m, o, "")]
        return Judged(c, status, lines, [r.name for r in runs])
    found: list[tuple[Status, str]] = []
    runs = []
    for model in c.model:
        for other in c.against:
            a, b = _side(ours, model, c.optimizer, ""), _side(theirs, model, other, c.against_variant)
            sides = _printed(ours).cell(c.optimizer, ""), _printed(theirs).cell(other, c.against_variant)
            head = f"{_printed(ours).model(model)}: {' against '.join(sides)}, {c.metric}"
            found.append(_compare(c, head, a, b, len(c.model) * len(c.against)))
            runs += [*a, *b]
    each = [s for s, _ in found]
    status: Status = "undecided"
    if "contradicted" in each:
        status = "contradicted"
    elif all(s == "supported" for s in each):
        status = "supported"
    elif all(s == "not run" for s in each):
        status = "not run"
    lines = [] if status == "not run" else [f"{s}: {line}" for s, line in found]
    return Judged(c, status, lines, list(dict.fromkeys(r.name for r in runs)))


def in_rehearsal(j: Judged) -> str:
    """What a rehearsal comes to, always in brackets and under that word."""
    return f"(REHEARSAL: {j.rehearsed})" if j.rehearsed != "not run" else "—"


def summary(judged: list[Judged]) -> str:
    counts = {s: sum(j.status == s for j in judged) for s in ("supported", "contradicted", "undecided", "not run")}
    return ", ".join(f"{n} {s}" for s, n in counts.items())


def markdown(judged: list[Judged], rehearsed: list[str]) -> str:
    """The ledger; ``rehearsed`` names campaigns that exist and are no evidence."""
    out = ["# The paper's claims", "", f"{len(judged)} claims: {summary(judged)}.", ""]
    if rehearsed:
        out += [f"Rehearsals are there and are no evidence: {', '.join(rehearsed)}.", ""]
    out += ["| Claim | Where in the paper | Status | The same rule on rehearsals, no evidence |"]
    out += ["| --- | --- | --- | --- |"]
    out += [f"| {j.claim.claim} | {j.claim.where} | **{j.status}** | {in_rehearsal(j)} |" for j in judged]
    out += ["", RULE]
    for j in judged:
        if j.evidence:
            out += ["", f"## {j.claim.id}: {j.status}", "", j.claim.claim, "", *(f"- {line}" for line in j.evidence)]
            out += ["", f"Runs: {', '.join(j.runs)}"]
    return "\n".join(out) + "\n"


def to_csv(judged: list[Judged]) -> str:
    f = io.StringIO()
    w = csv.writer(f, lineterminator="\n")
    w.writerow(["id", "status", "claim", "where", "grid", "metric", "relation", "evidence", "runs", "in_rehearsal"])
    for j in judged:
        c: Any = j.claim
        row = [c.id, j.status, c.claim, c.where, c.grid, c.metric, c.relation]
        w.writerow([*row, " | ".join(j.evidence), " ".join(j.runs), in_rehearsal(j)])
    return f.getvalue()
