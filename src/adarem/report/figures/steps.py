"""Norms of gradients and updates, and AdaRem's b, against the step: one row per network, one line per optimizer."""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numpy as np

from adarem.report.figures.curves import curves
from adarem.report.figures.panels import Curve, Panel, curve
from adarem.report.load import Run
from adarem.report.steps import left_out, watched_runs
from adarem.report.tables.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "The update is the weights after a step minus those before; the gradient is that before clipping. b > 0: the "
    "gradient has the sign of its own moving average. All parameters together."
)


def watched_steps(table: Table, title: str) -> "Figure | None":
    """None where no run has watched steps."""
    runs = watched_runs(table.sweep)
    if not runs:
        return None
    names = {r.name for r in runs}
    panels = [
        Panel("Update / weight norm (log scale)", "Step", _of("update_to_weight", names), log=True),
        Panel("Gradient norm (log scale)", "Step", _of("grad_norm", names), log=True),
    ]
    if any(np.isfinite(r.steps["b_positive"]).any() for r in runs):
        panels.append(Panel("Elements with b > 0 (%)", "Step", _of("b_positive", names, 100.0), largest=100.0))
    others = left_out(table.sweep)
    return curves(
        table, panels, title, caption=CAPTION + (f" {others} runs of later seeds are left out." if others else "")
    )


def _of(key: str, names: Collection[str], factor: float = 1.0) -> Callable[[Run], Curve]:
    def of_run(run: Run) -> Curve:
        if run.name not in names:
            return curve(*np.empty((3, 0)))
        steps, values = run.steps["step"], factor * run.steps[key]
        return curve(steps, values, steps).only(np.isfinite(values) & (values > 0))

    return of_run
