"""Which run directories of a sweep count: each network, optimizer, settings and seed once, under its own name."""

from collections.abc import Sequence
from typing import NamedTuple

from adarem.report.run import Run
from adarem.run.identity import hash_of
from adarem.run.sweep import SweepSpec, run_name


class Counted(NamedTuple):
    runs: Sequence[Run]
    set_aside: Sequence[str]  # one line per run directory that does not count, and why


def counted(runs: Sequence[Run], spec: SweepSpec) -> Counted:
    """The runs that count, in their order; a copy, a second run of a seed or a seed off the grid is none of them."""
    set_aside: dict[str, str] = {}  # by folder, so that the lines follow the order of the runs
    kept: list[Run] = []
    for r in runs:
        if wrong := _stranger(r, spec):
            set_aside[r.name] = wrong
        else:
            kept.append(r)
    by_cell: dict[tuple[str, str, str, int], list[Run]] = {}
    by_result: dict[str, list[Run]] = {}
    for r in kept:
        c = r.config
        by_cell.setdefault((c.model.name, c.optimizer.name, r.overrides, c.seed), []).append(r)
        if recorded := r.result.get("config_hash"):
            by_result.setdefault(str(recorded), []).append(r)
    for recorded, alike in by_result.items():  # each run has a hash of its own, with its name and seed in it
        first = min(alike, key=lambda r: (hash_of(r.settings) != recorded, *_rank(r, spec)))
        set_aside |= {r.name: f"its result.json is that of {_folder(first)}" for r in alike if r is not first}
    for (*_, seed), alike in by_cell.items():
        left = [r for r in alike if r.name not in set_aside]
        for r in left:
            if r is not (taken := min(left, key=lambda r: _rank(r, spec))):
                set_aside[r.name] = f"seed {seed} of this cell again, which {_folder(taken)} is"
    lines = [
        f"{r.name}: {set_aside[r.name]}; it is not counted, so move it away or name it as planned"
        for r in runs
        if r.name in set_aside
    ]
    return Counted([r for r in kept if r.name not in set_aside], lines)


def _folder(run: Run) -> str:
    return run.dir.path.name


def _stranger(run: Run, spec: SweepSpec) -> str | None:
    """Why a run is none of its sweep's, by its own folder and config."""
    if _folder(run) != run.config.run_name:
        return f"its config.yaml is that of {run.config.run_name}: a copy, or a folder that was renamed"
    if run.config.seed not in spec.seeds:
        return f"seed {run.config.seed} is none of the grid's ({', '.join(map(str, spec.seeds))})"
    return None


def _rank(run: Run, spec: SweepSpec) -> tuple[bool, bool, str]:
    """Of two runs of one seed the planned one counts, then the one with the name that plan gives."""
    c = run.config
    named = run_name(c.model.name, c.optimizer.name, c.seed, c.overrides)
    return _folder(run) not in spec.runs, _folder(run) != named, _folder(run)
