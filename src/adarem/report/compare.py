"""`adarem compare RUN RUN`: two runs side by side, and image by image where both kept which images they got right."""

from pathlib import Path

from adarem.report import stats as statistics
from adarem.report.load import RESULT_METRICS, Run, fingerprints, read_run
from adarem.report.tables.table import METRICS
from adarem.run.config import differing_keys
from adarem.run.errors import UserError

# Keys that differ between any two cells and say nothing.
_NAMES = ("grid", "cell")


def _load(path: Path) -> Run:
    run = read_run(Path(path))
    if isinstance(run, str):
        raise UserError(run)
    return run


def _figure(run: Run, key: str) -> str:
    value = run.result.get(key) if run.status == "done" else None
    if value is None:
        return "—"
    return f"{value:,.0f}" if isinstance(value, float) and abs(value) >= 1000 else f"{value:,}"


def _paired_lines(a: Run, b: Run) -> list[str]:
    """McNemar and bootstrap for each accuracy, or the reason why there is none."""
    if fingerprints(a)[1] != fingerprints(b)[1] or not fingerprints(a)[1]:
        return ["Not compared image by image: the two were not evaluated on the same validation data."]
    bits = [r.correct() for r in (a, b)]
    lacking = " and ".join(r.name for r, c in zip((a, b), bits, strict=True) if c is None)
    if lacking:
        return [
            f"Not compared image by image: {lacking} kept no correct.npz (written at the final evaluation), or one "
            "that does not fit its result."
        ]
    out = []
    for metric in ("top1", "top5"):
        p = statistics.compare_images(*(of_run[metric] for of_run in bits))
        out.append(
            f"{METRICS[metric].label}: a − b = {p.difference:+.2f} points, 95 % {p.low:+.2f} to {p.high:+.2f} (paired "
            f"bootstrap over {p.n:,} images); only a right {p.only_a:,}, only b right {p.only_b:,}; McNemar's exact "
            f"p = {p.p:.2g}"
        )
    out.append(
        "This compares two trained networks on these images. It says nothing of what another seed would give: "
        "the table over several seeds does."
    )
    return out


def compare(first: Path, second: Path) -> str:
    """Two run directories as text: settings that differ, figures, the paired test.

    Raises:
        UserError: a path that is no readable run.
    """
    a, b = _load(first), _load(second)
    rows = [("", "a", "b"), ("run", a.name, b.name), ("status", a.status, b.status)]
    if a.rehearsal or b.rehearsal:
        rows.append(("rehearsal", *("yes" if r.rehearsal else "no" for r in (a, b))))
    rows += [(k, _figure(a, k), _figure(b, k)) for k in RESULT_METRICS if k in a.result or k in b.result]
    rows.append(("commit", *(str(r.result.get("commit", "—"))[:9] + "+" * bool(r.result.get("dirty")) for r in (a, b))))
    widths = [max(len(r[i]) for r in rows) for i in range(3)]
    out = [f"{k.ljust(widths[0])}  {x.rjust(widths[1])}  {y.rjust(widths[2])}".rstrip() for k, x, y in rows]
    differing = [d for d in differing_keys(a.config, b.config) if d.partition(":")[0] not in _NAMES]
    out += ["", "Settings that differ (a against b):" if differing else "Settings: the same"]
    out += [f"  {d}" for d in differing]
    out += [f"{r.name}: rehearsal: {r.rehearsal}" for r in (a, b) if r.rehearsal]
    out += [f"{r.name}: {p}" for r in (a, b) for p in r.problems]
    return "\n".join([*out, "", *_paired_lines(a, b)]) + "\n"
