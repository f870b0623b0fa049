"""results/runs.csv: one row a run, one column a setting or figure."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adarem.report.load import OSCILLATION, RESULT_METRICS, Run, Sweep, Sweeps, fingerprints
from adarem.run.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def runs_frame(runs: list[Run]) -> "pd.DataFrame":
    """One row a run, one column a setting or figure; strings as written to runs.csv."""
    import pandas as pd

    rows = []
    for r in runs:
        last = r.attempts[-1] if r.attempts else {}
        train, val = fingerprints(r)
        row = {"run": r.name, "campaign": r.dir.path.parent.name, "status": r.status, "seed": r.config.seed}
        row |= {"rehearsal": r.rehearsal or "", "variant": r.overrides}
        row |= {k: r.result.get(k, "") for k in RESULT_METRICS}
        row |= {k: q for k in OSCILLATION if (q := r.value(k)) is not None}
        row |= {"commit": r.result.get("commit", last.get("commit", ""))}
        row |= {"dirty": r.result.get("dirty", last.get("dirty", ""))}
        row |= {"world_size": r.result.get("world_size", r.config.cluster.world_size)}
        row |= {"device": r.result.get("device", last.get("device", "")), "attempts": len(r.attempts)}
        row |= {"slurm_job": last.get("slurm_job") or "", "fingerprint.train": train, "fingerprint.val": val}
        row |= {"problems": "; ".join(r.problems)}
        row |= {k: v for k, v in r.settings.items() if k not in row and not k.startswith("overrides")}
        rows.append({k: _plain(v) for k, v in row.items()})
    return pd.DataFrame(rows)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.0f}"
    if isinstance(value, list):
        return " ".join(map(_plain, value))
    return "" if value is None else str(value)


def merged(path: Path, current: Sweep, sweeps: Sweeps) -> str:
    """runs.csv anew: the rows of ``current`` and of every sweep in the file that is there.

    Those of other sweeps are made again from their runs, or kept where these are not here or cannot be read.

    Raises:
        UserError: the file that is there is not one that the report wrote.
    """
    import pandas as pd

    frames = [runs_frame(current.runs)]
    for name, rows in _rows(path):
        if name != current.name:
            sweep = sweeps.get(name)
            frames.append(runs_frame(sweep.runs) if sweep else rows)
    frames = [f for f in frames if len(f)]
    if not frames:
        return ""
    whole = pd.concat(frames, ignore_index=True).fillna("").sort_values("run", kind="stable")
    return whole.to_csv(index=False, lineterminator="\n")


def _rows(path: Path) -> list[tuple[str, "pd.DataFrame"]]:
    """Sweeps with their rows; none while there is no file."""
    import pandas as pd

    if not path.exists() or not path.stat().st_size:
        return []
    try:
        return list(pd.read_csv(path, dtype=str, keep_default_na=False).groupby("campaign"))
    except (ValueError, KeyError):  # pandas' own errors are among the first
        raise UserError(f"{path}: not readable as the report's CSV; restore it, or move it away") from None
