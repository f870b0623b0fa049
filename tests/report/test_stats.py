"""Against values worked by hand or by an enumeration that shares no code with the module."""

import itertools
import math

import numpy as np
import pytest
from scipy import special, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from adarem.report import stats as st


def test_seeds_by_hand():
    s = st.summarize([70.5, 70.6, 70.7])
    assert (s.n, s.mean, s.sd) == (3, pytest.approx(70.6), pytest.approx(0.1))
    # t(0.975, 2) = 4.302653 from a printed table
    assert s.half_width == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)
    assert s.text() == "70.60 ± 0.10"


def test_one_seed_has_no_plus_minus():
    s = st.summarize([70.5])
    assert (s.sd, s.half_width) == (None, None)
    assert s.text() == "70.50"


def test_seeds_that_do_not_differ_have_no_interval():
    """Three times 310 of 360: the mean is rounded to something else, and the deviation is 0 all the same."""
    same = [100 * 310 / 360] * 3
    assert np.var(same) > 0
    s = st.summarize(same)
    assert (s.n, s.sd, s.half_width) == (3, 0.0, None)
    assert st.pooled_deviation([same, [69.3] * 2]) == (0.0, 3)
    assert st.contrast([by_seed(same), by_seed([69.3] * 3)], (1, -1)) is None
    assert st.smallest_detectable(0.0, 3) is None


def by_seed(values):
    return dict(enumerate(values))


def test_pooled_deviation_leaves_single_seeds_out():
    # Sums of squares 0.02 and 0.08 over 2 + 2 degrees of freedom.
    sd, freedom = st.pooled_deviation([[70.5, 70.6, 70.7], [71.0, 71.2, 71.4], [50.0]])
    assert (sd, freedom) == (pytest.approx(math.sqrt(0.1 / 4)), 4)
    assert st.pooled_deviation([[1.0], [2.0]]) is None


@pytest.mark.parametrize(("seeds", "tests"), [(2, 1), (2, 5), (3, 1), (3, 5), (5, 5), (5, 10)])
def test_what_is_detectable_is_found_with_80_percent(seeds, tests):
    """By simulation of the paired t at 5 % / tests, with numpy alone; its bound from scipy's t."""
    smallest = st.smallest_detectable(0.3, seeds, tests)
    d = np.random.default_rng(1).normal(smallest, 0.3, (200_000, seeds))
    t = d.mean(axis=1) / (d.std(axis=1, ddof=1) / math.sqrt(seeds))
    assert np.mean(np.abs(t) > stats.t.ppf(1 - 0.025 / tests, seeds - 1)) == pytest.approx(0.8, abs=0.005)
    assert st.smallest_detectable(0.3, 1, tests) is None


def test_one_test_of_many_seeds_agrees_with_statsmodels():
    effect = TTestPower().solve_power(nobs=6, alpha=0.05, power=0.8)
    assert st.smallest_detectable(0.1, 6) == pytest.approx(0.1 * effect, rel=1e-4)


@pytest.mark.parametrize(
    ("values", "paper", "expected"),
    [
        ([70.66, 70.67, 70.68], 70.67, "reproduced"),  # h = 4.30 · 0.01 · 1.155 = 0.05
        ([71.66, 71.67, 71.68], 70.67, "better"),
        ([69.66, 69.67, 69.68], 70.67, "worse"),
        ([70.85, 70.95, 71.05], 70.67, "within noise"),  # d = 0.28, h = 0.4968 ≤ 0.5
        ([70.0, 70.6, 71.2], 70.67, "underpowered"),  # h = 2.98
        ([70.67], 70.67, "underpowered"),
        ([70.1] * 3, 70.1, "underpowered"),  # no noise seen is not none there
        ([71.1] * 3, 70.1, "underpowered"),
        ([], 70.67, "pending"),
        ([70.67, 70.68], 70.67, "pending"),  # the third seed is not there
    ],
)
def test_verdicts(values, paper, expected):
    planned = 1 if len(values) == 1 else 3
    assert st.verdict(values, paper, planned=planned, diverged=0, lower_is_better=False) == expected


def test_verdict_turns_with_the_metric_and_with_divergence():
    values = [68.0, 68.01, 68.02]
    assert st.verdict(values, 69.13, planned=3, diverged=0, lower_is_better=True) == "better"
    assert st.verdict(values, 69.13, planned=3, diverged=0, lower_is_better=False) == "worse"
    assert st.verdict(values, 69.13, planned=3, diverged=1, lower_is_better=True) == "diverged"


def _holm_by_hand(raw):
    order = np.argsort(raw)  # Holm: the k-th smallest times (m − k), never falling
    expected, running = [0.0] * len(raw), 0.0
    for k, i in enumerate(order):
        running = max(running, min(1.0, raw[i] * (len(raw) - k)))
        expected[i] = running
    return expected


def _cells(*samples):
    return [st.TwoCells(by_seed(a), by_seed(b)) for a, b in samples]


SAMPLES = [([70.5, 70.6, 70.7], [71.0, 71.2, 71.4]), ([70.5, 70.6, 70.7], [70.6, 70.9, 70.7]), ([1, 2.0], [9, 9.5])]


def test_the_paired_t_and_holm_are_scipys_and_statsmodels():
    found = st.paired_tests(_cells(*SAMPLES), ["top1"] * 3)
    raw = [stats.ttest_rel(a, b).pvalue for a, b in SAMPLES]
    assert [f.p for f in found] == pytest.approx(raw)
    assert [f.adjusted for f in found] == pytest.approx(_holm_by_hand(raw))
    assert [f.adjusted for f in found] == pytest.approx(multipletests(raw, method="holm")[1])
    for f, (a, b) in zip(found, SAMPLES, strict=True):
        low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
        assert (f.difference, f.half_width, f.n) == pytest.approx(((low + high) / 2, (high - low) / 2, len(a)))
    assert st.paired_tests([], []) == []


def test_holm_runs_over_each_metric_alone():
    """Six of top-5 do not make one of top-1 harder to show."""
    alone = st.paired_tests(_cells(SAMPLES[0]), ["top1"])
    together = st.paired_tests(_cells(SAMPLES[0], *[SAMPLES[1]] * 6), ["top1", *["top5"] * 6])
    assert together[0] == alone[0] and together[1].adjusted == pytest.approx(min(1.0, 6 * together[1].p))


def test_holm_leaves_out_what_has_no_test():
    varied = ([70.5, 70.6, 70.7], [71.0, 71.2, 71.4])
    alone = st.paired_tests(_cells(varied), ["top1"])[0]
    three = st.paired_tests(_cells(([70.1] * 3, [70.3] * 3), varied, ([1.0, 1.0], [1.0, 1.0])), ["top1"] * 3)
    assert three[1] == alone and alone.adjusted == alone.p
    assert [(c.half_width, c.p, c.adjusted) for c in (three[0], three[2])] == [(None, None, None)] * 2
    assert three[0].text == "−0.20; the same with every seed, so there is no test"
    assert alone.text == "−0.60 ± 0.25 (95 %, 3 seeds), p = 0.0091, Holm 0.0091"


def test_a_difference_that_is_the_same_with_every_seed_has_no_test():
    """0.3 − 0.1 and 70.3 − 70.1 are rounded apart: without a look at that, p would be 1e-30."""
    a, b = [70.1, 70.4, 71.3], [70.0, 70.3, 71.2]
    assert len({x - y for x, y in zip(a, b, strict=True)}) > 1
    (found,) = st.paired_tests(_cells((a, b)), ["top1"])
    assert (found.p, found.difference) == (None, pytest.approx(0.1))


def test_only_shared_seeds_are_compared():
    a, b = {0: 71.0, 1: 71.3, 2: 71.1, 7: 99.0}, {2: 70.8, 0: 70.5, 1: 70.6, 3: 1.0}
    (found,) = st.paired_tests([st.TwoCells(a, b)], ["top1"])
    assert found.n == 3 and found.p == pytest.approx(stats.ttest_rel([71.0, 71.3, 71.1], [70.5, 70.6, 70.8]).pvalue)


def test_seeds_in_any_order_and_under_any_number_give_the_same_figure():
    rng = np.random.default_rng(7)
    for _ in range(50):
        n = int(rng.integers(2, 6))
        a, b = rng.normal(70, 1, (2, n)).tolist()
        order, names = rng.permutation(n), rng.permutation(1000)[:n].tolist()
        shuffled = st.TwoCells({names[i]: a[i] for i in order}, {names[i]: b[i] for i in reversed(range(n))})
        assert st.paired_tests([shuffled], ["x"]) == st.paired_tests(_cells((a, b)), ["x"])


def test_a_contrast_of_two_is_the_paired_test():
    a, b = [70.5, 70.6, 70.7, 70.9], [71.0, 71.2, 71.4, 71.1]
    e, test = st.contrast([by_seed(a), by_seed(b)], (1, -1)), stats.ttest_rel(a, b)
    assert (e.value / e.standard_error, e.degrees_of_freedom) == pytest.approx((test.statistic, test.df))
    for confidence in (0.9, 0.99):
        assert e.interval(confidence) == pytest.approx(tuple(test.confidence_interval(confidence)))
    above = stats.ttest_rel(np.array(a) + 1.0, b, alternative="greater")
    assert e.p_outside(-1.0, math.inf) == pytest.approx(above.pvalue)
    below = stats.ttest_rel(np.array(a) + 0.1, b, alternative="less")
    assert e.p_outside(-math.inf, -0.1) == pytest.approx(below.pvalue)
    assert e.p_outside(-1.0, -0.1) == pytest.approx(max(above.pvalue, below.pvalue))
    low, high = e.interval(0.9)
    assert e.p_outside(low, math.inf) == pytest.approx(0.05) == e.p_outside(-math.inf, high)
    assert st.contrast([by_seed([1.0, 1.0]), by_seed([2.0, 2.0])], (1, -1)) is None
    assert st.contrast([{0: 1.0, 1: 2.0}, {2: 1.0, 3: 3.0}], (1, -1)) is None


def test_a_contrast_of_one_is_students_test():
    e, test = st.contrast([by_seed([70.5, 70.6, 70.9])], (1,)), stats.ttest_1samp([70.5, 70.6, 70.9], 70.0)
    assert (e.value, e.degrees_of_freedom) == pytest.approx((70.0 + 2 / 3, 2))
    assert e.interval(0.9) == pytest.approx(tuple(test.confidence_interval(0.9)))


def test_the_slope_is_that_of_a_line_through_each_seed():
    rng = np.random.default_rng(2)
    x, y = np.log10([25.6, 11.7, 3.5, 2.3, 2.0, 1.4]), rng.normal(70, 1, (6, 3))
    e = st.contrast([by_seed(of_network) for of_network in y], st.slope_weights(x))
    slopes = [np.polyfit(x, y[:, seed], 1)[0] for seed in range(3)]
    assert e.value == pytest.approx(np.mean(slopes))
    assert e.interval(0.9) == pytest.approx(stats.ttest_1samp(slopes, 0).confidence_interval(0.9))


def test_slopes_that_are_not_there_are_found_in_at_most_5_percent():
    """Six networks, two seeds, no gain anywhere, and whatever seeds share."""
    rng = np.random.default_rng(5)
    weights = st.slope_weights(np.log10([25_557_032, 11_689_512, 3_504_872, 2_278_604, 1_968_680, 1_366_792]))
    noise = rng.normal(0.0, 0.15, (2000, 6, 2)) + rng.normal(0.0, 0.15, (2000, 1, 2)) * np.arange(6)[:, None]
    found = [st.contrast([by_seed(row) for row in table], weights).interval(0.9)[1] < 0 for table in noise.tolist()]
    assert 0.035 < np.mean(found) < 0.065


def test_mcnemar_by_enumeration():
    """9 images, 7 of them disagree: 6 for a. p is twice the chance of 6 or more heads in 7."""
    a = np.array([1, 1, 1, 1, 1, 1, 0, 1, 0], dtype=bool)
    b = np.array([0, 0, 0, 0, 0, 0, 1, 1, 0], dtype=bool)
    p = st.compare_images(a, b)
    heads = [sum(c) for c in itertools.product([0, 1], repeat=7)]
    assert (p.only_a, p.only_b, p.n) == (6, 1, 9)
    assert p.p == pytest.approx(2 * sum(h >= 6 for h in heads) / len(heads))
    assert p.difference == pytest.approx(100 * 5 / 9)


def test_the_bootstrap_is_scipys_within_its_own_error():
    rng = np.random.default_rng(3)
    a, b = rng.random(2000) < 0.72, rng.random(2000) < 0.70
    p = st.compare_images(a, b)
    points = 100.0 * (a.astype(float) - b.astype(float))
    scipys = stats.bootstrap((points,), np.mean, n_resamples=10_000, batch=500, method="percentile", random_state=rng)
    # Standard error of the 2.5 % point of 10,000 resamples: √(0.025 · 0.975 / 10,000) / φ(1.96) = 0.027 deviations.
    tolerance = 4 * math.sqrt(2) * 0.027 * scipys.standard_error
    assert (p.low, p.high) == pytest.approx(tuple(scipys.confidence_interval), abs=tolerance)
    same = st.compare_images(a, a)
    assert (same.p, same.low, same.high) == (1.0, 0.0, 0.0)


def test_the_simulation_of_tests_uses_the_tests_that_it_names():
    """Welch and the paired t are scipy's, Holm is statsmodels', and a seed-blocked table of two cells is a paired t."""
    from benchmarks import seed_tests as sim

    rng = np.random.default_rng(4)
    s = sim.Scenario("one network, 5 comparisons", 3, "from 1 to 4", 0.6)
    cells = sim.simulate(s, np.zeros(5), 20, rng)
    p = sim.paired(cells)
    assert sim.welch(cells) == pytest.approx(stats.ttest_ind(cells.a, cells.b, axis=-1, equal_var=False).pvalue)
    assert p == pytest.approx(stats.ttest_rel(cells.a, cells.b, axis=-1).pvalue)
    assert sim.holm(p) == pytest.approx(np.array([multipletests(row, method="holm")[1] for row in p]))
    two = sim.Cells(cells.a[:, :1], cells.b[:, :1], s.layout)
    assert sim.blocked(two) == pytest.approx(sim.paired(two))
    y = np.array([0.02, 0.3, 1.0, 4.0, 50.0])
    assert special.polygamma(1, sim.inverse_trigamma(y)) == pytest.approx(y, rel=1e-6)


def test_the_test_in_use_is_the_one_that_the_simulation_takes():
    """A few tables of the committed run: the paired t keeps its level where the others do not."""
    from benchmarks import seed_tests as sim

    s = sim.Scenario("six networks, 6 comparisons", 3, "one other 4 times", 0.6)
    error = sim.family_wise_error(s, 4000, np.random.default_rng(0))
    assert error["paired t"] < 0.062 and min(error["seed-blocked"], error["moderated paired t"]) > 0.1
