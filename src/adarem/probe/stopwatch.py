"""Times a training loop by its heartbeats: when each step, evaluation and checkpoint begins, and what came of it."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from adarem.train.distributed.heartbeat import Activity, Heartbeat

WARM_UP_STEPS = 3  # the first ones compile, choose kernels and fill caches
LEAST_STEPS = 4  # beyond these, so that there is a median
CHUNK_SECONDS = 0.25
COMPLETE_EPOCHS = 3  # after the first: from so many on their median counts, checkpoints included
LONGER = 3.0  # times the seconds asked for, where the complete epochs are there by then


class Event(NamedTuple):
    seconds: float  # of the wall clock
    cpu: float  # seconds of this process
    step: int
    activity: Activity


class EnoughEvaluated(Exception):
    """An evaluation that was to be timed and not to be finished."""


class Stopwatch(Heartbeat):
    """A heartbeat that keeps its beats, and asks for a stop once there are enough: also a ``StopRequest``.

    Args:
        seconds: of training that are enough.
        steps_per_epoch: None until it is known; no stop is asked for before.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.enough_seconds = seconds
        self.steps_per_epoch: int | None = None
        self.evaluated: list[Event] = []  # of an evaluation of a part, one a batch
        self._batches = 0  # of which it has so many at most

    def beat(self, step: int, activity: Activity) -> None:
        super().beat(step, activity)
        self.events.append(self.now(step, activity))

    def evaluate_a_part(self, step: int, batches: int) -> None:
        """The evaluation that begins now ends with EnoughEvaluated, on every rank: none reaches what ranks do together.

        Args:
            batches: that every rank has at least. With fewer than LEAST_STEPS of them all are evaluated.
        """
        super().beat(step, Activity.EVALUATING)
        self._batches = batches if batches >= LEAST_STEPS else 0

    def repeat(self) -> None:
        """Raises EnoughEvaluated once an evaluation of a part has had its time."""
        super().repeat()
        if self._batches:
            self.evaluated.append(self.now(self.last.step, Activity.EVALUATING))
            spent = self.evaluated[-1].seconds - self.evaluated[0].seconds
            if len(self.evaluated) >= self._batches or len(self.evaluated) > 3 and spent > self.enough_seconds:
                raise EnoughEvaluated

    @staticmethod
    def now(step: int, activity: Activity) -> Event:
        return Event(time.perf_counter(), time.process_time(), step, activity)

    @property
    def signal(self) -> str | None:
        """Read before each step."""
        if self.steps_per_epoch is None or len(self.events) < 2:
            return None
        spent = time.perf_counter() - self.events[0].seconds
        steps = self.events[-1].step + 1
        if spent < self.enough_seconds or steps < WARM_UP_STEPS + LEAST_STEPS:
            return None
        needed = (1 + COMPLETE_EPOCHS) * self.steps_per_epoch
        if steps < needed and spent * needed / steps < LONGER * self.enough_seconds:
            return None
        return "enough is measured"


class Span(NamedTuple):
    """What lies between two beats."""

    seconds: float
    cpu: float
    step: int
    activity: Activity

    def epoch(self, steps_per_epoch: int) -> int:
        # What follows an epoch's last step bears the number of the step that comes next.
        after = self.activity in (Activity.EVALUATING, Activity.WRITING_CHECKPOINT)
        return (self.step - after) // steps_per_epoch


@dataclass(frozen=True)
class Timing:
    """Of one rank."""

    first_step: float  # seconds from the first beat to the end of the first step
    warm_up: float  # seconds by which the first steps took longer than later ones
    warm_up_cpu: float
    loader_share: float
    epoch: float  # seconds of training and of what checkpoints hold it up
    epoch_cpu: float
    evaluation: float | None  # seconds; None where no complete one was seen
    evaluation_cpu: float | None
    steps: int
    chunks: int
    epochs: int


class TooFewSteps(Exception):
    """Training ended before a step that does not warm up."""


def timing(events: Sequence[Event], steps_per_epoch: int) -> Timing:
    """What the beats of one rank come to.

    Args:
        events: in order; the last one ends what was before it.

    Raises:
        TooFewSteps: there are fewer than WARM_UP_STEPS + 1 steps.
    """
    spans = [
        Span(b.seconds - a.seconds, b.cpu - a.cpu, a.step, a.activity) for a, b in zip(events, events[1:], strict=False)
    ]
    steps: dict[int, list[Span]] = {}
    for span in spans:
        if span.activity in (Activity.WAITING_FOR_DATA, Activity.TRAINING):
            steps.setdefault(span.step, []).append(span)
    # The first and the last of an epoch also open the loader and sum up: they count with the epoch alone.
    inner = [i for i in steps if i >= WARM_UP_STEPS and i % steps_per_epoch not in (0, steps_per_epoch - 1)]
    inner = inner or [i for i in steps if i >= WARM_UP_STEPS]
    if not inner:
        raise TooFewSteps(f"{len(steps)} steps, of which the first {WARM_UP_STEPS} warm up")
    chunks = _chunks([steps[i] for i in inner])
    step = statistics.median(c.seconds / c.steps for c in chunks)
    step_cpu = statistics.median(c.cpu / c.steps for c in chunks)
    whole = _complete_epochs(spans, steps_per_epoch)
    if len(whole) >= COMPLETE_EPOCHS:
        epoch = statistics.median(seconds for seconds, _ in whole)
        epoch_cpu = statistics.median(cpu for _, cpu in whole)
    else:
        added = [(s - step * steps_per_epoch, c - step_cpu * steps_per_epoch) for s, c in whole]
        added = added or [(max(0.0, steps[0][0].seconds - step), max(0.0, steps[0][0].cpu - step_cpu))]
        epoch = step * steps_per_epoch + max(0.0, statistics.median(s for s, _ in added))
        epoch_cpu = step_cpu * steps_per_epoch + max(0.0, statistics.median(c for _, c in added))
    warm = [steps[i] for i in range(min(WARM_UP_STEPS, len(steps)))]
    evaluations = [s for s in spans if s.activity == Activity.EVALUATING]
    waits = sum(s.seconds for i in inner for s in steps[i] if s.activity == Activity.WAITING_FOR_DATA)
    return Timing(
        first_step=sum(s.seconds for s in warm[0]),
        warm_up=max(0.0, sum(s.seconds for of_step in warm for s in of_step) - len(warm) * step),
        warm_up_cpu=max(0.0, sum(s.cpu for of_step in warm for s in of_step) - len(warm) * step_cpu),
        loader_share=waits / sum(s.seconds for i in inner for s in steps[i]),
        epoch=epoch,
        epoch_cpu=epoch_cpu,
        evaluation=statistics.median(s.seconds for s in evaluations) if evaluations else None,
        evaluation_cpu=statistics.median(s.cpu for s in evaluations) if evaluations else None,
        steps=len(inner),
        chunks=len(chunks),
        epochs=len(whole),
    )


class _Chunk(NamedTuple):
    seconds: float
    cpu: float
    steps: int


def _chunks(steps: Sequence[Sequence[Span]]) -> list[_Chunk]:
    """Consecutive steps together, as many as take CHUNK_SECONDS; the rest at the end joins none."""
    found: list[_Chunk] = []
    seconds = cpu = 0.0
    count = 0
    for spans in steps:
        seconds += sum(s.seconds for s in spans)
        cpu += sum(s.cpu for s in spans)
        count += 1
        if seconds >= CHUNK_SECONDS:
            found.append(_Chunk(seconds, cpu, count))
            seconds = cpu = 0.0
            count = 0
    return found or [_Chunk(seconds, cpu, count)]


def _complete_epochs(spans: Sequence[Span], steps_per_epoch: int) -> list[tuple[float, float]]:
    """Seconds and CPU seconds of each complete epoch after the first, without evaluation."""
    by_epoch: dict[int, list[Span]] = {}
    for span in spans:
        by_epoch.setdefault(span.epoch(steps_per_epoch), []).append(span)
    found = []
    for number, of_epoch in by_epoch.items():
        trained = {s.step for s in of_epoch if s.activity == Activity.TRAINING}
        if number > 0 and len(trained) == steps_per_epoch:
            rest = [s for s in of_epoch if s.activity != Activity.EVALUATING]
            found.append((sum(s.seconds for s in rest), sum(s.cpu for s in rest)))
    return found
