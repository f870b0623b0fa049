"""One claim of the paper judged by the runs of some sweeps, by one rule for all claims."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from adarem.report import stats as statistics
from adarem.report.claims.entries import Claim, measure
from adarem.report.labels import Labels, labels
from adarem.report.load import Run, Sweep, fingerprints
from adarem.report.stats import Estimate, Interval
from adarem.run.directory import FINISHED
from adarem.run.records import count

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
    evidence: Sequence[str]  # one line per comparison
    runs: Sequence[str]
    rehearsed: Status = "not run"  # by the same rule on rehearsals, which are no evidence


@dataclass(frozen=True)
class _Side:
    """One cell in a comparison."""

    label: str
    runs: Sequence[Run]
    values: Sequence[float]  # of the seeds that have one
    lacking: Sequence[str]  # planned seeds without one, each with its status

    @property
    def begun(self) -> bool:
        """Whether a seed has a value or ended without one."""
        return bool(self.values) or any(r.status in ("failed", "diverged") for r in self.runs)


class _Reading(NamedTuple):
    """The values of one comparison in words, with what keeps it from being decided."""

    text: str
    decidable: bool


class _Decision(NamedTuple):
    status: Status
    text: str  # the intervals that it rests on, or a line of evidence


class _Outcome(NamedTuple):
    """What becomes of a claim: one line of evidence per comparison, and the runs behind it."""

    status: Status
    lines: Sequence[str]
    runs: Sequence[Run]


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
    unread = set(sweep.spec.seeds if sweep else ()) - {r.config.seed for r in runs}
    lacking += [f"{label}, seed {seed}: no readable run" for seed in sorted(unread)]
    return _Side(label, runs, [v for _, v in figures if v is not None], lacking)


def _reading(c: Claim, sides: Sequence[_Side]) -> _Reading:
    used = [r for s in sides for r in s.runs if r.status == "done"]
    if len({fingerprints(r) for r in used}) > 1:
        return _Reading("made on different data, not compared", False)
    differing = [k for k in c.same if len({str(r.settings.get(k)) for r in used}) > 1]
    if differing:
        return _Reading(f"the runs differ in {', '.join(differing)}, which the claim holds alike", False)
    counts = [len(s.values) for s in sides]
    lacking = [text for s in sides for text in s.lacking]
    reasons = [f"without a figure: {', '.join(lacking)}"] if lacking else []
    if 0 in counts:
        return _Reading("; ".join([f"n = {' and '.join(map(str, counts))}", *reasons]), False)
    means = [statistics.summarize(s.values) for s in sides]
    shown = " − ".join(f"{m.text(3)} (n={m.n})" for m in means)
    if len(means) == 2:
        shown += f" = {means[0].mean - means[1].mean:+.3f}"
    if min(counts) < 2:
        reasons.append(f"one seed says nothing of another{_paired(c, sides)}")
    elif not any(statistics.variance(s.values) for s in sides):
        reasons.append("the seeds did not differ, so there is no test")
    return _Reading("; ".join([shown, *reasons]), not reasons)


def _paired(c: Claim, sides: Sequence[_Side]) -> str:
    """What two checkpoints alone can say, for accuracies; empty where one kept no images that fit its result."""
    if c.metric not in ("top1", "top5") or len(sides) < 2:
        return ""
    first, second = (next((r.correct() for r in s.runs if r.status == "done"), None) for s in sides)
    if first is None or second is None or len(first[c.metric]) != len(second[c.metric]):
        return ""
    p = statistics.compare_images(first[c.metric], second[c.metric])
    return f" (the two checkpoints: {p.difference:+.2f}, {p.low:+.2f} to {p.high:+.2f}, McNemar p = {p.p:.2g})"


def _claimed(c: Claim) -> Interval:
    """Between which bounds the claim has the true difference (above: the figure; an order of networks: the slope)."""
    value = c.value if c.value is not None else math.nan  # claims.yaml is refused where it is needed and missing
    if c.relation == "higher":
        return Interval(c.threshold, math.inf)
    if c.relation == "lower":
        return Interval(-math.inf, -c.threshold)
    if c.relation == "above":
        return Interval(value, math.inf)
    if c.relation == "grows_as_models_shrink":
        return Interval(-math.inf, 0.0)
    center = value if c.relation == "about" else 0.0
    return Interval(center - c.margin, center + c.margin)


def _decide(c: Claim, estimate: Estimate, comparisons: int) -> _Decision:
    """The rule for one of so many comparisons, and the intervals that it rests on."""
    low, high = _claimed(c)
    corrected = 1 - 0.05 / comparisons
    narrow, wide = estimate.interval(0.90), estimate.interval(corrected)
    text = (
        f"90 % interval {narrow[0]:+.3f} to {narrow[1]:+.3f}, one-sided p = {estimate.p_outside(low, high):.2g}, "
        f"{100 * corrected:.4g} % interval {wide[0]:+.3f} to {wide[1]:+.3f}"
    )
    if low < narrow[0] and narrow[1] < high:
        return _Decision("supported", text)
    return _Decision("contradicted" if wide[1] < low or high < wide[0] else "undecided", text)


def _compare(c: Claim, head: str, sides: Sequence[_Side], comparisons: int) -> _Decision:
    """One comparison of a claim and its line of evidence, which begins with ``head``."""
    reading = _reading(c, sides)
    estimate = statistics.contrast([s.values for s in sides], (1, -1)[: len(sides)]) if reading.decidable else None
    if estimate is None:
        return _Decision("undecided" if all(s.begun for s in sides) else "not run", f"{head}: {reading.text}")
    decision = _decide(c, estimate, comparisons)
    return _Decision(decision.status, f"{head}: {reading.text}, {decision.text}")


def _comparisons(c: Claim, ours: Sweep | None, theirs: Sweep | None) -> _Outcome:
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
    status: Status = "contradicted" if "contradicted" in each else each.pop() if len(each) == 1 else "undecided"
    runs = [r for _, sides in pairs for s in sides for r in s.runs]
    return _Outcome(status, [f"{s}: {line}" for s, line in found], runs)


def _order(c: Claim, sweep: Sweep | None) -> _Outcome:
    """A claim on how a gain over another optimizer, or a figure, goes with the number of parameters."""
    rows = [[_side(sweep, c.metric, model, o) for o in (c.optimizer, *c.against)] for model in c.model]
    runs = [r for sides in rows for s in sides for r in s.runs]
    sizes: list[int] = []  # of the networks, where known
    lines, able = [], True
    for model, sides in zip(c.model, rows, strict=True):
        size = next((n for s in sides for r in s.runs if (n := count(r.result, "parameters"))), None)
        reading = _reading(c, sides)
        sizes += [size] if size else []
        lines.append(f"{_printed(sweep).model(model)}, {f'{size:,}' if size else 'unknown'} parameters: {reading.text}")
        able &= reading.decidable and size is not None
    if not c.against and len({fingerprints(r) for r in runs if r.status == "done"}) > 1:
        lines.append("made on different data, not compared")
        able = False
    if len(set(sizes)) < 2:
        lines.append("networks of one size have no order")
        able = False
    samples = [[s.values for s in sides] for sides in rows]
    estimate = statistics.slope([math.log10(size) for size in sizes], samples) if able else None
    if estimate is None:
        begun = any(all(s.begun for s in sides) for sides in rows)
        return _Outcome("undecided" if begun else "not run", lines, runs)
    decision = _decide(c, estimate, 1)
    slope = f"slope of {c.metric} for ten times the parameters {estimate.value:+.3f}"
    lines.append(f"{decision.status}: {slope}, {decision.text}")
    return _Outcome(decision.status, lines, runs)


def judge(c: Claim, sweeps: Mapping[str, Sweep]) -> Judged:
    """A claim by the runs of these sweeps, by grid: reproductions, or rehearsals to see that the rule works."""
    ours, theirs = sweeps.get(c.grid), sweeps.get(c.against_grid or c.grid)
    in_order = c.relation == "grows_as_models_shrink"
    outcome = _order(c, ours) if in_order else _comparisons(c, ours, theirs)
    return Judged(
        c,
        outcome.status,
        [] if outcome.status == "not run" else outcome.lines,
        list(dict.fromkeys(r.name for r in outcome.runs if r.status in FINISHED)),
    )
