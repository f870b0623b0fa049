"""Numbers from numbers: seeds, intervals, paired tests, power. Knows nothing of runs or files.

Accuracies are in percent, so differences are in points. ``scipy`` and ``statsmodels`` do the mathematics.

Seeds that all gave the same figure tell nothing of the noise, and not that it is 0: where nothing varies there is no
interval, no test and no power.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats
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
    "The first of these that fits is the verdict: *diverged*, *pending*, *underpowered* for want of differing seeds, "
    "*reproduced*, *better* or *worse* (whatever h is), *within noise*, *underpowered* for h."
)


@dataclass(frozen=True)
class Summary:
    """Seeds of one cell. ``sd`` (n − 1 in the denominator) and ``half_width`` (95 %, t) are None when n = 1;
    ``half_width`` also when the seeds did not differ."""

    n: int
    mean: float
    sd: float | None
    half_width: float | None

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


def pooled_deviation(groups: Sequence[Sequence[float]]) -> tuple[float, int] | None:
    """Pooled sample deviation over cells and its degrees of freedom; None when no cell has two seeds."""
    several = [g for g in groups if len(g) >= 2]
    freedom = sum(len(g) - 1 for g in several)
    if freedom == 0:
        return None
    return math.sqrt(sum((len(g) - 1) * variance(g) for g in several) / freedom), freedom


def smallest_detectable(sd: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Difference of means that a two-sided t-test at ``alpha`` shows with ``power``, n seeds each.

    None if n < 2 or if the seeds did not differ.
    """
    if n < 2 or sd == 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        effect = TTestIndPower().solve_power(effect_size=None, nobs1=n, alpha=alpha, power=power, ratio=1.0)
    return float(np.squeeze(effect)) * sd


def verdict(
    values: Sequence[float], paper: float, *, planned: int, diverged: int, lower_is_better: bool
) -> tuple[Verdict, float | None]:
    """The verdict of VERDICT_RULE and the half-width h that it rests on (None where the seeds give none)."""
    if diverged:
        return "diverged", None
    if len(values) < max(planned, 1):
        return "pending", None
    s = summarize(values)
    if not s.sd:
        return "underpowered", None
    h = float(stats.t.ppf(0.975, s.n - 1)) * s.sd * math.sqrt(1 + 1 / s.n)
    d = s.mean - paper
    if max(abs(d - h), abs(d + h)) <= MARGIN:
        return "reproduced", h
    if abs(d) > h:
        return ("better" if (d < 0) == lower_is_better else "worse"), h
    return ("within noise" if h <= MARGIN else "underpowered"), h


@dataclass(frozen=True)
class Estimate:
    """A weighted sum of means: its standard error by Welch, each group with its own variance, and the degrees of
    freedom by Satterthwaite."""

    value: float
    error: float
    freedom: float

    def interval(self, confidence: float) -> tuple[float, float]:
        h = float(stats.t.ppf(0.5 + confidence / 2, self.freedom)) * self.error
        return self.value - h, self.value + h

    def p_outside(self, low: float, high: float) -> float:
        """The larger of two one-sided p, against a true value of at most ``low`` and against one of at least ``high``.

        Below 0.05 where the 90 % interval lies between the two. Either may be infinite.
        """
        tails = stats.t.sf([(self.value - low) / self.error, (high - self.value) / self.error], self.freedom)
        return float(max(tails))


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

    Every x counts alike, so the slope is a fixed contrast of the means and its error is the seeds' alone. Weights of
    1/SE² from two or three seeds favour whatever varied little by chance, and then find slopes that are not there.
    """
    centred = np.asarray(x, dtype=float) - np.mean(x)
    groups, weights = [], []
    for of_x, w in zip(samples, centred / (centred**2).sum(), strict=True):
        groups += of_x
        weights += [float(w), -float(w)][: len(of_x)]
    return contrast(groups, weights)


@dataclass(frozen=True)
class Comparison:
    """Welch's t-test of two cells; all but the difference are None where neither's seeds differed."""

    difference: float
    half_width: float | None = None  # 95 %
    p: float | None = None
    adjusted: float | None = None  # Holm's p over the tests of the table

    @property
    def text(self) -> str:
        """``+0.60 ± 0.30 (95 %), p = 0.004, Holm 0.02``, or why there is no test."""
        difference = f"{self.difference:+.2f}".replace("-", "−")
        if self.p is None:
            return f"{difference}; the seeds did not differ, so there is no test"
        return f"{difference} ± {self.half_width:.2f} (95 %), p = {self.p:.2g}, Holm {self.adjusted:.2g}"


def welch(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> list[Comparison]:
    """Welch's t for every pair (a, b), difference = mean(a) − mean(b), each of two seeds or more.

    Holm's correction runs over the pairs that have a test.
    """
    found = [contrast(pair, (1, -1)) for pair in pairs]
    raw = [2 * float(stats.t.sf(abs(e.value) / e.error, e.freedom)) for e in found if e]
    # With fewer than two nothing is to correct; multipletests sweeps the whole heap, half a second with many runs.
    adjusted = iter(zip(raw, multipletests(raw, method="holm")[1] if len(raw) > 1 else raw, strict=True))
    out = []
    for (a, b), e in zip(pairs, found, strict=True):
        if e is None:
            out.append(Comparison(float(np.mean(a) - np.mean(b))))
            continue
        p, q = next(adjusted)
        out.append(Comparison(e.value, e.interval(0.95)[1] - e.value, p, float(q)))
    return out


@dataclass(frozen=True)
class Paired:
    """Two runs on the same images, image by image. ``only_a``: right in a and wrong in b."""

    n: int
    accuracy_a: float  # percent
    accuracy_b: float
    only_a: int
    only_b: int
    p: float  # McNemar, exact
    low: float  # 95 % bootstrap interval of accuracy_a − accuracy_b, points
    high: float

    @property
    def difference(self) -> float:
        return 100.0 * (self.only_a - self.only_b) / self.n


def paired(a: np.ndarray, b: np.ndarray, *, resamples: int = 10_000, seed: int = 0) -> Paired:
    """McNemar's exact test and a percentile bootstrap over images, for two boolean arrays of one entry an image.

    Resampling n images with replacement draws the counts (only_a, only_b, agree) from a multinomial, so the bootstrap
    needs no pass over the images.
    """
    assert a.shape == b.shape and a.dtype == b.dtype == bool and a.size > 0
    n, only_a, only_b = a.size, int((a & ~b).sum()), int((~a & b).sum())
    p = float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    shares = np.array([only_a, only_b, n - only_a - only_b]) / n
    draws = np.random.default_rng(seed).multinomial(n, shares, size=resamples)
    low, high = np.percentile(100.0 * (draws[:, 0] - draws[:, 1]) / n, [2.5, 97.5])
    return Paired(n, 100.0 * a.mean(), 100.0 * b.mean(), only_a, only_b, p, float(low), float(high))
