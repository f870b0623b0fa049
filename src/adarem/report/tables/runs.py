"""runs.csv of a sweep: one row per run, one column per setting or metric."""

import csv
import io
from collections.abc import Sequence

from adarem.report.load import OSCILLATION, RESULT_METRICS, Run, fingerprints


def to_csv(runs: Sequence[Run]) -> str:
    """The rows in order of the runs' names; a column that a run has no value for is empty."""
    rows = [_row(r) for r in sorted(runs, key=lambda r: r.name)]
    columns = dict.fromkeys(key for row in rows for key in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(r: Run) -> dict[str, str]:
    last = r.attempts[-1] if r.attempts else {}
    train, evaluated_on = fingerprints(r)
    row: dict[str, object] = {
        "run": r.name,
        "campaign": r.dir.path.parent.name,  # the column keeps its name of before
        "status": r.status,
        "seed": r.config.seed,
        "rehearsal": r.rehearsal or "",
        "variant": r.overrides,
    }
    row |= {key: r.result.get(key, "") for key in RESULT_METRICS if key in r.result or "holdout" not in key}
    row |= {key: q for key in OSCILLATION if (q := r.value(key)) is not None}
    row |= {
        "commit": r.result.get("commit", last.get("commit", "")),
        "dirty": r.result.get("dirty", last.get("dirty", "")),
        "world_size": r.result.get("world_size", r.config.cluster.world_size),
        "device": r.result.get("device", last.get("device", "")),
        "attempts": len(r.attempts),
        "slurm_job": last.get("slurm_job") or "",
        "fingerprint.train": train,
        f"fingerprint.{r.config.data.evaluated_on}": evaluated_on,
        "problems": "; ".join(r.problems),
    }
    row |= {key: v for key, v in r.settings.items() if key not in row and not key.startswith("overrides")}
    return {key: _plain(v) for key, v in row.items()}


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.0f}"
    if isinstance(value, list | tuple):
        return " ".join(map(_plain, value))
    return "" if value is None else str(value)
