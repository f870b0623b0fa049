"""What k trials of a search would have found: exact over all subsets of the trials that there are.

The curve is that of Dodge et al. 2019 (Show Your Work: Improved Reporting of Experimental Results), who draw the k
trials *with* replacement out of the n seen, which is biased towards worse figures. Here they are drawn *without*, as
Tang et al. 2020 (Showing Your Work Doesn't Always Work) propose: with v(1) to v(n) from the worst to the best,
E[best of k] = sum over i of v(i) C(i - 1, k - 1) / C(n, k), and P(best of k is v(i) or worse) = C(i, k) / C(n, k).
Nothing is said of more than n trials.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

RULE = (
    "Best of k: the mean of the best figure over all sets of k of the n finished trials, and its quartiles (drawn "
    "without replacement: the curve of Dodge et al. 2019 with the unbiased estimator of Tang et al. 2020; theirs, with "
    "replacement, is biased towards worse figures); k ends at n. A diverged trial is worse than all others and has no "
    "figure, so there is no mean as long as all k may have diverged. It counts trials, not hours, and holds for the "
    "ranges that were searched."
)
HALVED = " With halving it is of the figures after the first rung's epochs, to which every trial comes."


@dataclass(frozen=True)
class BestOfK:
    """The best of k trials, in the metric's unit; None where it is that of a diverged trial, which has no figure."""

    k: int
    mean: float | None  # None where all k may have diverged
    worse_quartile: float | None  # a quarter of all sets of k trials find nothing better
    median: float | None
    better_quartile: float | None  # a quarter of all sets of k trials find this or better
    all_diverged: float  # share of the sets of k trials of which none has a figure


def best_of_k(figures: Sequence[float], diverged: int = 0, *, lower_is_better: bool) -> list[BestOfK]:
    """The best of k = 1 to n trials.

    Args:
        figures: finite, one for each trial that finished without diverging.
        diverged: further trials, which are worse than all of these.
        lower_is_better: of the metric.
    """
    from_worst: list[float | None] = [None] * diverged
    from_worst += sorted(figures, reverse=lower_is_better)
    return [_best_of(from_worst, diverged, k) for k in range(1, len(from_worst) + 1)]


def _best_of(from_worst: Sequence[float | None], diverged: int, k: int) -> BestOfK:
    n = len(from_worst)
    sets = comb(n, k)
    mean = None
    if k > diverged:
        mean = sum(v * (comb(i, k - 1) / sets) for i, v in enumerate(from_worst) if v is not None)

    def quartile(quarters: int) -> float | None:
        # The first value that this share of the sets does not exceed; in whole numbers, so that no rounding moves it.
        return next(v for i, v in enumerate(from_worst, 1) if 4 * comb(i, k) >= quarters * sets)

    return BestOfK(k, mean, quartile(1), quartile(2), quartile(3), comb(diverged, k) / sets)
