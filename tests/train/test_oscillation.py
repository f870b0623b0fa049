"""Q against a slow float64 reference, step by step over single parameters."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from adarem.run import exitcodes
from adarem.run.directory import RunDir
from adarem.train.oscillation import OscillationTracker, watched_entries
from tests.support.training import StopAtStep


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
    tracker = OscillationTracker(net.named_parameters(), watched_steps=0)
    for _ in range(2):
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
        assert record["trajectories"] == []


def test_watched_entries_are_the_models_and_the_seeds() -> None:
    from adarem.train.models.library import build_model

    named = list(build_model("resnet18", 10, seed=0).named_parameters())
    places = {seed: watched_entries(named, seed) for seed in (0, 1)}
    names = [name.partition("[")[0] for name, *_ in places[0]]
    assert names == ["layer1.1.conv1.weight", "layer3.0.conv1.weight", "layer4.0.conv2.weight", "fc.weight"]
    for (name, p, place), (again, *_) in zip(places[0], watched_entries(named, 0), strict=True):
        assert name == again and all(i == size // 2 for i, size in zip(place[2:], p.shape[2:], strict=True))
    assert [n for n, *_ in places[0]] != [n for n, *_ in places[1]]
    other = watched_entries(list(build_model("resnet18", 10, seed=5).named_parameters()), 0)
    assert [n for n, *_ in other] == [n for n, *_ in places[0]]  # not of the values


def test_three_spans_of_the_run_are_kept() -> None:
    net, generator = network(), torch.Generator().manual_seed(1)
    tracker = OscillationTracker(net.named_parameters(), total_steps=20, watched_steps=4)
    named = dict(net.named_parameters())
    trace, kept = [], []
    for step in range(20):
        trace.append({n: p.detach().clone() for n, p in named.items()})
        wander(net, generator)
        tracker.observe()
        if step % 7 == 6:  # windows that end in the middle of spans
            kept += tracker.end_window()["trajectories"]
    trace.append({n: p.detach().clone() for n, p in named.items()})
    kept += tracker.end_window()["trajectories"]
    assert len({t["parameter"] for t in kept}) == 2  # the convolution and the classifier
    assert sorted({t["from_step"] for t in kept}) == [0, 8, 16] and len(kept) == 6
    for t in kept:
        name, _, place = t["parameter"].rstrip("]").partition("[")
        index = tuple(map(int, place.split(",")))
        want = [float(trace[t["from_step"] + i][name][index]) for i in range(5)]
        assert torch.tensor(t["values"]).tolist() == want  # to the bit, in float32


def test_parameters_without_a_gradient_are_separate() -> None:
    """Weight decay alone moves the last two of five straight on: they rule the median, not the one with gradients."""
    p = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 1.0, 2.0]))
    tracker = OscillationTracker([("p", p)], watched_steps=0)
    for sign in (1.0, -1.0, 1.0):  # l = 3, d = 1
        p.grad = sign * torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0])
        tracker.see_gradients()
        with torch.no_grad():
            p -= p.grad + torch.tensor([0.0, 0.0, 0.25, 0.25, 0.25])
        tracker.observe()
    record = tracker.end_window()
    assert (record["q_mean"], record["q_median"]) == (9 / 5, 1.0)
    assert (record["q_mean_with_gradient"], record["q_median_with_gradient"]) == (3.0, 3.0)
    assert (record["share_without_gradient"], record["q_mean_without_gradient"]) == (0.6, 1.0)
    tracker.observe()
    assert tracker.end_window()["share_without_gradient"] == 1.0  # of each window anew


def test_weight_decay_alone_need_not_go_straight() -> None:
    """Adam's L2 is normalised: near zero it swings to and fro, so q is measured and not taken for 1."""
    p = nn.Parameter(torch.linspace(-0.01, 0.01, 50))
    tracker = OscillationTracker([("p", p)], watched_steps=0)
    optimizer = torch.optim.Adam([p], lr=0.004, weight_decay=1e-4)
    for _ in range(30):
        p.grad = torch.zeros_like(p)
        tracker.see_gradients()
        optimizer.step()
        tracker.observe()
    record = tracker.end_window()
    assert record["share_without_gradient"] == 1.0 and record["q_mean_with_gradient"] is None
    assert record["q_mean_without_gradient"] == record["q_mean"] > 1.1


def test_hand_worked() -> None:
    p = nn.Parameter(torch.tensor([0.0, 0.0]))
    tracker = OscillationTracker([("p", p)], watched_steps=0)
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
    complete = OscillationTracker(net.named_parameters(), total_steps=11, watched_steps=3)
    for _ in range(5):
        wander(net, generator)
        complete.observe()
    state = copy.deepcopy(complete.state_dict())
    resumed = OscillationTracker(net.named_parameters(), total_steps=11, watched_steps=3)
    resumed.load_state_dict(state)
    for _ in range(6):
        wander(net, generator)
        complete.observe()
        resumed.observe()
    record = complete.end_window()
    assert record == resumed.end_window()
    assert {t["from_step"] for t in record["trajectories"]} == {0, 4, 8}


def test_through_an_interrupted_run(tiny_run: Callable[..., Path], run_here: Callable[..., int]) -> None:
    settings = ("train.oscillation=true", "train.oscillation_window=2", "train.watched_steps=2")
    complete, broken = (RunDir(tiny_run(*settings, folder=name)) for name in ("complete", "broken"))
    assert run_here(complete.path) == exitcodes.OK
    for looks in (3, 3):
        assert run_here(broken.path, StopAtStep(looks)) == exitcodes.REQUEUE
    assert run_here(broken.path) == exitcodes.OK
    assert complete.oscillation() == broken.oscillation()
    (record,) = complete.oscillation()
    assert record["epoch"] == 2 and record["window_steps"] == 8 and record["q_mean"] > 1
    assert [t["from_step"] for t in record["trajectories"]] == 4 * [0] + 4 * [3] + 4 * [6]
    assert all(len(t["values"]) == 3 and len(set(t["values"])) > 1 for t in record["trajectories"])
    assert 0 <= record["share_without_gradient"] < 0.5
