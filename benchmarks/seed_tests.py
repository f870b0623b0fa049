"""Which test of two optimizers finds most among those that hold their error rate: simulated tables of a few seeds.

    python -m benchmarks.seed_tests [--tables 20000] [--seed 0] [--out benchmarks/results]

Runs of one seed share order, augmentation and initial weights. A figure is its cell's mean plus normal noise, of which
a share, the correlation, is common to all optimizers of that seed. Two layouts: one network with one optimizer against
five others (Table 2), and six networks with one optimizer against one other (Table 1). Holm's correction runs over the
comparisons of the table. *Family-wise error*: tables where at least one true null falls, with no difference anywhere
and with half of the comparisons far apart, the larger of the two. *Power*: comparisons found, of those that differ, all
by the same amount. All figures are in deviations of a cell, 1 with equal spread.
"""

import argparse
import datetime
import itertools
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from adarem.run.machine import cpu_name

Floats = NDArray[np.float64]
Layout = Literal["one network, 5 comparisons", "six networks, 6 comparisons"]

ALPHA, MAX_ERROR = 0.05, 0.06
SEEDS, CORRELATIONS = (2, 3, 5), (0.0, 0.6)
EFFECTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # differences whose power is averaged
FAR = 1000.0  # a difference that every test should find
COMPARISONS: Mapping[Layout, int] = {"one network, 5 comparisons": 5, "six networks, 6 comparisons": 6}
# The deviation of the optimizer that is compared, then those of the others; of each network times the second row.
SPREADS: Mapping[str, tuple[Floats, Floats]] = {
    "equal": (np.ones(6), np.ones(6)),
    "one other 4 times": (np.array([1.0, 4, 1, 1, 1, 1]), np.array([1.0, 4, 1, 1, 1, 1])),
    "the compared 4 times": (np.array([4.0, 1, 1, 1, 1, 1]), np.array([1.0, 1, 1, 1, 1, 1])),
    "from 1 to 4": (np.array([1.0, 1, 1.5, 2, 3, 4]), np.array([1.0, 1, 1.5, 2, 3, 4])),
}


class Scenario(NamedTuple):
    layout: Layout
    seeds: int
    spread: str
    correlation: float


class Cells(NamedTuple):
    """Figures of the two sides of each comparison, of shape (tables, comparisons, seeds)."""

    a: Floats
    b: Floats
    layout: Layout


def simulate(s: Scenario, difference: Floats, tables: int, rng: np.random.Generator) -> Cells:
    """``difference``: of each comparison."""
    of_optimizer, of_network = SPREADS[s.spread]
    m = COMPARISONS[s.layout]
    own, common = np.sqrt(1 - s.correlation), np.sqrt(s.correlation)
    if s.layout == "one network, 5 comparisons":
        noise = own * rng.standard_normal((tables, 6, s.seeds)) + common * rng.standard_normal((tables, 1, s.seeds))
        cells = noise * of_optimizer[:, None]
        return Cells(np.broadcast_to(cells[:, :1], (tables, m, s.seeds)) + difference[:, None], cells[:, 1:], s.layout)
    shared = common * rng.standard_normal((tables, m, s.seeds))
    a, b = (own * rng.standard_normal((tables, m, s.seeds)) + shared for _ in range(2))
    return Cells(of_network[:, None] * of_optimizer[0] * a + difference[:, None], of_network[:, None] * b, s.layout)


def two_sided(t: Floats, freedom: Floats | float) -> Floats:
    return 2 * special.stdtr(freedom, -np.abs(t))


def welch(c: Cells) -> Floats:
    n = c.a.shape[-1]
    va, vb = c.a.var(axis=-1, ddof=1) / n, c.b.var(axis=-1, ddof=1) / n
    freedom = (va + vb) ** 2 / ((va**2 + vb**2) / (n - 1))
    return two_sided((c.a.mean(axis=-1) - c.b.mean(axis=-1)) / np.sqrt(va + vb), freedom)


def paired(c: Cells) -> Floats:
    d = c.a - c.b
    n = d.shape[-1]
    return two_sided(d.mean(axis=-1) / (d.std(axis=-1, ddof=1) / np.sqrt(n)), n - 1)


def blocked(c: Cells) -> Floats:
    """Optimizer and seed as the two ways of a table; the residual is pooled over all of it."""
    n = c.a.shape[-1]
    if c.layout == "one network, 5 comparisons":
        every = np.concatenate([c.a[:, :1], c.b], axis=1)
        every = every - every.mean(axis=-1, keepdims=True)
        residual = every - every.mean(axis=1, keepdims=True)
        freedom = (every.shape[1] - 1) * (n - 1)
        variance = (residual**2).sum(axis=(1, 2)) / freedom
    else:  # of two cells the residual is half of the differences' variance
        freedom = c.a.shape[1] * (n - 1)
        variance = (c.a - c.b).var(axis=-1, ddof=1).mean(axis=1) / 2
    return two_sided((c.a - c.b).mean(axis=-1) / np.sqrt(2 * variance / n)[:, None], freedom)


def moderated(c: Cells) -> Floats:
    """limma's: each variance of paired differences drawn towards what all of them have in common."""
    d = c.a - c.b
    n, m = d.shape[-1], d.shape[1]
    freedom = n - 1
    variance = d.var(axis=-1, ddof=1)
    log = np.log(variance) - special.digamma(freedom / 2) + np.log(freedom / 2)
    excess = log.var(axis=1, ddof=1) - special.polygamma(1, freedom / 2)
    varies = excess > 0  # more than chi-squared alone would
    prior = np.where(varies, 2 * inverse_trigamma(np.where(varies, excess, 1.0)), np.inf)
    half = np.where(varies, prior / 2, 1.0)
    centre = np.exp(log.mean(axis=1) + np.where(varies, special.digamma(half) - np.log(half), 0.0))
    weight = np.where(varies, prior, 0.0)[:, None]
    posterior = (weight * centre[:, None] + freedom * variance) / (weight + freedom)
    posterior = np.where(varies[:, None], posterior, centre[:, None])
    total = np.minimum(freedom + prior, m * freedom)[:, None]
    return two_sided(d.mean(axis=-1) / np.sqrt(posterior / n), total)


def inverse_trigamma(y: Floats) -> Floats:
    """x with polygamma(1, x) = y, by Newton's method on 1 / trigamma, which is nearly a line."""
    x = 0.5 + 1 / y
    for _ in range(50):
        trigamma = special.polygamma(1, x)
        step = trigamma * (1 - trigamma / y) / special.polygamma(2, x)
        x = x + step
        if np.max(-step / x) < 1e-8:
            break
    return x


TESTS: Mapping[str, Callable[[Cells], Floats]] = {
    "Welch": welch,
    "paired t": paired,
    "seed-blocked": blocked,
    "moderated paired t": moderated,
}


def holm(p: Floats) -> Floats:
    """Adjusted p of each table's comparisons."""
    m = p.shape[1]
    order = np.argsort(p, axis=1)
    stepped = np.maximum.accumulate(np.take_along_axis(p, order, axis=1) * np.arange(m, 0, -1), axis=1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(stepped, 1.0), axis=1)
    return adjusted


def family_wise_error(s: Scenario, tables: int, rng: np.random.Generator) -> dict[str, float]:
    m = COMPARISONS[s.layout]
    found = dict.fromkeys(TESTS, 0.0)
    for far in ([], range(m // 2), range(m // 2, m)):
        difference = np.zeros(m)
        difference[list(far)] = FAR
        cells = simulate(s, difference, tables, rng)
        for name, test in TESTS.items():
            wrong = (holm(test(cells))[:, difference == 0] < ALPHA).any(axis=1)
            found[name] = max(found[name], float(wrong.mean()))
    return found


def power(s: Scenario, effect: float, tables: int, rng: np.random.Generator) -> dict[str, float]:
    cells = simulate(s, np.full(COMPARISONS[s.layout], effect), tables, rng)
    return {name: float((holm(test(cells)) < ALPHA).mean()) for name, test in TESTS.items()}


def detectable(s: Scenario, tables: int, seed: int) -> dict[str, float]:
    """The difference that each test finds with 80 %, by bisection on the same noise."""
    found = {}
    for name, test in TESTS.items():
        low, high = 0.0, 1000.0
        for _ in range(14):
            middle = (low + high) / 2 if low else high / 8
            cells = simulate(s, np.full(COMPARISONS[s.layout], middle), tables, np.random.default_rng(seed))
            enough = (holm(test(cells)) < ALPHA).mean() >= 0.8
            low, high = (low, middle) if enough else (middle, high)
        found[name] = high
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=20_000, help="simulated tables for each figure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for seed_tests-DATE.md; without it the text is only printed")
    args = parser.parse_args()
    began = time.process_time()
    rng = np.random.default_rng(args.seed)
    scenarios = [Scenario(*of) for of in itertools.product(COMPARISONS, SEEDS, SPREADS, CORRELATIONS)]
    errors = {s: family_wise_error(s, args.tables, rng) for s in scenarios}
    powers: dict[Scenario, dict[str, float]] = {}
    for s in scenarios:
        of_effects = [power(s, effect, args.tables // 4, rng) for effect in EFFECTS]
        powers[s] = {name: float(np.mean([of[name] for of in of_effects])) for name in TESTS}
    text = report(args.tables, args.seed, errors, powers, time.process_time() - began)
    print(text)
    if args.out:
        (args.out / f"seed_tests-{datetime.date.today()}.md").write_text(text, encoding="utf-8")


def report(
    tables: int,
    seed: int,
    errors: Mapping[Scenario, Mapping[str, float]],
    powers: Mapping[Scenario, Mapping[str, float]],
    spent: float,
) -> str:
    effects = ", ".join(f"{e:g}" for e in EFFECTS)
    worst = {name: max(of[name] for of in errors.values()) for name in TESTS}
    mean = {name: float(np.mean([of[name] for of in powers.values()])) for name in TESTS}
    fit = [name for name in TESTS if worst[name] <= MAX_ERROR]
    taken = max(fit, key=lambda name: mean[name]) if fit else "none"
    lines = [
        f"# Tests of two optimizers over a few seeds, {datetime.date.today()}",
        "",
        f"`python -m benchmarks.seed_tests --tables {tables} --seed {seed}` on {os.cpu_count()} cores of "
        f"{cpu_name() or platform.machine()}; {spent:.0f} s of CPU time. {tables:,} tables for each family-wise error "
        f"(standard error {100 * np.sqrt(0.05 * 0.95 / tables):.2f} % at 5 %), {tables // 4:,} for each power; Holm at "
        f"5 % over the comparisons of a table. Power is the mean over true differences of {effects} deviations.",
        "",
        f"Rule: of the tests whose family-wise error is at most {100 * MAX_ERROR:g} % in every scenario, the one with "
        f"the highest mean power. **Taken: {taken}.**",
        "",
        "| test | largest family-wise error, % | mean power, % |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {100 * worst[name]:.1f} | {100 * mean[name]:.1f} |" for name in TESTS),
        "",
        "Family-wise error / power, in %:",
        "",
        "| layout | seeds | spread | correlation | " + " | ".join(TESTS) + " |",
        "| --- | ---: | --- | ---: |" + " ---: |" * len(TESTS),
    ]
    for s in errors:
        shown = [f"{100 * errors[s][name]:.1f} / {100 * powers[s][name]:.0f}" for name in TESTS]
        lines.append(f"| {s.layout} | {s.seeds} | {s.spread} | {s.correlation:g} | {' | '.join(shown)} |")
    lines += ["", "Difference found with 80 % power, in deviations, equal spread, Table 2's layout, after Holm:", ""]
    lines += ["| seeds | correlation | " + " | ".join(TESTS) + " |", "| ---: | ---: |" + " ---: |" * len(TESTS)]
    for n, correlation in itertools.product(SEEDS, CORRELATIONS):
        found = detectable(Scenario("one network, 5 comparisons", n, "equal", correlation), 4000, seed)
        lines.append(f"| {n} | {correlation:g} | {' | '.join(f'{found[name]:.3g}' for name in TESTS)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
