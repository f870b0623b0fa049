"""``fused=True`` under torch.compile: the kernel runs as it does without, and nothing is compiled again."""

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.optim.lr_scheduler import ExponentialLR

import adarem.optim.kernels.fused
from adarem import AdaRem, AdaRemS

STEPS = 10
classes = pytest.mark.parametrize("cls", [AdaRem, AdaRemS])
backends = pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()
    counters.clear()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).double()


def optimizer_of(cls: type[AdaRem], params: list[Tensor], spherical: int, **settings: Any) -> AdaRem:
    """``spherical`` parameters from the front are on a sphere of AdaRem-S."""
    groups: list[dict[str, Any]] = [{"params": params[:spherical]}, {"params": params[spherical:]}]
    if cls is AdaRemS:
        groups[0]["spherical"] = True
    return cls(
        [g for g in groups if g["params"]],
        **{"lr": 0.1, "lam": 0.5, "decay_every": 3, "weight_decay": 0.01, "fused": True, **settings},
    )


def batches() -> Tensor:
    return torch.randn(STEPS, 16, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def trained(cls: type[AdaRem], **settings: Any) -> nn.Module:
    model = network()
    optimizer = optimizer_of(cls, list(model.parameters()), 1, **settings)
    for x in batches():
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return model


def assert_equal(model: nn.Module, expected: nn.Module) -> None:
    for p, q in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-13)


@classes
@backends
@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)], ids=["float", "tensor"])
def test_a_compiled_step_runs_the_kernel_once_a_group_and_is_compiled_once(
    cls: type[AdaRem], backend: str, lr: float | Tensor
) -> None:
    models, steps, schedules = [], [], []
    for compiled in (False, True):
        models.append(network())
        rate = lr.clone() if isinstance(lr, Tensor) else lr
        optimizer = optimizer_of(cls, list(models[-1].parameters()), 1, lr=rate, scope="model")
        schedules.append(ExponentialLR(optimizer, 0.9))
        steps.append(torch.compile(optimizer.step, backend=backend) if compiled else optimizer.step)
    frames = []
    kernel = adarem.optim.kernels.fused.cpu.fused_step
    with mock.patch.object(adarem.optim.kernels.fused.cpu, "fused_step", side_effect=kernel) as calls:
        for x in batches():
            for model, step, schedule in zip(models, steps, schedules, strict=True):
                model.zero_grad()
                model(x).square().mean().backward()
                step()
                schedule.step()
            frames.append(counters["frames"]["total"])
    assert all(map(torch.equal, models[0].parameters(), models[1].parameters()))
    assert calls.call_count == 2 * 2 * STEPS
    assert frames[0] > 0 and frames[2:] == frames[2:3] * (STEPS - 2), frames


@classes
def test_a_closure_and_a_loss_pass_through_a_compiled_step(cls: type[AdaRem]) -> None:
    model, expected = network(), trained(cls)
    optimizer = optimizer_of(cls, list(model.parameters()), 1)
    step = torch.compile(optimizer.step, backend="aot_eager")
    for x in batches():

        def closure(x: Tensor = x) -> Tensor:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            return loss

        assert step(closure).item() > 0
    assert_equal(model, expected)


@classes
def test_a_scaler_skips_a_compiled_fused_step_that_overflows(cls: type[AdaRem]) -> None:
    param = torch.ones(3, 2).requires_grad_()
    optimizer = optimizer_of(cls, [param], 1)
    step = torch.compile(optimizer.step, backend="aot_eager")
    param.grad = torch.arange(6.0).view(3, 2)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0), torch.tensor(1.0)
    step()
    assert torch.equal(param, torch.ones(3, 2))
    optimizer.found_inf = torch.tensor(0.0)
    step()
    assert not torch.equal(param, torch.ones(3, 2))
    assert torch.equal(param.grad, torch.arange(6.0).view(3, 2) / 2)


@classes
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_training_step_has_the_fused_step_in_it(cls: type[AdaRem], backend: str) -> None:
    model, expected = network(), trained(cls)
    optimizer = optimizer_of(cls, list(model.parameters()), 1)

    @torch.compile(backend=backend)
    def train(x: Tensor) -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    for x in batches():
        train(x)
    assert_equal(model, expected)


@classes
@pytest.mark.parametrize("flags", [{}, {"foreach": True}, {"fused": True}], ids=["single", "foreach", "fused"])
@pytest.mark.parametrize(
    "compiled_autograd", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "compiled"]
)
def test_an_optimizer_of_each_parameter_steps_in_the_backward_pass(
    cls: type[AdaRem], flags: dict[str, bool], compiled_autograd: bool
) -> None:
    settings = {"fused": None, **flags}
    model, expected = network(), trained(cls, **settings)
    for i, p in enumerate(model.parameters()):
        optimizer = optimizer_of(cls, [p], 1 if i == 0 else 0, **settings)

        def step(p: Tensor, optimizer: AdaRem = optimizer) -> None:
            optimizer.step()
            optimizer.zero_grad()

        p.register_post_accumulate_grad_hook(step)

    def backward(x: Tensor) -> None:
        model(x).square().mean().backward()

    run = torch.compile(backward, backend="aot_eager") if compiled_autograd else backward
    with torch._dynamo.config.patch(compiled_autograd=compiled_autograd):
        for x in batches():
            run(x)
    assert all(p.grad is None for p in model.parameters())
    assert_equal(model, expected)
