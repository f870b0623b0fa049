"""The figure against the learning rate: at the best other settings where a search tried them, else over all trials."""

from collections.abc import Sequence
from dataclasses import dataclass

from adarem.report.search.trials import LEARNING_RATE, OptimizerSearch, Trial

NEIGHBOURS = 1  # trials on either side, by learning rate, that the running best looks at


@dataclass(frozen=True)
class RatePoint:
    rate: float
    trial: Trial
    line: float | None  # the figure of the line at this trial; None off the line


@dataclass(frozen=True)
class Sensitivity:
    """The trials by learning rate, and one line through them."""

    points: Sequence[RatePoint]  # by rate
    exact: bool  # the line has the best other settings at each rate; else it is the running best over neighbours

    @property
    def rule(self) -> str:
        if self.exact:
            return "line: the best other settings, at every learning rate tried with them"
        return "line: the best of each trial and its neighbours by learning rate; the other settings differ too"


def sensitivity(part: OptimizerSearch) -> Sensitivity | None:
    """None where the search does not vary the learning rate.

    A grid has the best other settings at every rate. Drawn trials have them at one rate alone, so a line through them
    would show all settings at once; what is shown in its place is the best of each trial and its neighbours.
    """
    if not any(d.key == LEARNING_RATE for d in part.dimensions):
        return None
    ordered = sorted(part.trials, key=lambda t: (_rate(t), t.settings))
    best = part.best
    at_best = [t for t in ordered if best is not None and _others(t) == _others(best)]
    if len(at_best) > 1:
        return Sensitivity([RatePoint(_rate(t), t, t.figure if t in at_best else None) for t in ordered], True)
    done = [t for t in ordered if t.figure is not None]
    figures = [t.figure for t in done if t.figure is not None]
    pick = min if part.metric.lower_is_better else max
    running = {t.settings: pick(figures[max(0, i - NEIGHBOURS) : i + NEIGHBOURS + 1]) for i, t in enumerate(done)}
    return Sensitivity([RatePoint(_rate(t), t, running.get(t.settings)) for t in ordered], False)


def _rate(trial: Trial) -> float:
    return float(trial.value(LEARNING_RATE))  # type: ignore[arg-type]  # a number, as all dimensions of a rate are


def _others(trial: Trial) -> list[tuple[str, object]]:
    return [(key, value) for key, value in trial.settings if key != LEARNING_RATE]
