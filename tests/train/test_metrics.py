"""Timers over several attempts and the loss reader. Within a run: tests/train/test_train.py."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from adarem.train import metrics
from adarem.train.metrics import AsyncLossReader, EpochTime, EpochTimer, peak_memory_bytes


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Advances by a second at each reading."""
    seconds = itertools.count()
    monkeypatch.setattr(metrics, "time", SimpleNamespace(perf_counter=lambda: float(next(seconds))))


@pytest.mark.usefixtures("clock")
def test_an_epoch_continues_where_the_attempt_before_left_it() -> None:
    timer = EpochTimer(EpochTime(seconds=100.0, waited_seconds=10.0, count=50))
    with timer.waiting():
        pass
    timer.add(30)
    assert timer.spent() == EpochTime(seconds=103.0, waited_seconds=11.0, count=80)
    assert timer.rate() == 80 / 104
    assert timer.seconds_per_step() == 5.0  # of this attempt alone


@pytest.mark.usefixtures("clock")
def test_progress_is_due_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    timer = EpochTimer()
    monkeypatch.setattr(metrics, "_SHOW_EVERY_SECONDS", 2.0)
    assert [timer.due() for _ in range(5)] == [False, True, False, True, False]


def test_the_running_loss_is_read() -> None:
    reader = AsyncLossReader(torch.device("cpu"))
    assert reader.loss() is None and not reader.not_finite()
    reader.observe(torch.tensor(6.0, dtype=torch.float64), torch.tensor(4.0, dtype=torch.float64))
    assert reader.loss() == 1.5
    for value in (math.nan, math.inf):
        reader.observe(torch.tensor(value, dtype=torch.float64), torch.tensor(4.0, dtype=torch.float64))
        assert reader.not_finite()


def test_memory_of_the_process() -> None:
    assert 10**7 < peak_memory_bytes(torch.device("cpu")) < 10**12
