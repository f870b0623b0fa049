"""How a signal becomes a stop. Several ranks with real signals: tests/train/test_train.py, tests/faults."""

import os
import signal
from collections.abc import Iterator

import pytest
import torch

from adarem.train.distributed.context import RankContext
from adarem.train.distributed.stop import SignalListener, StopCode, StopConsensus


@pytest.fixture
def listener() -> Iterator[SignalListener]:
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = [signal.getsignal(n) for n in numbers]
    yield SignalListener()
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_the_first_signal_counts(listener: SignalListener) -> None:
    assert listener.signal is None
    for number in (signal.SIGUSR1, signal.SIGTERM):
        os.kill(os.getpid(), number)
    assert listener.signal == "SIGUSR1"


def test_a_second_ctrl_c_ends_at_once(listener: SignalListener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the one that torchrun passes on at the same time."""
    seconds = iter([100.0, 101.0, 104.0])
    monkeypatch.setattr("adarem.train.distributed.stop.time.monotonic", lambda: next(seconds))
    ended: list[int] = []
    listener._note(signal.SIGINT, None)
    monkeypatch.setattr("adarem.train.distributed.stop.os.kill", lambda pid, number: ended.append(number))
    listener._note(signal.SIGINT, None)
    assert ended == []
    listener._note(signal.SIGINT, None)
    assert ended == [signal.SIGINT] and signal.getsignal(signal.SIGINT) == signal.SIG_DFL


def test_one_rank_agrees_with_itself_at_once() -> None:
    consensus = StopConsensus(RankContext(0, 1, 0, torch.device("cpu"), ("here",)))
    assert consensus.exchange(StopCode.STOP) is StopCode.STOP
    assert consensus.settle() is StopCode.CONTINUE
