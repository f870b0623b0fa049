"""What halving leaves to launch of a search: the runs that may train now, and those that may after each decision."""

from typing import TYPE_CHECKING

from adarem.run.directory import FINISHED
from adarem.run.errors import UserError
from adarem.run.halving import CellRungs, Place, read_rungs
from adarem.run.sweep import read_sweep

if TYPE_CHECKING:  # a launch of a plan that is made needs no Hydra
    from adarem.plan.plan import Plan, PlannedRun


def _cells(plan: "Plan") -> list[CellRungs]:
    try:
        spec = read_sweep(plan.folder)
    except UserError:
        return []  # a dry run of what was never planned
    return list(read_rungs(plan.folder, spec).values())


def places(plan: "Plan") -> dict[str, Place]:
    """Where the runs of a search with halving stand, by name; empty of anything else."""
    return {name: cell.place(name) for cell in _cells(plan) for name in cell.records}


def due(plan: "Plan") -> list["PlannedRun"]:
    """The runs that are not finished and that no rung holds back."""
    known = places(plan)

    def is_due(planned: "PlannedRun") -> bool:
        place = known.get(planned.run.path.name)
        return planned.run.status() not in FINISHED if place is None else place.state == "due"

    return [planned for planned in plan.runs if is_due(planned)]


def later(plan: "Plan") -> list[list["PlannedRun"]]:
    """For each decision to come, in order, the runs of the plan that may train on after it."""
    halving = plan.spec.halving
    if halving is None:
        return []
    cells = _cells(plan)
    held = {name for cell in cells for name in cell.records}
    stages: list[set[str]] = [{p.run.path.name for p in plan.runs} - held for _ in halving.epochs]  # not on disk yet
    for cell in cells:
        for stage, names in zip(stages, cell.later(), strict=False):
            stage.update(names)
    found = [[p for p in plan.runs if p.run.path.name in stage] for stage in stages]
    return [runs for runs in found if runs]


def undecided(plan: "Plan") -> list[str]:
    """One line on each rung at which runs of the plan wait."""
    known = places(plan)
    waiting = [p for planned in plan.runs if (p := known.get(planned.run.path.name)) and p.state == "paused"]
    return [
        f"{plan.folder}: {place.text()}{place.waiting()}; the same command tries them again"
        for place in dict.fromkeys(waiting)
    ]
