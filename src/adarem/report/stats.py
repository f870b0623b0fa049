"""Statistics of plain numbers: summaries of seeds, intervals, tests, power. Imports nothing of runs or files.

Accuracies are in percent, so differences are in points. ``scipy`` and ``statsmodels`` do the mathematics.

Seeds that all gave the same value do not show that the noise is 0: where nothing varies there is no interval, no test
and no power.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower

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
    return float(np.var(values, ddof=1)) if max(values) > min(values) else 0.0


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


def smallest_detectable(sd: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Difference of means that a two-sided t-test at ``alpha`` detects with ``power``, n seeds each.

    None if n < 2 or if the seeds do not differ.
    """
    if n < 2 or sd == 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the solver, on its way to a solution
        effect = TTestIndPower().solve_power(effect_size=None, nobs1=n, alpha=alpha, power=power, ratio=1.0)
    return float(np.squeeze(effect)) * sd


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
    """A weighted sum of means."""

    value: float
    standard_error: float  # Welch's: each group has its own variance
    degrees_of_freedom: float  # Satterthwaite's

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


def contrast(groups: Sequence[Sequence[float]], weights: Sequence[float]) -> Estimate | None:
    """The sum of ``weights`` times the groups' means, each of two seeds or more; None where no group varies.

    Weights 1 and −1 make it Welch's t-test.
    """
    assert all(len(g) >= 2 for g in groups)
    shares = [w**2 * variance(g) / len(g) for g, w in zip(groups, weights, strict=True)]
    total = sum(shares)
    if total == 0:
        return None
    freedom = total**2 / sum(s**2 / (len(g) - 1) for g, s in zip(groups, shares, strict=True))
    value = sum(w * float(np.mean(g)) for g, w in zip(groups, weights, strict=True))
    return Estimate(value, math.sqrt(total), freedom)


def slope(x: Sequence[float], samples: Sequence[Sequence[Sequence[float]]]) -> Estimate | None:
    """Slope of the least-squares line through each x's mean, or difference of means where it has two samples.

    Every x counts alike, so the slope is a fixed contrast of the means and its error is that of the seeds. Weights of
    1/SE² from two or three seeds favour whatever varies little by chance, and then find slopes that do not exist.
    """
    centred = np.asarray(x, dtype=float) - np.mean(x)
    groups: list[Sequence[float]] = []
    weights: list[float] = []
    for of_x, w in zip(samples, centred / (centred**2).sum(), strict=True):
        groups += of_x
        weights += [float(w), -float(w)][: len(of_x)]
    return contrast(groups, weights)


@dataclass(frozen=True)
class Comparison:
    """Welch's t-test of two cells; all but the difference are None where the seeds of neither cell differ."""

    difference: float
    half_width: float | None = None  # 95 %
    p: float | None = None
    adjusted: float | None = None  # p by Holm's correction over the tests of the table

    @property
    def text(self) -> str:
        """``+0.60 ± 0.30 (95 %), p = 0.004, Holm 0.02``, or why there is no test."""
        difference = f"{self.difference:+.2f}".replace("-", "−")
        if self.p is None:
            return f"{difference}; the seeds did not differ, so there is no test"
        return f"{difference} ± {self.half_width:.2f} (95 %), p = {self.p:.2g}, Holm {self.adjusted:.2g}"


class TwoSamples(NamedTuple):
    """The values of two cells, two seeds or more each."""

    a: Sequence[float]
    b: Sequence[float]


def welch(comparisons: Sequence[TwoSamples]) -> list[Comparison]:
    """Welch's t-test of every two samples, difference = mean(a) − mean(b).

    Holm's correction runs over those that have a test.
    """
    found = [contrast(samples, (1, -1)) for samples in comparisons]
    raw = [2 * float(stats.t.sf(abs(e.value) / e.standard_error, e.degrees_of_freedom)) for e in found if e]
    # One test needs no correction, and multipletests runs the garbage collector: half a second with many runs read.
    adjusted = iter(zip(raw, multipletests(raw, method="holm")[1] if len(raw) > 1 else raw, strict=True))
    out = []
    for (a, b), e in zip(comparisons, found, strict=True):
        if e is None:
            out.append(Comparison(float(np.mean(a) - np.mean(b))))
            continue
        p, q = next(adjusted)
        out.append(Comparison(e.value, e.interval(0.95)[1] - e.value, p, float(q)))
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
