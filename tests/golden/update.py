"""Writes the golden files anew, for a change that is meant: python -m tests.golden.update [losses plan report runs].

What the reports read (sweeps/, runs/, text/) and the records of complete runs (expected/runs/) stay: they are of the
day they were made.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from . import cases
from .harness import EXPECTED, environment


def write(folder: str, outputs: Mapping[str, str]) -> None:
    shutil.rmtree(EXPECTED / folder, ignore_errors=True)
    for name, text in outputs.items():
        path = EXPECTED / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    print(f"{folder}: {len(outputs)} files", flush=True)


def losses(fresh: Callable[[], Path]) -> None:
    here = environment(fresh())
    write("losses", {f"{d}.json": cases.golden_json(cases.losses(fresh(), d), here) for d in cases.LOSSES})


def plan(fresh: Callable[[], Path]) -> None:
    for name in cases.PLANS:
        write(f"plan/{name}", cases.plan(fresh(), name))


def report(fresh: Callable[[], Path]) -> None:
    for sweep in cases.REPORTS:
        write(f"report/{sweep}", cases.reports(fresh(), sweep))


def runs(fresh: Callable[[], Path]) -> None:
    for name in cases.FINISHED:
        write(f"finished/{name}", cases.finished(fresh(), name))
    write("interrupted", cases.interrupted(fresh()))


PARTS = {"losses": losses, "plan": plan, "report": report, "runs": runs}


def main(asked: list[str]) -> int:
    if unknown := [part for part in asked if part not in PARTS]:
        print(f"{unknown[0]}: no part; known are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        for part in asked or PARTS:
            PARTS[part](lambda: Path(tempfile.mkdtemp(dir=folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
