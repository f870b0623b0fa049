"""results/runs.csv: one row a run, one column a setting or figure."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adarem.report.collect import FIGURES, OSCILLATION, Campaign, Run, fingerprints, read_runs

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
        row |= {"rehearsal": r.config.rehearsal or "", "variant": r.variant}
        row |= {k: r.result.get(k, "") for k in FIGURES}
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


def update_runs_csv(path: Path, current: Campaign, runs_dir: Path) -> None:
    """Rows of ``current`` and of every campaign already in the file, read again where its folder still exists."""
    import pandas as pd

    frames = [runs_frame(current.runs)]
    if path.exists() and path.stat().st_size:
        old = pd.read_csv(path, dtype=str, keep_default_na=False)
        for name, rows in old.groupby("campaign"):
            if name == current.name:
                continue
            folder = runs_dir / name
            again = runs_frame(read_runs(folder).runs) if (folder / "grid.yaml").exists() else rows
            frames.append(again)
    frames = [f for f in frames if len(f)]
    if not frames:
        return
    whole = pd.concat(frames, ignore_index=True).fillna("").sort_values("run", kind="stable")
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.to_csv(path, index=False)
