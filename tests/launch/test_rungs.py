"""A search with halving, launched here with a stand-in for python: from rung to rung, whatever happens between."""

import json
from pathlib import Path

import pytest

from adarem.launch.launch import launch
from adarem.launch.rungs import due, later, places, undecided
from adarem.launch.snapshot import NO_SLURM, snapshot
from adarem.plan.plan import Plan
from adarem.run import exitcodes
from adarem.run.selection import select


def states(plan: Plan) -> list[str]:
    known = places(plan)
    return [f"{known[p.run.path.name].state} {known[p.run.path.name].until}" for p in plan.runs]


def test_one_launch_goes_from_rung_to_rung(search: Plan, capfd: pytest.CaptureFixture[str]) -> None:
    assert [len(runs) for runs in later(search)] == [4, 4] and len(due(search)) == 4
    assert launch(search) == exitcodes.OK
    assert states(search) == ["stopped 2", "stopped 2", "stopped 4", "finished 8"]
    assert [len(p.run.attempts()) for p in search.runs] == [1, 1, 2, 3]
    out = capfd.readouterr().out
    assert "paused after epoch 2" in out and "FAILED" not in out and "failed" not in out
    chosen = select(search.folder).selected["resnet18"]["sgdm"]
    assert chosen.best and chosen.best.figure == 38.0 and chosen.halved
    assert [rung.trials for rung in chosen.halved.rungs] == [4, 2, 1] and chosen.halved.epochs == 16
    shown = {run.run: run.state for run in snapshot([search.folder], {search.folder: NO_SLURM})}
    assert [shown[p.run.path.name] for p in search.runs] == ["stopped", "stopped", "stopped", "done"]

    assert launch(search) == exitcodes.OK  # nothing trains again
    assert [len(p.run.attempts()) for p in search.runs] == [1, 1, 2, 3]
    assert "[1/4] " in (out := capfd.readouterr().out) and "stopped at rung 2" in out
    assert due(search) == [] == later(search)


def test_a_failed_run_holds_its_rung_up_and_is_tried_again(search: Plan, capfd: pytest.CaptureFixture[str]) -> None:
    broken: Path = search.runs[1].run.path / "stub.json"
    works = broken.read_text()
    broken.write_text(json.dumps({"do": "fail"}))
    assert launch(search) == exitcodes.FAILED
    assert states(search) == ["paused 2", "due 2", "paused 2", "paused 2"]
    (line,) = undecided(search)
    name = search.runs[1].config.run_name
    assert line.endswith(
        f"paused at 2 of 8 epochs; waits for 1 runs to come there: {name}; the same command tries them again"
    )
    assert line in capfd.readouterr().out
    broken.write_text(works)
    assert launch(search) == exitcodes.OK
    assert states(search) == ["stopped 2", "stopped 2", "stopped 4", "finished 8"]
