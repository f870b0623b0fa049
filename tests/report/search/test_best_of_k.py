"""Best of k against every set of k trials, counted out."""

import itertools
import math
import random
import statistics

import pytest

from adarem.report.search.best_of_k import best_of_k

SOME = random.Random(0)
CASES = [
    ([1.0], 0),
    ([70.0, 70.0, 70.0], 0),
    ([70.0, 60.0, 80.0, 80.0, 10.0], 0),
    ([70.0, 60.0, 80.0, 80.0], 3),
    ([50.0], 5),
    ([SOME.choice((1.5, 2.5, SOME.uniform(0, 100))) for _ in range(9)], 2),
    ([SOME.uniform(20, 400) for _ in range(8)], 0),
]


def counted(figures: list[float], diverged: int, k: int, lower: bool) -> list[float]:
    """The best of each set of k trials, from the worst to the best; infinite where all of them diverged."""
    worst = math.inf if lower else -math.inf
    pick = min if lower else max
    found = [pick(chosen) for chosen in itertools.combinations([*figures, *[worst] * diverged], k)]
    return sorted(found, reverse=lower)


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize(("figures", "diverged"), CASES)
def test_it_is_what_all_sets_of_k_trials_find(figures: list[float], diverged: int, lower: bool) -> None:
    curve = best_of_k(figures, diverged, lower_is_better=lower)
    assert [b.k for b in curve] == list(range(1, len(figures) + diverged + 1))  # and nothing beyond the trials seen
    for b in curve:
        best = counted(figures, diverged, b.k, lower)
        if any(map(math.isinf, best)):
            assert b.mean is None
        else:
            assert b.mean == pytest.approx(statistics.fmean(best), rel=1e-12)
        assert b.all_diverged == pytest.approx(sum(map(math.isinf, best)) / len(best))
        for share, value in ((0.25, b.worse_quartile), (0.5, b.median), (0.75, b.better_quartile)):
            quantile = best[math.ceil(share * len(best)) - 1]
            assert value == (None if math.isinf(quantile) else quantile)


def test_more_trials_never_find_less() -> None:
    for lower in (False, True):
        means = [b.mean for b in best_of_k([SOME.gauss(50, 20) for _ in range(40)], lower_is_better=lower)]
        assert means == sorted(means, reverse=lower)


def test_no_trial_and_only_diverged_ones() -> None:
    assert best_of_k([], lower_is_better=False) == []
    assert [(b.mean, b.median, b.all_diverged) for b in best_of_k([], 2, lower_is_better=False)] == [
        (None, None, 1)
    ] * 2
