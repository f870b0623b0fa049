"""The claim ledger of a report: judged by the runs that are here, with the verdicts kept that rest on others."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from adarem.report.claims import judge as claims
from adarem.report.claims.judge import Claim, Judged
from adarem.report.csv_rows import read_rows
from adarem.report.load import Sweep, Sweeps

KEPT = "kept from an earlier report: its runs are not here"


def judge(sweeps: Sweeps, results_dir: Path) -> tuple[list[Judged], list[str]]:
    """Every claim judged by the reproductions that are here, beside it what the same rule makes of rehearsals, and the
    names of these.

    Of rehearsals on several data sets the first by name, short ones before long ones, that has something to say of a
    claim does.
    """
    ledger = claims.read_claims(results_dir)
    grids = {c.grid for c in ledger} | {c.against_grid for c in ledger if c.against_grid}
    genuine: dict[str, Sweep] = {}
    rehearsed: dict[str, dict[str, Sweep]] = {}  # by what follows the grid in their names: data and scale
    for name in sweeps.names():
        grid = max((g for g in grids if f"{name}-".startswith(f"{g}-")), key=len, default=None)
        sweep = sweeps.get(name) if grid else None
        if sweep is None:
            continue
        if sweep.rehearsal is None:
            genuine.setdefault(grid, sweep)
        else:
            rehearsed.setdefault(name.removeprefix(grid), {})[grid] = sweep
    judged = []
    for claim in ledger:
        told = [s for of in rehearsed.values() if (s := claims.judge(claim, of).status) != "not run"]
        judged.append(replace(claims.judge(claim, genuine), rehearsed=told[0] if told else "not run"))
    return judged, sorted(c.name for of in rehearsed.values() for c in of.values())


def keep(judged: list[Judged], path: Path, sweeps: Sweeps) -> tuple[list[Judged], list[str]]:
    """``judged`` with the verdicts of claims.csv at ``path`` in place of those that rest on runs which are not here.

    Returns:
        The ledger, and the ids of the claims that were kept; those that claims.yaml no longer has stand at its end.
    """
    rows = {row["id"]: row for row in read_rows(path, ("id", "status", "claim", "where", "evidence", "runs"))}
    kept = {k: row for k, row in rows.items() if row["status"] != "not run" and not _all_here(row, sweeps)}
    whole = [_from_row(kept[j.claim.id], j) if j.claim.id in kept else j for j in judged]
    gone = [k for k in kept if k not in {j.claim.id for j in judged}]
    return whole + [_from_row(kept[k], None) for k in gone], list(kept)


def _all_here(row: Mapping[str, str], sweeps: Sweeps) -> bool:
    runs = row["runs"].split()
    return bool(runs) and all(map(sweeps.holds, runs))


def _from_row(row: Mapping[str, str], now: Judged | None) -> Judged:
    """An earlier verdict, its claim in the words in which it was judged."""
    words = {k: row[k] for k in ("claim", "where")}
    if now is None:
        of = {k: row.get(k, "") for k in ("id", "grid", "metric", "relation")}
        claim, rehearsed = Claim(**of, **words, model=(), optimizer="", against=()), "not run"
    else:
        claim, rehearsed = replace(now.claim, **words), now.rehearsed
    evidence = [line for line in row["evidence"].split(" | ") if line and line != KEPT]
    return Judged(claim, row["status"], [*evidence, KEPT], row["runs"].split(), rehearsed)
