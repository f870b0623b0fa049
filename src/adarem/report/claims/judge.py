"""One claim of the paper judged by the runs of some sweeps, by one rule for all claims."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from adarem.report import provenance
from adarem.report import stats as statistics
from adarem.report.claims.entries import Claim, lower_is_better, measure
from adarem.report.labels import Labels, labels
from adarem.report.load import Run, Sweep, fingerprints
from adarem.report.stats import BySeed, Estimate
from adarem.run.directory import FINISHED
from adarem.run.records import count

Status = Literal["supported", "contradicted", "exceeded", "undecided", "not run"]

RULE = (
    "Rule. A claim is made of comparisons: on one network, by one metric, d = optimizer − the other (above: the "
    "optimizer's figure alone), formed within each seed, with the t interval of its mean over the seeds: the paired t. "
    "*supported*: every comparison passes a one-sided test at 5 %, that is its 90 % interval lies wholly beyond the "
    "threshold (higher, lower, above), above the margin on the worse side (as good: better by any amount is no "
    "contradiction) or within the margin (within, about: two one-sided tests). No correction is due: a claim that is "
    "false in one comparison gets through only if that one does, at most 5 % of the time. *contradicted*: the 95 % "
    "interval of at least one comparison, corrected (Bonferroni) for their number because any one is enough, lies "
    "wholly short of the threshold or outside the margin. *exceeded*: of a claim of about some gain, that interval of "
    "at least one comparison lies beyond the margin on the far side, and all others are supported or exceeded too. "
    "Where a claim has to hold in k of m comparisons, k of them must pass at 5 % / (m − k + 1), and m − k + 1 at "
    "1 − 5 % / k contradict it. *undecided*: anything else. A comparison stays undecided while a planned seed of "
    "either side is diverged, failed or unfinished, with fewer than two seeds that both sides have, where the "
    "difference is the same with every seed, on different data, and where settings differ that the claim holds alike. "
    "What else the runs of a comparison differ in is named with it, as under a table. "
    "An order of networks is supported where the slope of the gain (or the figure) against log10 of the number of "
    "parameters, least squares, every network alike, is below 0 by the same test, keeps its sign when any one network "
    "is left out, and, of gains, each small network's is above 0 and their mean above the others'. It is contradicted "
    "where one of these, corrected for their number, lies wholly on the other side. Rehearsals are no evidence."
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
    by_seed: BySeed  # of the seeds that have a value
    lacking: Sequence[str]  # planned seeds without one, each with its status

    @property
    def begun(self) -> bool:
        """Whether a seed has a value or ended without one."""
        return bool(self.by_seed) or any(r.status in ("failed", "diverged") for r in self.runs)


class _Reading(NamedTuple):
    """The values of one comparison in words, with what keeps it from being decided."""

    text: str
    decidable: bool
    beyond: str = ""  # what else the runs differ in, as a table says it of the same runs


class _Decision(NamedTuple):
    status: Status
    text: str  # the intervals that it rests on, or a line of evidence


class _Outcome(NamedTuple):
    """What becomes of a claim: one line of evidence per comparison, and the runs behind it."""

    status: Status
    lines: Sequence[str]
    runs: Sequence[Run]


class _Bounds(NamedTuple):
    """Between which the claim has the true value, and beyond which side it is more than claimed, if beyond any."""

    low: float
    high: float
    exceeded: Literal["above", "below"] | None = None


def _printed(sweep: Sweep | None) -> Labels:
    return labels(sweep) if sweep else Labels({}, {}, {})


def _side(sweep: Sweep | None, metric: str, model: str, optimizer: str, variant: str = "") -> _Side:
    label = _printed(sweep).cell(optimizer, variant)
    cell = (model, optimizer, variant)
    every = sweep.runs if sweep else []
    found = [r for r in every if (r.config.model.name, r.config.optimizer.name, r.overrides) == cell]
    runs = sorted(found, key=lambda r: r.config.seed)
    if not runs:
        return _Side(label, [], {}, [f"{label}: no run"])
    figures = [(r, measure(r, metric)) for r in runs]
    lacking = [
        f"{r.dir.path.name} {r.status}" + f" without {metric}" * (r.status == "done") for r, v in figures if v is None
    ]
    unread = set(sweep.spec.seeds if sweep else ()) - {r.config.seed for r in runs}
    lacking += [f"{label}, seed {seed}: no readable run" for seed in sorted(unread)]
    return _Side(label, runs, {r.config.seed: v for r, v in figures if v is not None}, lacking)


def _reading(c: Claim, metric: str, sides: Sequence[_Side]) -> _Reading:
    used = [r for s in sides for r in s.runs if r.status == "done"]
    if len({fingerprints(r) for r in used}) > 1:
        return _Reading("made on different data, not compared", False)
    differing = [k for k in c.same if len({str(r.settings.get(k)) for r in used}) > 1]
    if differing:
        return _Reading(f"the runs differ in {', '.join(differing)}, which the claim holds alike", False)
    counts = [len(s.by_seed) for s in sides]
    lacking = [text for s in sides for text in s.lacking]
    reasons = [f"without a figure: {', '.join(lacking)}"] if lacking else []
    if 0 in counts:
        return _Reading("; ".join([f"n = {' and '.join(map(str, counts))}", *reasons]), False)
    means = [statistics.summarize(list(s.by_seed.values())) for s in sides]
    shown = " − ".join(f"{m.text(3)} (n={m.n})" for m in means)
    values = statistics.within_seeds([s.by_seed for s in sides], (1, -1)[: len(sides)])
    if len(means) == 2:
        shown += f" = {means[0].mean - means[1].mean:+.3f}"
    if min(counts) < 2:
        reasons.append(f"one seed says nothing of another{_two_checkpoints(metric, sides)}")
    elif len(values) < 2:
        reasons.append(f"the two sides share {len(values)} of their seeds, and two are needed")
    elif not statistics.variance(values):
        reasons.append("the same with every seed, so there is no test")
    beyond = "".join(f"; {line}" for line in provenance.differing(used, by_cell=False))
    return _Reading("; ".join([shown, *reasons]), not reasons, beyond)


def _two_checkpoints(metric: str, sides: Sequence[_Side]) -> str:
    """What two checkpoints alone can say, for accuracies; empty where one kept no images that fit its result."""
    if metric not in ("top1", "top5") or len(sides) < 2:
        return ""
    first, second = (next((r.correct() for r in s.runs if r.status == "done"), None) for s in sides)
    if first is None or second is None or len(first[metric]) != len(second[metric]):
        return ""
    p = statistics.compare_images(first[metric], second[metric])
    return f" (the two checkpoints: {p.difference:+.2f}, {p.low:+.2f} to {p.high:+.2f}, McNemar p = {p.p:.2g})"


def _claimed(c: Claim, metric: str) -> _Bounds:
    """For a claim on values or differences; of an order of networks that of its slope."""
    value = c.value if c.value is not None else math.nan  # claims.yaml is refused where it is needed and missing
    if c.relation == "higher":
        return _Bounds(c.threshold, math.inf)
    if c.relation == "lower":
        return _Bounds(-math.inf, -c.threshold)
    if c.relation == "above":
        return _Bounds(value, math.inf)
    if c.relation == "as_good":
        return _Bounds(-math.inf, c.margin) if lower_is_better(metric) else _Bounds(-c.margin, math.inf)
    if c.relation == "grows_as_models_shrink":
        return _Bounds(-math.inf, 0.0)
    if c.relation == "about":
        return _Bounds(value - c.margin, value + c.margin, "above" if value > 0 else "below" if value < 0 else None)
    return _Bounds(-c.margin, c.margin)


def _decide(bounds: _Bounds, estimate: Estimate, level: float, corrected: float) -> _Decision:
    """The rule for one comparison, and the intervals that it rests on.

    Args:
        level: of the one-sided test that supports.
        corrected: of the two-sided interval that contradicts.
    """
    low, high, far = bounds
    narrow, wide = estimate.interval(1 - 2 * level), estimate.interval(1 - corrected)
    text = (
        f"{100 * (1 - 2 * level):.4g} % interval {narrow[0]:+.3f} to {narrow[1]:+.3f}, "
        f"one-sided p = {estimate.p_outside(low, high):.2g}, "
        f"{100 * (1 - corrected):.4g} % interval {wide[0]:+.3f} to {wide[1]:+.3f}"
    )
    if low < narrow[0] and narrow[1] < high:
        return _Decision("supported", text)
    if wide[1] < low:
        return _Decision("exceeded" if far == "below" else "contradicted", text)
    if high < wide[0]:
        return _Decision("exceeded" if far == "above" else "contradicted", text)
    return _Decision("undecided", text)


def _compare(c: Claim, head: str, metric: str, sides: Sequence[_Side], comparisons: int) -> _Decision:
    """One comparison of a claim and its line of evidence, which begins with ``head``."""
    reading = _reading(c, metric, sides)
    cells = [s.by_seed for s in sides]
    estimate = statistics.contrast(cells, (1, -1)[: len(sides)]) if reading.decidable else None
    if estimate is None:
        status: Status = "undecided" if all(s.begun for s in sides) else "not run"
        return _Decision(status, f"{head}: {reading.text}{reading.beyond}")
    needed = c.at_least or comparisons
    decision = _decide(_claimed(c, metric), estimate, 0.05 / (comparisons - needed + 1), 0.05 / needed)
    return _Decision(decision.status, f"{head}: {reading.text}, {decision.text}{reading.beyond}")


def _together(found: Sequence[Status], at_least: int) -> Status:
    """The status of a claim by those of its comparisons."""
    held, against = (sum(s in of for s in found) for of in (("supported", "exceeded"), ("contradicted",)))
    if against > len(found) - (at_least or len(found)):
        return "contradicted"
    if held >= (at_least or len(found)):
        return "exceeded" if "exceeded" in found else "supported"
    return "not run" if set(found) == {"not run"} else "undecided"


def _comparisons(c: Claim, ours: Sweep | None, theirs: Sweep | None) -> _Outcome:
    """A claim that holds if all of its comparisons do, or as many as it says."""
    pairs: list[tuple[str, str, list[_Side]]] = []
    for metric in (c.metric, *c.also):
        for model in c.model:
            of_model = f"{_printed(ours).model(model)}: "
            a = _side(ours, metric, model, c.optimizer)
            if not c.against:
                pairs.append((f"{of_model}{a.label}, {metric} against {c.value:g}", metric, [a]))
            for other in c.against:
                for variant in c.against_variant or ("",):
                    b = _side(theirs, metric, model, other, variant)
                    pairs.append((f"{of_model}{a.label} against {b.label}, {metric}", metric, [a, b]))
    found = [_compare(c, head, metric, sides, len(pairs)) for head, metric, sides in pairs]
    runs = [r for *_, sides in pairs for s in sides for r in s.runs]
    return _Outcome(_together([s for s, _ in found], c.at_least), [f"{s}: {line}" for s, line in found], runs)


def _order(c: Claim, sweep: Sweep | None) -> _Outcome:
    """A claim on how a gain over another optimizer, or a figure, goes with the number of parameters."""
    rows = [[_side(sweep, c.metric, model, o) for o in (c.optimizer, *c.against)] for model in c.model]
    runs = [r for sides in rows for s in sides for r in s.runs]
    sizes: list[int] = []  # of the networks, where known
    lines, able = [], True
    for model, sides in zip(c.model, rows, strict=True):
        size = next((n for s in sides for r in s.runs if (n := count(r.result, "parameters"))), None)
        reading = _reading(c, c.metric, sides)
        sizes += [size] if size else []
        of_size = f"{size:,}" if size else "unknown"
        name = _printed(sweep).model(model)
        lines.append(f"{name}, {of_size} parameters: {reading.text}{reading.beyond}")
        able &= reading.decidable and size is not None
    if not c.against and len({fingerprints(r) for r in runs if r.status == "done"}) > 1:
        lines.append("made on different data, not compared")
        able = False
    if len(set(sizes)) < 2:
        lines.append("networks of one size have no order")
        able = False
    decided = _tests_of_order(c, [math.log10(size) for size in sizes], rows) if able else []
    if not decided:
        begun = any(all(s.begun for s in sides) for sides in rows)
        return _Outcome("undecided" if begun else "not run", lines, runs)
    lines += [f"{d.status}: {d.text}" for d in decided]
    return _Outcome(_together([d.status for d in decided], 0), lines, runs)


def _tests_of_order(c: Claim, x: Sequence[float], rows: Sequence[Sequence[_Side]]) -> list[_Decision]:
    """What an order of networks has to pass, each with its line."""
    cells = [s.by_seed for sides in rows for s in sides]
    signs = (1.0, -1.0)[: len(rows[0])]

    def of_networks(weights: Sequence[float]) -> Estimate | None:
        return statistics.contrast(cells, [w * sign for w in weights for sign in signs])

    slope = statistics.slope_weights(x)
    parts = [(f"slope of {c.metric} for ten times the parameters", slope, _claimed(c, c.metric))]
    small = [model in c.small for model in c.model]
    if c.small:
        positive = _Bounds(0.0, math.inf)
        contrast = [1 / sum(small) if s else -1 / (len(small) - sum(small)) for s in small]
        what = "gain" if c.against else c.metric
        parts.append((f"mean {what} of the small networks above the others'", contrast, positive))
        if c.against:
            for i, model in enumerate(c.model):
                if small[i]:
                    alone = [float(i == j) for j in range(len(small))]
                    parts.append((f"gain on {model}", alone, positive))
    decided: list[_Decision] = []
    for head, weights, bounds in parts:
        estimate = of_networks(weights)
        if estimate is None:
            decided.append(_Decision("undecided", f"{head}: the same with every seed, so there is no test"))
            continue
        found = _decide(bounds, estimate, 0.05, 0.05 / len(parts))
        decided.append(_Decision(found.status, f"{head} {estimate.value:+.3f}, {found.text}"))
    decided.append(_without_one(c, x, cells, signs))
    return decided


def _without_one(c: Claim, x: Sequence[float], cells: Sequence[BySeed], signs: Sequence[float]) -> _Decision:
    """Whether the slope keeps its sign when any one network is left out; nothing is contradicted by it."""
    turned = []
    for i, model in enumerate(c.model):
        rest = [j for j in range(len(c.model)) if j != i]
        if len({x[j] for j in rest}) < 2:
            continue
        weights = statistics.slope_weights([x[j] for j in rest])
        left = [cells[j * len(signs) + k] for j in rest for k in range(len(signs))]
        values = statistics.within_seeds(left, [w * sign for w in weights for sign in signs])
        if math.fsum(values) >= 0:
            turned.append(model)
    if turned:
        return _Decision("undecided", f"the slope is not below 0 without {' or without '.join(turned)}")
    return _Decision("supported", "the slope stays below 0 when any one network is left out")


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
