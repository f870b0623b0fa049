"""`adarem compare RUN RUN`: two runs next to each other, and image by image where both kept their evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adarem.report import stats as statistics
from adarem.report.load import RESULT_METRICS, Run, fingerprints, read_run
from adarem.report.provenance import commits
from adarem.run.catalog import METRICS
from adarem.run.errors import UserError
from adarem.run.identity import differing_keys
from adarem.run.text import aligned

# Keys that differ between any two runs and mean nothing.
_NAMES = ("grid", "cell")


@dataclass(frozen=True)
class Row:
    """One line of the comparison: what it is of, and its text for each run."""

    what: str
    a: str
    b: str


def compare(first: Path, second: Path) -> str:
    """Two run directories as text: their metrics, the settings that differ, the test over images.

    Raises:
        UserError: a path is no readable run.
    """
    a, b = _read(first), _read(second)
    differing = [d for d in differing_keys(a.config, b.config) if d.partition(":")[0] not in _NAMES]
    lines = [
        *aligned([(r.what, r.a, r.b) for r in _rows(a, b)], right={1, 2}),
        "",
        "Settings that differ (a against b):" if differing else "Settings: the same",
        *(f"  {d}" for d in differing),
        *(f"{r.name}: rehearsal: {r.rehearsal}" for r in (a, b) if r.rehearsal),
        *(f"{r.name}: {problem}" for r in (a, b) for problem in r.problems),
        "",
        *_images(a, b),
    ]
    return "\n".join(lines) + "\n"


def _read(path: Path) -> Run:
    run = read_run(Path(path))
    if isinstance(run, str):
        raise UserError(run)
    return run


def _rows(a: Run, b: Run) -> list[Row]:
    rows = [Row("", "a", "b"), Row("run", a.name, b.name), Row("status", a.status, b.status)]
    if a.rehearsal or b.rehearsal:
        rows.append(Row("rehearsal", *("yes" if r.rehearsal else "no" for r in (a, b))))
    rows += [Row(k, _value(a, k), _value(b, k)) for k in RESULT_METRICS if k in a.result or k in b.result]
    return [*rows, Row("commit", _commit(a), _commit(b))]


def _value(run: Run, key: str) -> str:
    value = run.result.get(key) if run.status == "done" else None
    if not isinstance(value, int | float):
        return "—"
    return f"{value:,.0f}" if isinstance(value, float) and abs(value) >= 1000 else f"{value:,}"


def _commit(run: Run) -> str:
    """The first characters of the commit that made the result; + for uncommitted changes."""
    made_by = commits(run)
    return made_by[-1].name + ("+" if made_by[-1].dirty else "") if made_by else "—"


def _images(a: Run, b: Run) -> list[str]:
    """McNemar's test and the bootstrap for each accuracy, or the reason why there is none."""
    if fingerprints(a)[1] != fingerprints(b)[1] or not fingerprints(a)[1]:
        return ["Not compared image by image: the two were not evaluated on the same validation data."]
    right_a, right_b = a.correct(), b.correct()
    if right_a is None or right_b is None:
        lacking = " and ".join(r.name for r, right in ((a, right_a), (b, right_b)) if right is None)
        return [
            f"Not compared image by image: {lacking} kept no correct.npz (written at the final evaluation), or one "
            "that does not fit its result."
        ]
    return [
        *(_comparison(metric, right_a, right_b) for metric in ("top1", "top5")),
        "This compares two trained networks on these images. It says nothing of what another seed would give: "
        "the table over several seeds does.",
    ]


def _comparison(metric: str, right_a: Mapping[str, NDArray[np.bool_]], right_b: Mapping[str, NDArray[np.bool_]]) -> str:
    c = statistics.compare_images(right_a[metric], right_b[metric])
    return (
        f"{METRICS[metric].label}: a − b = {c.difference:+.2f} points, 95 % {c.low:+.2f} to {c.high:+.2f} (paired "
        f"bootstrap over {c.n:,} images); only a right {c.only_a:,}, only b right {c.only_b:,}; McNemar's exact "
        f"p = {c.p:.2g}"
    )
