"""What a panel shows of a run: a metric against the epoch or against time, for all of training or its last third."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from adarem.report.load import Run
from adarem.report.tables import times

FloatArray = NDArray[np.float64]

LAST_THIRD = "last third"


@dataclass(frozen=True)
class Curve:
    """One point per epoch, as arrays of one length."""

    x: FloatArray  # NaN where it is unknown
    y: FloatArray
    epoch: FloatArray
    deviation: FloatArray  # of y over the seeds; 0 for one seed

    def __len__(self) -> int:
        return len(self.epoch)

    def only(self, kept: NDArray[np.bool_]) -> "Curve":
        """The points where ``kept`` is true."""
        return Curve(self.x[kept], self.y[kept], self.epoch[kept], self.deviation[kept])

    def with_gaps(self) -> "Curve":
        """With a point of NaN wherever epochs are missing between two points, so that no line joins these."""
        steps = np.diff(self.epoch)
        if not len(steps):
            return self
        at = 1 + np.flatnonzero(steps >= 2 * np.median(steps))
        x, y, epoch, deviation = (np.insert(a, at, np.nan) for a in (self.x, self.y, self.epoch, self.deviation))
        return Curve(x, y, epoch, deviation)


def curve(x: FloatArray, y: FloatArray, epoch: FloatArray) -> Curve:
    """The curve of one run."""
    return Curve(x, y, epoch, np.zeros(len(epoch)))


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean x and y with the sample deviation of y, over the epochs that all curves have."""
    shared: FloatArray = functools.reduce(np.intersect1d, [c.epoch for c in curves])
    of_shared = [c.only(np.isin(c.epoch, shared)) for c in curves]
    x, y = np.stack([c.x for c in of_shared]), np.stack([c.y for c in of_shared])
    deviation = y.std(axis=0, ddof=1) if len(curves) > 1 else np.zeros(len(shared))
    return Curve(x.mean(axis=0), y.mean(axis=0), shared, deviation)


@dataclass(frozen=True)
class Panel:
    y_label: str
    x_label: str
    of_run: Callable[[Run], Curve]
    largest: float | None = None  # y that the axis does not exceed
    log: bool = False
    span: str = ""  # the part of training that it shows; empty: all

    @property
    def title(self) -> str:
        what = self.y_label.split(" (")[0]
        return f"{what}, {self.span}" if self.span else what

    def curve(self, run: Run) -> Curve:
        """Without the epochs whose x is unknown, as after a lost record."""
        found = self.of_run(run)
        return found.only(np.isfinite(found.x))


def _by_epoch(run: Run, split: str, key: str) -> Curve:
    epochs, values = run.curve(split, key).T
    return curve(epochs, values, epochs)


def train_loss(run: Run) -> Curve:
    return _by_epoch(run, "train", "loss")


def test_error(run: Run) -> Curve:
    top1 = _by_epoch(run, "val", "top1")
    return replace(top1, y=100.0 - top1.y)


def held_out_error(run: Run) -> Curve:
    top1 = _by_epoch(run, "holdout", "top1")
    return replace(top1, y=100.0 - top1.y)


def perplexity(run: Run) -> Curve:
    return _by_epoch(run, "val", "perplexity")


def q_mean(run: Run) -> Curve:
    return _by_epoch(run, "oscillation", "q_mean")


def q_median(run: Run) -> Curve:
    return _by_epoch(run, "oscillation", "q_median_with_gradient")


TRAIN_LOSS = Panel("Train loss (log scale)", "Epoch", train_loss, log=True)
TEST_ERROR = Panel("Test error (%)", "Epoch", test_error, largest=100.0)
HELD_OUT_ERROR = Panel("Error on held-out training images (%)", "Epoch", held_out_error, largest=100.0)
PERPLEXITY = Panel("Validation perplexity (log scale)", "Epoch", perplexity, log=True)
OSCILLATION = (
    Panel("Q, mean of l / d (all that moved)", "Epoch", q_mean),
    Panel("Median of l / d (with a gradient)", "Epoch", q_median),
)


def last_third(panel: Panel) -> Panel:
    """The same over the last third of training, on a linear axis whose scale does not depend on the beginning."""

    def of_run(run: Run) -> Curve:
        found = panel.of_run(run)
        return found.only(3 * found.epoch > 2 * run.config.scale.epochs)

    return replace(panel, y_label=panel.y_label.replace(" (log scale)", ""), of_run=of_run, log=False, span=LAST_THIRD)


@dataclass(frozen=True)
class TimePanels:
    wall: Panel
    device: Panel


def against_time(panel: Panel, runs: Sequence[Run]) -> TimePanels:
    """The same against wall time and against device time; in minutes where all of it is short."""
    unit, factor = times.unit(runs)

    def of_column(column: int) -> Callable[[Run], Curve]:
        def of_run(run: Run) -> Curve:
            hours, found = run.hours, panel.of_run(run)
            at = np.searchsorted(hours[:, 0], found.epoch)
            return replace(found, x=factor * hours[at, column])

        return of_run

    return TimePanels(
        wall=replace(panel, x_label=f"Wall time ({unit})", of_run=of_column(1)),
        device=replace(panel, x_label=f"{times.device(runs)} {unit}", of_run=of_column(2)),
    )
