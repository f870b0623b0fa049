"""Against values worked by hand or by an enumeration that shares no code with the module."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

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
    assert st.contrast([same, [69.3] * 2], (1, -1)) is None
    assert st.smallest_detectable(0.0, 3) is None


def test_pooled_deviation_leaves_single_seeds_out():
    # Sums of squares 0.02 and 0.08 over 2 + 2 degrees of freedom.
    sd, freedom = st.pooled_deviation([[70.5, 70.6, 70.7], [71.0, 71.2, 71.4], [50.0]])
    assert (sd, freedom) == (pytest.approx(math.sqrt(0.1 / 4)), 4)
    assert st.pooled_deviation([[1.0], [2.0]]) is None


@pytest.mark.parametrize(("seeds", "points"), [(17, 0.1), (6, 0.2), (4, 0.3)])
def test_power_of_the_known_seed_noise(seeds, points):
    """Deviation 0.1: this many seeds see this difference, and one fewer do not."""
    assert st.smallest_detectable(0.1, seeds) <= points < st.smallest_detectable(0.1, seeds - 1)
    assert st.smallest_detectable(0.1, 1) is None


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


def _welch_by_hand(a, b):
    va, vb = np.var(a, ddof=1) / len(a), np.var(b, ddof=1) / len(b)
    t = (np.mean(a) - np.mean(b)) / math.sqrt(va + vb)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    # Two-sided p by numeric integration of Student's density.
    x = np.linspace(abs(t), 2000, 4_000_001)
    c = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    return 2 * np.trapezoid(c * (1 + x**2 / freedom) ** (-(freedom + 1) / 2), x)


def test_welch_and_holm():
    samples = [([70.5, 70.6, 70.7], [71.0, 71.2, 71.4]), ([70.5, 70.6, 70.7], [70.6, 70.9, 70.7]), ([1, 2.0], [9, 9.5])]
    found = st.welch(samples)
    raw = [_welch_by_hand(*s) for s in samples]
    assert [f.p for f in found] == pytest.approx(raw, rel=1e-3)
    order = np.argsort(raw)  # Holm: the k-th smallest times (m − k), never falling
    expected, running = [0.0] * 3, 0.0
    for k, i in enumerate(order):
        running = max(running, min(1.0, raw[i] * (3 - k)))
        expected[i] = running
    assert [f.adjusted for f in found] == pytest.approx(expected, rel=1e-3)
    assert st.welch([]) == []


def test_holm_leaves_out_what_has_no_test():
    varied = ([70.5, 70.6, 70.7], [71.0, 71.2, 71.4])
    alone, three = st.welch([varied])[0], st.welch([([70.1] * 3, [70.3] * 3), varied, ([1.0, 1.0], [1.0, 1.0])])
    assert three[1] == alone and alone.adjusted == alone.p
    assert [(c.half_width, c.p, c.adjusted) for c in (three[0], three[2])] == [(None, None, None)] * 2
    assert three[0].text == "−0.20; the seeds did not differ, so there is no test"
    assert alone.text == "−0.60 ± 0.42 (95 %), p = 0.02, Holm 0.02"
    one_side = st.welch([([70.5, 70.6, 70.7], [71.0] * 3)])[0]  # then the other's noise, with its n − 1
    assert one_side.half_width == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)


def test_a_contrast_of_two_is_welchs_test():
    a, b = [70.5, 70.6, 70.7, 70.9], [71.0, 71.2, 71.4]
    e, test = st.contrast([a, b], (1, -1)), stats.ttest_ind(a, b, equal_var=False)
    assert (e.value / e.standard_error, e.degrees_of_freedom) == pytest.approx((test.statistic, test.df))
    for confidence in (0.9, 0.99):
        assert e.interval(confidence) == pytest.approx(tuple(test.confidence_interval(confidence)))
    above = stats.ttest_ind(np.array(a) + 1.0, b, equal_var=False, alternative="greater")
    assert e.p_outside(-1.0, math.inf) == pytest.approx(above.pvalue)
    below = stats.ttest_ind(np.array(a) + 0.1, b, equal_var=False, alternative="less")
    assert e.p_outside(-math.inf, -0.1) == pytest.approx(below.pvalue)
    assert e.p_outside(-1.0, -0.1) == pytest.approx(max(above.pvalue, below.pvalue))
    low, high = e.interval(0.9)
    assert e.p_outside(low, math.inf) == pytest.approx(0.05) == e.p_outside(-math.inf, high)
    assert st.contrast([[1.0, 1.0], [2.0, 2.0]], (1, -1)) is None


def test_a_contrast_of_one_is_students_test():
    e, test = st.contrast([[70.5, 70.6, 70.9]], (1,)), stats.ttest_1samp([70.5, 70.6, 70.9], 70.0)
    assert (e.value, e.degrees_of_freedom) == pytest.approx((70.0 + 2 / 3, 2))
    assert e.interval(0.9) == pytest.approx(tuple(test.confidence_interval(0.9)))


def test_slope_by_hand():
    """Weights −1/2, 0, 1/2 at x = 0, 1, 2: four samples of variance 0.02 count, each 0.02 / n / 4 with n − 1."""
    samples = [([1.1, 1.3], [0.9, 1.1]), ([5.0, 9.0], [1.0, 4.0]), ([2.1, 2.3], [0.1, 0.3])]
    e = st.slope([0, 1, 2], samples)
    assert (e.value, e.standard_error, e.degrees_of_freedom) == pytest.approx((0.9, 0.1, 4))
    alone = st.slope([0, 1, 2], [of[:1] for of in samples])
    assert (alone.value, alone.standard_error, alone.degrees_of_freedom) == pytest.approx((0.5, math.sqrt(0.005), 2))


def test_slopes_that_are_not_there_are_found_in_at_most_5_percent():
    """Six networks, two seeds a side, no gain anywhere. With weights of 1/SE² it is 12 %."""
    rng = np.random.default_rng(5)
    x = np.log10([25_557_032, 11_689_512, 3_504_872, 2_278_604, 1_968_680, 1_366_792])
    found = [st.slope(x, rng.normal(70.0, 0.15, (6, 2, 2)).tolist()).interval(0.9)[1] < 0 for _ in range(2000)]
    assert 0.02 < np.mean(found) < 0.06


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
