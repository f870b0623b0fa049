"""Plans whose ranks, reports and data are stand-ins, for tests of launching."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from adarem.plan.plan import Plan
from adarem.run.directory import RunDir
from tests.support import ROOT

STUB = ROOT / "tests" / "support" / "sbatch_stub.py"  # takes the place of python
NASTY = """a b 'c' "d" $(touch hacked) `touch hacked`; %j\nnew line"""  # a folder's name


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def moved(plan: Plan, runs_dir: Path, **cluster: Any) -> Plan:
    """The plan under another folder and with other settings of its cluster."""
    folder = runs_dir / plan.folder.name
    cells = [
        replace(
            planned,
            run=RunDir(folder / planned.config.run_name),
            config=replace(planned.config, cluster=replace(planned.config.cluster, **cluster)),
        )
        for planned in plan.runs
    ]
    return replace(plan, folder=folder, runs_dir=runs_dir, results_dir=runs_dir.parent / "results", runs=cells)


def alone(plan: Plan) -> Plan:
    """The plan, one run at a time on however many cores."""
    return moved(plan, plan.runs_dir, max_parallel=1)


def order(plan: Plan, *what: str) -> None:
    """Writes the plan and tells each run's stub what to do; see sbatch_stub.py."""
    plan.write()
    for planned, do in zip(plan.runs, what, strict=True):
        (planned.run.path / "stub.json").write_text(json.dumps({"do": do}))
