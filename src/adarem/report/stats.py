"""Statistics of plain numbers: summaries of seeds, intervals, tests, power. Imports nothing of runs or files.

Accuracies are in percent, so differences are in points. ``scipy`` and ``statsmodels`` do the mathematics.

Runs of one seed share order, augmentation and initial weights, so cells are compared seed by seed: the paired t test.
``benchmarks/seed_tests.py`` is why it is this one.

Seeds that all gave the same value do not show that the noise is 0: where nothing varies there is no interval, no test
and no power.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

BySeed: TypeAlias = Mapping[int, float]  # seed to the value of its run

Verdict = Literal["reproduced", "better", "worse", "within noise", "underpowered", "diverged", "pending"]

# Points of the metric that a reproduction may be off: about half the smallest gain that the paper claims (1.0).
MARGIN = 0.5

VERDICT_RULE = (
    "Verdict against the paper: d = ours − paper, h = half-width of the 95 % t interval for one further run, "
    f"t(n−1) · s · √(1 + 1/n), since the paper's value is one run of unstated seed. The margin is {MARGIN:g}: "
    "points of accuracy, or of perplexity. "
    "*reproduced*: d ± h lies within the margin; *better* / *worse*: d ± h does not contain 0; *within noise*: it "
    "contains 0 and h is at most the margin; *underpowered*: one seed, seeds that did not differ, or h above the "
    "margin; *pending*: a planned seed is not finished; *diverged*: a seed diverged. "
    "The first of these that fits is the verdict: *diverged*, *pending*, *underpowered* where the seeds do not differ, "
    "*reproduced*, *better* or *worse* (whatever h is), *within noise*, *underpowered* for h."
)


@dataclass(frozen=True)
class Summary:
    """The seeds of one cell."""

    n: int
    mean: float
    sd: float | None  # n − 1 in the denominator; None with one seed
    half_width: float | None  # of the mean's 95 % t interval; None with one seed or seeds that do not differ

    def text(self, digits: int = 2) -> str:
        """``70.61 ± 0.12``: mean and sample standard deviation; never ± with one seed."""
        mean = f"{self.mean:.{digits}f}"
        return mean if self.sd is None else f"{mean} ± {self.sd:.{digits}f}"


def variance(values: Sequence[float]) -> float:
    """Sample variance of two values or more; exactly 0 where they are equal, which their rounded mean would hide."""
    if max(values) == min(values):
        return 0.0
    mean = math.fsum(values) / len(values)  # math.fsum: the order of the seeds changes no bit
    return math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)


def summarize(values: Sequence[float]) -> Summary:
    """Mean, sample standard deviation and the half-width of the mean's 95 % t interval. Needs one value or more."""
    x = np.asarray(values, dtype=float)
    assert x.size > 0 and np.isfinite(x).all()
    if x.size == 1:
        return Summary(1, float(x[0]), None, None)
    sd = math.sqrt(variance(values))
    half_width = float(stats.t.ppf(0.975, x.size - 1)) * sd / math.sqrt(x.size) if sd else None
    return Summary(x.size, float(x.mean()), sd, half_width)


class PooledDeviation(NamedTuple):
    sd: float
    degrees_of_freedom: int


def pooled_deviation(groups: Sequence[Sequence[float]]) -> PooledDeviation | None:
    """Sample deviation pooled over cells; None when no cell has two seeds."""
    several = [g for g in groups if len(g) >= 2]
    freedom = sum(len(g) - 1 for g in several)
    if freedom == 0:
        return None
    return PooledDeviation(math.sqrt(sum((len(g) - 1) * variance(g) for g in several) / freedom), freedom)


def smallest_detectable(sd: float, n: int, tests: int = 1, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Difference that a two-sided paired t test of n seeds finds with ``power``.

    Args:
        sd: deviation of the differences of one seed.
        n: seeds that the two cells share.
        tests: among which the smallest p counts, by Holm's first step: what is found here is found whatever the others
            come to.

    None if n < 2 or if the differences do not vary.
    """
    if n < 2 or sd == 0:
        return None
    bound = float(stats.t.ppf(1 - alpha / (2 * tests), n - 1))

    def lacks(effect: float) -> float:
        """Of the upper tail alone: with that power the lower one is next to nothing, and nct has no figure for it."""
        return float(stats.nct.sf(bound, n - 1, effect * math.sqrt(n))) - power

    high = 2 * bound  # beyond it the t of the observed difference is nearly always above the bound
    while lacks(high) < 0:
        high *= 2
    return float(optimize.brentq(lacks, 0.0, high)) * sd


def verdict(values: Sequence[float], paper: float, *, planned: int, diverged: int, lower_is_better: bool) -> Verdict:
    """The verdict of VERDICT_RULE on the values of the finished seeds."""
    if diverged:
        return "diverged"
    if len(values) < max(planned, 1):
        return "pending"
    s = summarize(values)
    if not s.sd:
        return "underpowered"
    h = float(stats.t.ppf(0.975, s.n - 1)) * s.sd * math.sqrt(1 + 1 / s.n)
    d = s.mean - paper
    if max(abs(d - h), abs(d + h)) <= MARGIN:
        return "reproduced"
    if abs(d) > h:
        return "better" if (d < 0) == lower_is_better else "worse"
    return "within noise" if h <= MARGIN else "underpowered"


class Interval(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A weighted sum of cells, formed within each seed and averaged over the seeds that all of them have."""

    value: float
    standard_error: float
    seeds: int

    @property
    def degrees_of_freedom(self) -> int:
        return self.seeds - 1

    def interval(self, confidence: float) -> Interval:
        """The two-sided t interval."""
        h = float(stats.t.ppf(0.5 + confidence / 2, self.degrees_of_freedom)) * self.standard_error
        return Interval(self.value - h, self.value + h)

    def p_outside(self, low: float, high: float) -> float:
        """The larger of two one-sided p, against a true value of at most ``low`` and against one of at least ``high``.

        Below 0.05 where the 90 % interval lies between the two. Either may be infinite.
        """
        distances = np.array([self.value - low, high - self.value]) / self.standard_error
        return float(np.max(stats.t.sf(distances, self.degrees_of_freedom)))


def shared_seeds(cells: Sequence[BySeed]) -> list[int]:
    """The seeds that all cells have, in order."""
    return sorted(set.intersection(*(set(c) for c in cells)))


def within_seeds(cells: Sequence[BySeed], weights: Sequence[float]) -> list[float]:
    """The sum of ``weights`` times the cells for each seed that all of them have.

    What varies by no more than rounding is one value: 71.1 − 70.1 is not 71.0 − 70.0.
    """
    seeds = shared_seeds(cells)
    sums = [math.fsum(w * c[seed] for w, c in zip(weights, cells, strict=True)) for seed in seeds]
    size = max((abs(w * c[seed]) for w, c in zip(weights, cells, strict=True) for seed in seeds), default=0.0)
    return [math.fsum(sums) / len(sums)] * len(sums) if sums and max(sums) - min(sums) <= 1e-9 * size else sums


def contrast(cells: Sequence[BySeed], weights: Sequence[float]) -> Estimate | None:
    """The weighted sum within seeds, and its error over them; None of fewer than two seeds, or where it is the same in
    each.

    Weights 1 and −1 make it the paired t test, whatever the two cells have in common; more cells may covary as they
    like, too.
    """
    values = within_seeds(cells, weights)
    if len(values) < 2 or (spread := variance(values)) == 0:
        return None
    return Estimate(math.fsum(values) / len(values), math.sqrt(spread / len(values)), len(values))


def slope_weights(x: Sequence[float]) -> list[float]:
    """Of the values at x, whose weighted sum is the slope of the least-squares line. Every x counts alike."""
    centred = np.asarray(x, dtype=float) - np.mean(x)
    return [float(w) for w in centred / (centred**2).sum()]


@dataclass(frozen=True)
class Comparison:
    """The paired t test of two cells; all but the difference and n are None where there is none."""

    difference: float
    n: int  # seeds that both cells have
    half_width: float | None = None  # 95 %
    p: float | None = None
    adjusted: float | None = None  # p by Holm's correction over the tests of one metric

    @property
    def text(self) -> str:
        """``+0.60 ± 0.30 (95 %, 3 seeds), p = 0.004, Holm 0.02``, or why there is no test."""
        difference = f"{self.difference:+.2f}".replace("-", "−")
        if self.p is None:
            return f"{difference}; the same with every seed, so there is no test"
        return (
            f"{difference} ± {self.half_width:.2f} (95 %, {self.n} seeds), p = {self.p:.2g}, Holm {self.adjusted:.2g}"
        )


class TwoCells(NamedTuple):
    """The values of two cells, which share two seeds or more."""

    a: BySeed
    b: BySeed


def paired_tests(comparisons: Sequence[TwoCells], families: Sequence[str]) -> list[Comparison]:
    """The paired t test of every two cells, difference = a − b over the seeds that both have.

    Args:
        comparisons: what is compared.
        families: of each the metric; Holm's correction runs over those of one metric that have a test.
    """
    found = [contrast(cells, (1, -1)) for cells in comparisons]
    raw: dict[str, dict[int, float]] = {}
    for i, (e, family) in enumerate(zip(found, families, strict=True)):
        if e is not None:
            p = 2 * float(stats.t.sf(abs(e.value) / e.standard_error, e.degrees_of_freedom))
            raw.setdefault(family, {})[i] = p
    adjusted: dict[int, float] = {}
    for of_family in raw.values():
        # One test needs no correction, and multipletests runs the garbage collector: half a second with many runs read.
        values = list(of_family.values())
        corrected = multipletests(values, method="holm")[1] if len(values) > 1 else values
        adjusted |= {i: float(q) for i, q in zip(of_family, corrected, strict=True)}
    out = []
    for i, (cells, e) in enumerate(zip(comparisons, found, strict=True)):
        if e is None:
            differences = within_seeds(cells, (1, -1))
            out.append(Comparison(float(np.mean(differences)), len(differences)))
        else:
            p = raw[families[i]][i]
            out.append(Comparison(e.value, e.seeds, e.interval(0.95)[1] - e.value, p, adjusted[i]))
    return out


@dataclass(frozen=True)
class ImageComparison:
    """Two runs evaluated on the same images, compared image by image."""

    n: int  # images
    accuracy_a: float  # percent
    accuracy_b: float
    only_a: int  # images that a gets right and b gets wrong
    only_b: int
    p: float  # McNemar's test, exact
    low: float  # 95 % bootstrap interval of accuracy_a − accuracy_b, points
    high: float

    @property
    def difference(self) -> float:
        return 100.0 * (self.only_a - self.only_b) / self.n


def compare_images(
    a: NDArray[np.bool_], b: NDArray[np.bool_], *, resamples: int = 10_000, seed: int = 0
) -> ImageComparison:
    """McNemar's exact test and a percentile bootstrap over images.

    Args:
        a: which images the first run gets right, in the order of the data set.
        b: the same of the second run.
    """
    assert a.shape == b.shape and a.dtype == b.dtype == np.bool_ and a.size > 0
    n, only_a, only_b = a.size, int((a & ~b).sum()), int((~a & b).sum())
    p = float(mcnemar([[int((a & b).sum()), only_a], [only_b, int((~a & ~b).sum())]], exact=True).pvalue)
    # n images drawn with replacement have counts (only_a, only_b, agree) of this multinomial: the distribution that
    # scipy.stats.bootstrap samples, without a pass over n · resamples images (5 · 10⁸ for ImageNet).
    shares = np.array([only_a, only_b, n - only_a - only_b]) / n
    draws = np.random.default_rng(seed).multinomial(n, shares, size=resamples)
    low, high = np.percentile(100.0 * (draws[:, 0] - draws[:, 1]) / n, [2.5, 97.5])
    return ImageComparison(
        n, float(100.0 * a.mean()), float(100.0 * b.mean()), only_a, only_b, p, float(low), float(high)
    )
