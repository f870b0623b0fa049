"""What is watched: the values, when they are read, what stays as it was. The host's waits: test_trainer.py."""

import json
import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torchvision
from torch import nn

from adarem import AdaRem, AdaRemS
from adarem.optim import agreement
from adarem.optim.watch import Agreement
from adarem.run import exitcodes
from adarem.run.config import MOST_WATCHED
from adarem.run.directory import RunDir
from adarem.train.models.awd_lstm import AwdLstm
from adarem.train.watch import MOST_GROUPS, StepWatch, interval, layer_groups
from tests.support.training import StopAtStep, assert_same_bits, figures, final_state, torchrun


def test_the_interval_doubles_until_the_file_is_bounded() -> None:
    assert interval(50, 125_100) == 50  # ImageNet, 100 epochs at batch 1024
    assert (interval(0, 10**9), interval(50, 10), interval(1, MOST_WATCHED)) == (0, 50, 1)
    for every in (1, 7, 50):
        for steps in (MOST_WATCHED * every + every, 10**7, 10**9):
            found = interval(every, steps)
            assert steps // found <= MOST_WATCHED < steps // (found // 2) and math.log2(found / every).is_integer()


def groups_of(model: nn.Module) -> dict[str, list[str]]:
    return layer_groups([name for name, _ in model.named_parameters()])


def test_layers_are_grouped_by_the_networks_parts() -> None:
    resnet = groups_of(torchvision.models.resnet18())
    assert list(resnet) == ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]
    mobilenet = groups_of(torchvision.models.mobilenet_v2())
    assert list(mobilenet)[0] == "features.0" and list(mobilenet)[-1] == "classifier"
    assert len(mobilenet) == MOST_GROUPS and "features.1-2" in mobilenet
    flat = nn.Sequential(*(nn.Linear(1, 1) for _ in range(40)))
    assert len(groups_of(flat)) == MOST_GROUPS
    assert groups_of(nn.Linear(2, 2)) == {"weight": ["weight"], "bias": ["bias"]}
    assert groups_of(nn.Sequential(nn.Sequential(nn.BatchNorm1d(2)))) == {
        "0.0.weight": ["0.0.weight"], "0.0.bias": ["0.0.bias"]
    }  # fmt: skip
    for model in (torchvision.models.resnet18(), flat, torchvision.models.shufflenet_v2_x0_5(), AwdLstm(50)):
        names = [name for name, _ in model.named_parameters()]
        found = groups_of(model)
        assert [name for of in found.values() for name in of] == names and 1 < len(found) <= MOST_GROUPS


class Net(nn.Module):
    """With a frozen parameter and one that gets no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.unused = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(2, 2)
        self.second.bias.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


OPTIMIZERS: dict[str, Callable[[Net], torch.optim.Optimizer]] = {
    "SGD": lambda m: torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=0.3, momentum=0.9),
    "AdaRem": lambda m: AdaRem([p for p in m.parameters() if p.requires_grad], lr=0.3, lam=0.9, decay_every=1),
    "AdaRem-S": lambda m: AdaRemS(
        [
            {"params": [m.first.weight], "spherical": True},
            {"params": [m.first.bias, m.second.weight, *m.unused.parameters()]},
        ],
        lr=0.3,
        lam=0.9,
        decay_every=2,
        fused=True,
    ),
}


def norm_of(tensors: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(t.detach().double().square().sum()) for t in tensors))


class Moved(NamedTuple):
    """One parameter at a step."""

    name: str
    after: torch.Tensor
    before: torch.Tensor
    grad: torch.Tensor | None
    agreement: Agreement | None


def plain(moved: list[Moved]) -> dict[str, float]:
    """The values of a group of parameters in float64."""
    update, weight = norm_of([m.after - m.before for m in moved]), norm_of([m.before for m in moved])
    values = {"grad_norm": norm_of([m.grad for m in moved if m.grad is not None])}
    values |= {"update_norm": update, "weight_norm": weight, "update_to_weight": update / weight}
    if of_b := [m.agreement for m in moved if m.agreement is not None]:
        b = torch.cat([a.b.double().flatten() for a in of_b])
        rates = torch.cat([(1 + a.weight * a.b.double()).flatten() for a in of_b])
        values |= {"b_positive": (b > 0).double().mean().item(), "b_mean": b.mean().item()}
        values |= {"rate_spread": rates.std(correction=0).item()}
    return values


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_the_values_are_those_of_plain_arithmetic(name: str, scale: float) -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = OPTIMIZERS[name](model)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale > 1)
    found: list[dict[str, Any]] = []
    watch = StepWatch(model, optimizer, scaler, 2, found.append)
    expected: list[dict[str, Any]] = []
    for step in range(1, 7):
        optimizer.zero_grad()
        loss = model(torch.randn(8, 4)).square().mean()
        scaler.scale(loss).backward()
        named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        before = {n: p.detach().clone() for n, p in named.items()}
        if watch.due(step):
            watch.see_gradients()
            watch.before_step(unscaled=False)
        b = {a.param: a for a in agreement(optimizer)} if isinstance(optimizer, AdaRem) else {}
        grads = {n: p.grad / scale for n, p in named.items() if p.grad is not None}
        scaler.step(optimizer)
        scaler.update()
        if not watch.due(step):
            continue
        watch.after_step(step, 0.3 / step, torch.tensor([8 * loss.item(), 5.0, 8.0], dtype=torch.float64))

        moved = [Moved(n, p.detach(), before[n], grads.get(n), b.get(p)) for n, p in named.items()]
        layers = {part: plain([m for m in moved if m.name.startswith(part)]) for part in ("first", "second", "unused")}
        expected.append({"step": step, "loss": loss.item(), "lr": 0.3 / step, **plain(moved), "layers": layers})
        assert len(found) == len(expected) - 1  # written one watch later
    watch.flush()
    assert len(found) == len(expected) == 3
    for got, want in zip(found, expected, strict=True):
        assert got["step"] == want["step"] and list(got["layers"]) == list(want["layers"])
        for part, whole in [(got, want), *((got["layers"][n], want["layers"][n]) for n in want["layers"])]:
            keys = whole.keys() - {"layers", "step"}
            assert part.keys() == whole.keys()
            assert all(part[k] == pytest.approx(whole[k], rel=1e-5, abs=1e-7) for k in keys), (part, whole)
    assert (found[0]["b_positive"] > 0.1) if name != "SGD" else "b_mean" not in found[0]
    assert found[0]["layers"]["unused"]["grad_norm"] == 0.0


def test_what_is_not_finite_and_sparse_gradients_end_nothing() -> None:
    model = nn.ModuleDict({"words": nn.Embedding(5, 3, sparse=True), "head": nn.Linear(3, 2)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found: list[dict[str, Any]] = []
    watch = StepWatch(model, optimizer, torch.amp.GradScaler("cpu", enabled=False), 1, found.append)
    totals = torch.tensor([math.nan, 2.0], dtype=torch.float64)
    model["head"](model["words"](torch.tensor([1, 1]))).sum().backward()
    model["head"].bias.grad.fill_(math.inf)
    watch.see_gradients()
    watch.before_step(unscaled=True)
    optimizer.step()
    watch.after_step(1, 0.1, totals)
    watch.flush()
    (record,) = found
    assert record["loss"] is None and record["grad_norm"] is None and record["update_to_weight"] is None
    words = model["words"].weight.grad.coalesce().values()
    assert record["layers"]["words"]["grad_norm"] == pytest.approx(words.norm().item(), rel=1e-5)
    json.dumps(record, allow_nan=False)


class Event:
    """Of a GPU: the values have not arrived until somebody waits for them."""

    waited = 0

    def query(self) -> bool:
        return bool(self.waited)

    def synchronize(self) -> None:
        self.waited += 1


def test_values_that_have_not_arrived_are_not_waited_for() -> None:
    model = nn.Linear(2, 2)
    optimizer, found = torch.optim.SGD(model.parameters(), lr=0.1), []
    watch = StepWatch(model, optimizer, torch.amp.GradScaler("cpu", enabled=False), 1, found.append)
    events = []
    for step in range(1, 4):
        model(torch.ones(2)).sum().backward()
        watch.see_gradients()
        watch.before_step(unscaled=True)
        optimizer.step()
        watch.after_step(step, 0.1, torch.ones(2, dtype=torch.float64))
        events.append(Event())
        object.__setattr__(watch._pending[-1], "event", events[-1])
    assert not found and not any(e.waited for e in events)
    events[0].waited = 1
    watch.see_gradients()
    assert [r["step"] for r in found] == [1]  # in their order: the third may not pass the second
    watch.flush()
    assert [r["step"] for r in found] == [1, 2, 3] and all(e.waited for e in events)


WATCHED = ("train.watch_every=1", "optimizer=adarem_s", "scale.micro_batch_size=144", "train.clip_grad_norm=0.5")


def test_a_run_that_was_stopped_and_killed_has_the_same_lines(
    tiny_run: Callable[..., Path], run_here: Callable[..., int]
) -> None:
    complete, broken = RunDir(tiny_run(*WATCHED, folder="complete")), RunDir(tiny_run(*WATCHED))
    assert run_here(complete.path) == exitcodes.OK
    assert run_here(broken.path, StopAtStep(6)) == exitcodes.REQUEUE
    checkpoint = broken.steps_file.read_bytes()
    assert complete.steps_file.read_bytes().startswith(checkpoint) and 4 <= checkpoint.count(b"\n") < 8
    # What a killed attempt leaves behind: lines of steps after its checkpoint, the last one cut.
    with open(broken.steps_file, "ab") as f:
        f.write(b'{"step": 8, "loss": 1.0}\n{"step": 9, "lo')
    assert run_here(broken.path) == exitcodes.OK
    assert broken.steps_file.read_bytes() == complete.steps_file.read_bytes()
    records = complete.read_steps().records
    assert [r["step"] for r in records] == list(range(1, 9))
    assert all(0 <= r["b_positive"] <= 1 and r["update_to_weight"] > 0 for r in records)
    assert max(r["grad_norm"] for r in records) > 0.5  # before it is clipped to that


def test_watching_changes_no_bit(tiny_run: Callable[..., Path], run_here: Callable[..., int]) -> None:
    settings = WATCHED[1:]
    runs = [RunDir(tiny_run(*settings, f"train.watch_every={n}", folder=f"every {n}")) for n in (0, 1)]
    assert [run_here(run.path) for run in runs] == [exitcodes.OK] * 2
    assert figures(runs[0]) == figures(runs[1])
    states = [final_state(run) for run in runs]
    for state in states:
        state["training"].pop("checkpoint_seconds")
    assert_same_bits(*states)
    assert not runs[0].steps_file.exists() and runs[1].steps_file.exists()
    assert runs[0].config() != runs[1].config() and runs[0].path.name == runs[1].path.name
    results = [deepcopy(run.result()) for run in runs]
    assert results[0]["config_hash"] == results[1]["config_hash"]


def test_a_run_may_be_watched_more_closely_when_it_goes_on(
    tiny_run: Callable[..., Path], run_here: Callable[..., int]
) -> None:
    run = RunDir(tiny_run("train.watch_every=4"))
    assert run_here(run.path, StopAtStep(5)) == exitcodes.REQUEUE
    assert tiny_run("train.watch_every=1") == run.path
    assert run_here(run.path) == exitcodes.OK
    steps = [r["step"] for r in run.read_steps().records]
    assert steps[0] == 4 and steps[-3:] == [6, 7, 8]


@pytest.mark.slow
def test_two_ranks_leave_one_record_each_step(tiny_run: Callable[..., Path]) -> None:
    run = RunDir(tiny_run("train.watch_every=2", "cluster.ranks_per_node=2", "optimizer=adarem"))
    done = torchrun(2, run.path, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert [r["step"] for r in run.read_steps().records] == [2, 4, 6, 8] and run.read_steps().damaged == 0
