"""Q against a slow float64 reference, step by step over single parameters."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from adarem.oscillation import OscillationTracker


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4))
    net[3].bias.requires_grad_(False)  # frozen: not tracked
    return net.to(memory_format=torch.channels_last)


def values(net: nn.Module) -> list[float]:
    return [float(v) for p in net.parameters() if p.requires_grad for v in p.detach().double().flatten()]


def wander(net: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for p in net.parameters():
            if p.requires_grad:
                p += 0.1 * torch.randn(p.shape, generator=generator)
        net[1].bias.copy_(torch.zeros(3))  # comes back to where it began: d = 0 while l grows only at first


def reference(trace: list[list[float]]) -> dict[str, float]:
    """The definition, one parameter at a time."""
    q, left_out, lengths, distances = [], 0, 0.0, 0.0
    for i in range(len(trace[0])):
        length = sum(abs(b[i] - a[i]) for a, b in zip(trace, trace[1:], strict=False))
        distance = abs(trace[-1][i] - trace[0][i])
        lengths, distances = lengths + length, distances + distance
        if distance > 0:
            q.append(length / distance)
        else:
            left_out += 1
    q.sort()
    return {
        "q_mean": sum(q) / len(q),
        "q_median": q[(len(q) - 1) // 2],
        "q_of_sums": lengths / distances,
        "share_left_out": left_out / len(trace[0]),
    }


def test_two_windows_follow_the_definition() -> None:
    net, generator = network(), torch.Generator().manual_seed(1)
    tracker = OscillationTracker(net.parameters(), watched=5, watched_steps=30)
    for window in range(2):
        trace = [values(net)]
        for _ in range(20):
            wander(net, generator)
            tracker.observe()
            trace.append(values(net))
        record = tracker.end_window()
        expected = reference(trace)
        # float32 differences of numbers near 1: the shortest displacements rule the mean and carry its error
        assert record["q_mean"] == pytest.approx(expected["q_mean"], rel=1e-3)
        assert record["q_median"] == pytest.approx(expected["q_median"], rel=1e-5)
        assert record["q_of_sums"] == pytest.approx(expected["q_of_sums"], rel=1e-5)
        assert record["share_left_out"] == pytest.approx(expected["share_left_out"])
        assert record["parameters"] == len(trace[0]) and record["window_steps"] == 20
        total = len(trace[0])
        places = [(2 * i + 1) * total // 10 for i in range(5)]
        steps = 20 if window == 0 else 10  # of the 30 to watch
        assert len(record["trajectories"]) == 5
        for place, path in zip(places, record["trajectories"], strict=True):
            assert path == [row[place] for row in trace[1 : steps + 1]]


def test_hand_worked() -> None:
    p = nn.Parameter(torch.tensor([0.0, 0.0]))
    tracker = OscillationTracker([p], watched_steps=0)
    for x in ([1.0, 1.0], [0.0, 0.0], [1.0, 0.0]):  # l = 3, d = 1; l = 2, d = 0
        with torch.no_grad():
            p.copy_(torch.tensor(x))
        tracker.observe()
    record = tracker.end_window()
    assert (record["q_mean"], record["q_median"], record["q_of_sums"], record["share_left_out"]) == (3.0, 3.0, 5.0, 0.5)
    assert record["trajectories"] == []
    nothing = tracker.end_window()
    assert (nothing["q_mean"], nothing["q_of_sums"], nothing["share_left_out"]) == (None, None, 1.0)


def test_going_on_from_a_saved_state_changes_no_bit() -> None:
    net, generator = network(), torch.Generator().manual_seed(2)
    whole = OscillationTracker(net.parameters(), watched=3, watched_steps=8)
    for _ in range(5):
        wander(net, generator)
        whole.observe()
    state = copy.deepcopy(whole.state_dict())
    resumed = OscillationTracker(net.parameters(), watched=3, watched_steps=8)
    resumed.load_state_dict(state)
    for _ in range(5):
        wander(net, generator)
        whole.observe()
        resumed.observe()
    assert whole.end_window() == resumed.end_window()


def test_through_an_interrupted_run(tiny_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from adarem import train as train_module
    from adarem.rundir import RunDir
    from adarem.train import train

    class StopAtStep:
        def __init__(self, looks: int) -> None:
            self.looks = looks

        @property
        def signal(self) -> str | None:
            self.looks -= 1
            return "SIGUSR1" if self.looks < 0 else None

    def go(path: Path, looks: int) -> None:
        monkeypatch.setattr(train_module, "StopRequest", lambda: StopAtStep(looks))
        train(path)

    settings = ("train.oscillation=true", "train.oscillation_window=2", "train.watched_steps=6")
    whole, broken = (RunDir(tiny_run(*settings, folder=name)) for name in ("whole", "broken"))
    go(whole.path, 99)
    for looks in (3, 3, 99):
        go(broken.path, looks)
    assert whole.oscillation() == broken.oscillation()
    (record,) = whole.oscillation()
    assert record["epoch"] == 2 and record["window_steps"] == 8 and record["q_mean"] > 1
    assert [len(t) for t in record["trajectories"]] == [6] * 8
