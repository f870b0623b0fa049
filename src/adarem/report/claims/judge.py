"""One claim of the paper judged by the runs of some sweeps, by one rule for all claims."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from adarem.report import stats as statistics
from adarem.report.claims.entries import Claim, measure
from adarem.report.labels import Labels, labels
from adarem.report.load import Run, Sweep, fingerprints
from adarem.report.stats import Estimate
from adarem.run.directory import FINISHED

Status = Literal["supported", "contradicted", "undecided", "not run"]

RULE = (
    "Rule. A claim is made of comparisons: on one network, d = optimizer − the other (above: the optimizer's figure "
    "alone), means over seeds, with Welch's standard error. *supported*: every comparison passes a one-sided test at "
    "5 %, that is its 90 % interval lies wholly beyond the threshold (higher, lower, above) or within the margin "
    "(equal, about: two one-sided tests). No correction is due: a claim that is false in one comparison gets through "
    "only if that one does, at most 5 % of the time. *contradicted*: the 95 % interval of at least one comparison, "
    "corrected (Bonferroni) for their number because any one is enough, lies wholly short of the threshold or outside "
    "the margin. *undecided*: anything else. A comparison stays undecided while a planned seed of either side is "
    "diverged, failed or unfinished, with fewer than two seeds a side, where the seeds of neither side differ among "
    "themselves, on different data, and where settings differ that the claim holds alike. An order of networks is one "
    "comparison: the slope of the gain (or the figure) against log10 of the number of parameters is below 0. Least "
    "squares, every network alike, so that its error is the seeds' alone, with Satterthwaite's degrees of freedom. "
    "Rehearsals are no evidence."
)


@dataclass(frozen=True)
class Judged:
    claim: Claim
    status: Status
    evidence: list[str]  # one line a comparison
    runs: list[str]
    rehearsed: Status = "not run"  # by the same rule on rehearsals, which are no evidence


@dataclass(frozen=True)
class _Side:
    """One cell in a comparison."""

    label: str
    runs: list[Run]
    values: list[float]  # of the seeds that have a figure
    lacking: list[str]  # planned seeds without one, each with its status

    @property
    def begun(self) -> bool:
        """Whether a seed has a figure or ended without one."""
        return bool(self.values) or any(r.status in ("failed", "diverged") for r in self.runs)


def _printed(sweep: Sweep | None) -> Labels:
    return labels(sweep) if sweep else Labels({}, {}, {})


def _side(sweep: Sweep | None, metric: str, model: str, optimizer: str, variant: str = "") -> _Side:
    label = _printed(sweep).cell(optimizer, variant)
    cell = (model, optimizer, variant)
    every = sweep.runs if sweep else []
    runs = [r for r in every if (r.config.model.name, r.config.optimizer.name, r.overrides) == cell]
    if not runs:
        return _Side(label, [], [], [f"{label}: no run"])
    figures = [(r, measure(r, metric)) for r in runs]
    lacking = [
        f"{r.dir.path.name} {r.status}" + f" without {metric}" * (r.status == "done") for r, v in figures if v is None
    ]
    unread = set(sweep.grid.get("seeds") or [0]) - {r.config.seed for r in runs}
    lacking += [f"{label}, seed {seed}: no readable run" for seed in sorted(unread)]
    return _Side(label, runs, [v for _, v in figures if v is not None], lacking)


def _reading(c: Claim, sides: Sequence[_Side]) -> tuple[str, bool]:
    """The figures of one comparison in words, with what keeps it from being decided; and whether it can be."""
    used = [r for s in sides for r in s.runs if r.status == "done"]
    if len({fingerprints(r) for r in used}) > 1:
        return "made on different data, not compared", False
    differing = [k for k in c.same if len({str(r.settings.get(k)) for r in used}) > 1]
    if differing:
        return f"the runs differ in {', '.join(differing)}, which the claim holds alike", False
    counts = [len(s.values) for s in sides]
    lacking = [text for s in sides for text in s.lacking]
    reasons = [f"without a figure: {', '.join(lacking)}"] if lacking else []
    if 0 in counts:
        return "; ".join([f"n = {' and '.join(map(str, counts))}", *reasons]), False
    means = [statistics.summarize(s.values) for s in sides]
    shown = " − ".join(f"{m.text(3)} (n={m.n})" for m in means)
    if len(means) == 2:
        shown += f" = {means[0].mean - means[1].mean:+.3f}"
    if min(counts) < 2:
        reasons.append(f"one seed tells nothing of another{_paired(c, sides)}")
    elif not any(statistics.variance(s.values) for s in sides):
        reasons.append("the seeds did not differ, so there is no test")
    return "; ".join([shown, *reasons]), not reasons


def _paired(c: Claim, sides: Sequence[_Side]) -> str:
    """What two checkpoints alone can say, for accuracies; empty where one kept no images that fit its result."""
    if c.metric not in ("top1", "top5") or len(sides) < 2:
        return ""
    bits = [next((r.correct() for r in s.runs if r.status == "done"), None) for s in sides]
    if not all(bits) or len({len(of_run[c.metric]) for of_run in bits}) > 1:
        return ""
    p = statistics.compare_images(*(of_run[c.metric] for of_run in bits))
    return f" (the two checkpoints: {p.difference:+.2f}, {p.low:+.2f} to {p.high:+.2f}, McNemar p = {p.p:.2g})"


def _claimed(c: Claim) -> tuple[float, float]:
    """Between which bounds the claim has the true difference (above: the figure; an order of networks: the slope)."""
    if c.relation == "higher":
        return c.threshold, math.inf
    if c.relation == "lower":
        return -math.inf, -c.threshold
    if c.relation == "above":
        return c.value, math.inf
    if c.relation == "grows_as_models_shrink":
        return -math.inf, 0.0
    center = c.value if c.relation == "about" else 0.0
    return center - c.margin, center + c.margin


def _decide(c: Claim, estimate: Estimate, comparisons: int) -> tuple[Status, str]:
    """The rule for one of so many comparisons, and the intervals that it rests on."""
    low, high = _claimed(c)
    corrected = 1 - 0.05 / comparisons
    narrow, wide = estimate.interval(0.90), estimate.interval(corrected)
    text = (
        f"90 % interval {narrow[0]:+.3f} to {narrow[1]:+.3f}, one-sided p = {estimate.p_outside(low, high):.2g}, "
        f"{100 * corrected:.4g} % interval {wide[0]:+.3f} to {wide[1]:+.3f}"
    )
    if low < narrow[0] and narrow[1] < high:
        return "supported", text
    return ("contradicted" if wide[1] < low or high < wide[0] else "undecided"), text


def _compare(c: Claim, head: str, sides: Sequence[_Side], comparisons: int) -> tuple[Status, str]:
    """One comparison of a claim and its line of evidence, which begins with ``head``."""
    text, able = _reading(c, sides)
    if not able:
        return ("undecided" if all(s.begun for s in sides) else "not run"), f"{head}: {text}"
    estimate = statistics.contrast([s.values for s in sides], (1, -1)[: len(sides)])
    status, tested = _decide(c, estimate, comparisons)
    return status, f"{head}: {text}, {tested}"


def _comparisons(c: Claim, ours: Sweep | None, theirs: Sweep | None) -> tuple[Status, list[str], list[Run]]:
    """A claim that holds if all of its comparisons do."""
    pairs = []
    for model in c.model:
        of_model = f"{_printed(ours).model(model)}: "
        a = _side(ours, c.metric, model, c.optimizer)
        if not c.against:
            pairs.append((f"{of_model}{a.label}, {c.metric} against {c.value:g}", [a]))
        for other in c.against:
            for variant in c.against_variant or ("",):
                b = _side(theirs, c.metric, model, other, variant)
                pairs.append((f"{of_model}{a.label} against {b.label}, {c.metric}", [a, b]))
    found = [_compare(c, head, sides, len(pairs)) for head, sides in pairs]
    each = {s for s, _ in found}
    status = "contradicted" if "contradicted" in each else each.pop() if len(each) == 1 else "undecided"
    return status, [f"{s}: {line}" for s, line in found], [r for _, sides in pairs for s in sides for r in s.runs]


def _order(c: Claim, sweep: Sweep | None) -> tuple[Status, list[str], list[Run]]:
    """A claim on how a gain over another optimizer, or a figure, goes with the number of parameters."""
    rows = [[_side(sweep, c.metric, model, o) for o in (c.optimizer, *c.against)] for model in c.model]
    runs = [r for sides in rows for s in sides for r in s.runs]
    sizes, lines, able = [], [], True
    for model, sides in zip(c.model, rows, strict=True):
        size = next((n for s in sides for r in s.runs if (n := r.result.get("parameters"))), None)
        text, of_model = _reading(c, sides)
        sizes.append(size)
        lines.append(f"{_printed(sweep).model(model)}, {f'{size:,}' if size else 'unknown'} parameters: {text}")
        able &= of_model and size is not None
    if not c.against and len({fingerprints(r) for r in runs if r.status == "done"}) > 1:
        lines.append("made on different data, not compared")
        able = False
    if len(set(sizes)) < 2:
        lines.append("networks of one size have no order")
        able = False
    if not able:
        begun = any(all(s.begun for s in sides) for sides in rows)
        return ("undecided" if begun else "not run"), lines, runs
    estimate = statistics.slope(np.log10(sizes), [[s.values for s in sides] for sides in rows])
    status, tested = _decide(c, estimate, 1)
    lines.append(f"{status}: slope of {c.metric} for ten times the parameters {estimate.value:+.3f}, {tested}")
    return status, lines, runs


def judge(c: Claim, sweeps: Mapping[str, Sweep]) -> Judged:
    """A claim by the runs of these sweeps, by grid: reproductions, or rehearsals to see that the rule works."""
    ours, theirs = sweeps.get(c.grid), sweeps.get(c.against_grid or c.grid)
    in_order = c.relation == "grows_as_models_shrink"
    status, lines, runs = _order(c, ours) if in_order else _comparisons(c, ours, theirs)
    return Judged(
        c,
        status,
        [] if status == "not run" else lines,
        list(dict.fromkeys(r.name for r in runs if r.status in FINISHED)),
    )
