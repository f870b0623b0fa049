"""Against values worked by hand or by an enumeration that shares no code with the module."""

import itertools
import math

import numpy as np
import pytest

from adarem.report import statistics as st


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
        ([], 70.67, "pending"),
        ([70.67, 70.68], 70.67, "pending"),  # the third seed is not there
    ],
)
def test_verdicts(values, paper, expected):
    planned = 1 if len(values) == 1 else 3
    assert st.verdict(values, paper, planned=planned, diverged=0, lower_is_better=False)[0] == expected


def test_verdict_turns_with_the_metric_and_with_divergence():
    values = [68.0, 68.01, 68.02]
    assert st.verdict(values, 69.13, planned=3, diverged=0, lower_is_better=True)[0] == "better"
    assert st.verdict(values, 69.13, planned=3, diverged=0, lower_is_better=False)[0] == "worse"
    assert st.verdict(values, 69.13, planned=3, diverged=1, lower_is_better=True)[0] == "diverged"


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
    assert st.welch([([1.0, 1.0], [1.0, 1.0])])[0].p == 1.0


def test_mcnemar_by_enumeration():
    """9 images, 7 of them disagree: 6 for a. p is twice the chance of 6 or more heads in 7."""
    a = np.array([1, 1, 1, 1, 1, 1, 0, 1, 0], dtype=bool)
    b = np.array([0, 0, 0, 0, 0, 0, 1, 1, 0], dtype=bool)
    p = st.paired(a, b)
    heads = [sum(c) for c in itertools.product([0, 1], repeat=7)]
    assert (p.only_a, p.only_b, p.n) == (6, 1, 9)
    assert p.p == pytest.approx(2 * sum(h >= 6 for h in heads) / len(heads))
    assert p.difference == pytest.approx(100 * 5 / 9)


def test_bootstrap_matches_resampling_the_images():
    rng = np.random.default_rng(3)
    a, b = rng.random(2000) < 0.72, rng.random(2000) < 0.70
    p = st.paired(a, b)
    d = a.astype(int) - b.astype(int)
    slow = [100 * d[rng.integers(0, 2000, 2000)].mean() for _ in range(10_000)]
    assert (p.low, p.high) == pytest.approx(tuple(np.percentile(slow, [2.5, 97.5])), abs=0.15)
    same = st.paired(a, a)
    assert (same.p, same.low, same.high) == (1.0, 0.0, 0.0)
