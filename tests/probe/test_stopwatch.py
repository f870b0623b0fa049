"""Beats of a made-up clock: no test here waits."""

import itertools

import pytest

from adarem.probe.stopwatch import EnoughEvaluated, Event, Stopwatch, TooFewSteps, timing
from adarem.train.distributed.heartbeat import Activity

WAITING, TRAINING = Activity.WAITING_FOR_DATA, Activity.TRAINING
EVALUATING, WRITING = Activity.EVALUATING, Activity.WRITING_CHECKPOINT


class Clock:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.now = self.cpu = 0.0

    def spend(self, step: int, activity: Activity, seconds: float, cpu: float | None = None) -> None:
        self.events.append(Event(self.now, self.cpu, step, activity))
        self.now += seconds
        self.cpu += seconds / 2 if cpu is None else cpu

    def done(self) -> list[Event]:
        return [*self.events, Event(self.now, self.cpu, 0, Activity.STARTING)]


def train(epochs: int, steps: int, slow: frozenset[int] = frozenset(), evaluate: bool = True) -> list[Event]:
    """Steps of 0.2 s wait and 0.8 s work; warm-up steps take 5 s, slow ones 50; an evaluation 3 s, a checkpoint 1 s."""
    clock = Clock()
    for step in range(epochs * steps):
        clock.spend(step, WAITING, 0.2)
        clock.spend(step, TRAINING, 5.0 if step < 3 else 50.0 if step in slow else 0.8)
        if (step + 1) % steps == 0 and evaluate:
            clock.spend(step + 1, EVALUATING, 3.0)
            clock.spend(step + 1, WRITING, 1.0)
    return clock.done()


def test_warm_up_and_one_hiccup_do_not_count() -> None:
    found = timing(train(1, 30, slow=frozenset({12})), 30)
    assert found.epoch == pytest.approx(30.0) and found.epoch_cpu == pytest.approx(15.0)
    assert found.first_step == pytest.approx(5.2) and found.warm_up == pytest.approx(3 * 4.2)
    assert found.evaluation == pytest.approx(3.0) and found.evaluation_cpu == pytest.approx(1.5)
    assert (found.steps, found.chunks, found.epochs) == (26, 26, 0)


def test_of_complete_epochs_the_median_counts_with_what_checkpoints_hold_up() -> None:
    found = timing(train(5, 10, slow=frozenset({25})), 10)
    assert found.epochs == 4 and found.epoch == pytest.approx(11.0)


def test_two_epochs_are_steps_and_what_is_added_to_them() -> None:
    assert timing(train(3, 10), 10).epoch == pytest.approx(11.0)  # two after the first


def test_a_long_epoch_is_not_waited_for() -> None:
    found = timing(train(1, 1000, evaluate=False)[:41], 1000)
    assert found.epoch == pytest.approx(1000.0) and found.evaluation is None
    assert found.loader_share == pytest.approx(0.2)


def test_too_few_steps_are_said() -> None:
    with pytest.raises(TooFewSteps, match="2 steps"):
        timing(train(1, 2), 2)


def test_a_stop_is_asked_for_once_there_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks) * 0.1)
    watch = Stopwatch(5.0)
    assert watch.signal is None
    watch.steps_per_epoch = 1000
    steps = 0
    while watch.signal is None:
        watch.beat(steps, WAITING)
        watch.beat(steps, TRAINING)
        steps += 1
    assert 15 <= steps <= 18  # 5 s of three ticks a step; no epoch ends within reach

    watch = Stopwatch(5.0)
    watch.steps_per_epoch = 8
    steps = 0
    while watch.signal is None:
        watch.beat(steps, WAITING)
        watch.beat(steps, TRAINING)
        steps += 1
    assert steps == 4 * 8  # four epochs are within three times the time


def test_an_evaluation_of_a_part_ends_on_every_rank() -> None:
    watch = Stopwatch(1e9)
    watch.evaluate_a_part(7, batches=6)
    with pytest.raises(EnoughEvaluated):
        for _ in range(100):
            watch.repeat()
    assert len(watch.evaluated) == 6
    watch = Stopwatch(1e9)
    watch.evaluate_a_part(7, batches=2)  # so few are all evaluated
    for _ in range(100):
        watch.repeat()
