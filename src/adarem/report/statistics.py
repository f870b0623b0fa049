"""Numbers from numbers: seeds, intervals, paired tests, power. Knows nothing of runs or files.

Accuracies are in percent, so differences are in points. ``scipy`` and ``statsmodels`` do the mathematics.
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
    f"t(n−1) · s · √(1 + 1/n), since the paper's value is one run of unstated seed. The margin is {MARGIN:g} points. "
    "*reproduced*: d ± h lies within the margin; *better* / *worse*: d ± h does not contain 0; *within noise*: it "
    "contains 0 and h is at most the margin; *underpowered*: one seed, or h is above the margin; *pending*: a planned "
    "seed is not finished; *diverged*: a seed diverged."
)


@dataclass(frozen=True)
class Summary:
    """Seeds of one cell. ``sd`` (n − 1 in the denominator) and ``half_width`` (95 %, t) are None when n = 1."""

    n: int
    mean: float
    sd: float | None
    half_width: float | None

    def text(self, digits: int = 2) -> str:
        """``70.61 ± 0.12``: mean and sample standard deviation; never ± with one seed."""
        mean = f"{self.mean:.{digits}f}"
        return mean if self.sd is None else f"{mean} ± {self.sd:.{digits}f}"


def summarize(values: Sequence[float]) -> Summary:
    """Mean, sample standard deviation and the half-width of the mean's 95 % t interval. Needs one value or more."""
    x = np.asarray(values, dtype=float)
    assert x.size > 0 and np.isfinite(x).all()
    if x.size == 1:
        return Summary(1, float(x[0]), None, None)
    sd = float(x.std(ddof=1))
    return Summary(x.size, float(x.mean()), sd, float(stats.t.ppf(0.975, x.size - 1)) * sd / math.sqrt(x.size))


def pooled_deviation(groups: Sequence[Sequence[float]]) -> tuple[float, int] | None:
    """Pooled sample deviation over cells and its degrees of freedom; None when no cell has two seeds."""
    several = [np.asarray(g, dtype=float) for g in groups if len(g) >= 2]
    freedom = sum(len(g) - 1 for g in several)
    if freedom == 0:
        return None
    return math.sqrt(sum(float(((g - g.mean()) ** 2).sum()) for g in several) / freedom), freedom


def smallest_detectable(sd: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Difference of means that a two-sided t-test at ``alpha`` shows with ``power``, n seeds each; None if n < 2."""
    if n < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        effect = TTestIndPower().solve_power(effect_size=None, nobs1=n, alpha=alpha, power=power, ratio=1.0)
    return float(np.squeeze(effect)) * sd


def verdict(
    values: Sequence[float], paper: float, *, planned: int, diverged: int, lower_is_better: bool
) -> tuple[Verdict, float | None]:
    """The verdict of VERDICT_RULE and the half-width h that it rests on (None with fewer than two seeds)."""
    if diverged:
        return "diverged", None
    if len(values) < max(planned, 1):
        return "pending", None
    if len(values) < 2:
        return "underpowered", None
    s = summarize(values)
    h = float(stats.t.ppf(0.975, s.n - 1)) * s.sd * math.sqrt(1 + 1 / s.n)
    d = s.mean - paper
    if max(abs(d - h), abs(d + h)) <= MARGIN:
        return "reproduced", h
    if abs(d) > h:
        return ("better" if (d < 0) == lower_is_better else "worse"), h
    return ("within noise" if h <= MARGIN else "underpowered"), h


@dataclass(frozen=True)
class Comparison:
    """Welch's t-test of two cells; ``adjusted`` is Holm's p over the table's comparisons."""

    difference: float
    half_width: float  # at the confidence asked for, Welch–Satterthwaite
    p: float
    adjusted: float


def welch(pairs: Sequence[tuple[Sequence[float], Sequence[float]]], confidence: float = 0.95) -> list[Comparison]:
    """Welch's t for every pair (a, b), difference = mean(a) − mean(b), corrected by Holm over all of them.

    Every sample needs two seeds or more. Two samples that never vary give p = 1 if equal and 0 otherwise.
    """
    rows = []
    for a, b in pairs:
        assert len(a) >= 2 and len(b) >= 2
        difference = float(np.mean(a) - np.mean(b))
        if np.var(a) == 0 and np.var(b) == 0:
            rows.append((difference, 0.0, 1.0 if difference == 0 else 0.0))
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # "nearly identical": p is then what the numbers say
            test = stats.ttest_ind(a, b, equal_var=False)
        low, high = test.confidence_interval(confidence)
        rows.append((difference, float(high - low) / 2, float(test.pvalue)))
    if len(rows) < 2:  # nothing to correct; multipletests sweeps the whole heap, half a second with many runs
        return [Comparison(*r, r[2]) for r in rows]
    adjusted = multipletests([r[2] for r in rows], method="holm")[1]
    return [Comparison(*r, float(q)) for r, q in zip(rows, adjusted, strict=True)]


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
