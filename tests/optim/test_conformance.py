"""PyTorch's own machinery for testing optimizers, as far as it ships inside torch, on both classes.

``torch.testing._internal.common_optimizers`` holds the descriptions (OptimizerInfo), inputs, error inputs and the
tracker that compares implementations; the tests that use them are not part of a torch installation, so their ideas
are written out here. Ideas of timm's registry tests (Rosenbrock, lockstep state dict) stand at the end.
"""

import itertools
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.testing._internal.common_optimizers import (
    ErrorOptimizerInput,
    OptimizerErrorEnum,
    OptimizerInfo,
    OptimizerInput,
    TensorTracker,
    _get_optim_inputs_including_global_cliquey_kwargs,
    get_error_inputs_for_all_optims,
    optim_db,
)
from torch.testing._internal.common_utils import TestCase

from adarem import AdaRem, AdaRemS


def inputs(device: str | None = None, dtype: torch.dtype | None = None) -> list[OptimizerInput]:
    return [
        OptimizerInput(params=None, kwargs={}, desc="default"),
        OptimizerInput(params=None, kwargs={"lr": 0.01}, desc="non-default lr"),
        OptimizerInput(params=None, kwargs={"lr": torch.tensor(0.001)}, desc="Tensor lr"),
        OptimizerInput(params=None, kwargs={"beta": 0.5, "lam": 0.9, "decay_every": 3}, desc="non-default beta, lam"),
        OptimizerInput(params=None, kwargs={"eps": 1e-3}, desc="printed form"),
        OptimizerInput(params=None, kwargs={"scope": "model"}, desc="model scope"),
        OptimizerInput(params=None, kwargs={"weight_decay": 0.1}, desc="nonzero weight_decay"),
        OptimizerInput(params=None, kwargs={"weight_decay": 0.1, "maximize": True}, desc="maximize"),
    ]


def error_inputs(device: str, dtype: torch.dtype) -> list[ErrorOptimizerInput]:
    bad = [
        ({"lr": -1e-2}, "Invalid learning rate: -0.01"),
        ({"beta": 1.5}, "Invalid beta value: 1.5"),
        ({"lam": -0.5}, "Invalid lam value: -0.5"),
        ({"weight_decay": -0.5}, "Invalid weight_decay value: -0.5"),
    ]
    return get_error_inputs_for_all_optims(device, dtype) + [
        ErrorOptimizerInput(
            OptimizerInput(params=None, kwargs=kwargs, desc=message), error_type=ValueError, error_regex=message
        )
        for kwargs, message in bad
    ]


INFOS = [
    OptimizerInfo(
        cls,
        optim_inputs_func=inputs,
        optim_error_inputs_func=error_inputs,
        supported_impls=("foreach", "differentiable", "fused"),
        not_og_supported_flags=("foreach", "differentiable", "maximize", "capturable", "fused"),
        has_capturable_arg=True,
        supports_fused_on=("cpu", "cuda"),
    )
    for cls in (AdaRem, AdaRemS)
]


def all_inputs(info: OptimizerInfo) -> list[OptimizerInput]:
    """Without flags, with fused, and with foreach, which torch's helper leaves out on the CPU."""
    every = _get_optim_inputs_including_global_cliquey_kwargs("cpu", torch.float32, info, skip=("differentiable",))
    plain = [i for i in every if not i.kwargs["fused"]]
    return every + [OptimizerInput(None, {**deepcopy(i.kwargs), "foreach": True}, f"{i.desc} & foreach") for i in plain]


CASES = [(info, i) for info in INFOS for i in all_inputs(info)]


def case_id(value: OptimizerInfo | OptimizerInput | ErrorOptimizerInput) -> str:
    if isinstance(value, ErrorOptimizerInput):
        return value.optimizer_error_input.desc  # str() would give an address, another in each of xdist's workers
    return value.name if isinstance(value, OptimizerInfo) else f"{value.desc},{value.kwargs}"


cases = pytest.mark.parametrize("info, case", CASES, ids=case_id)
infos = pytest.mark.parametrize("info", INFOS, ids=case_id)


def kwargs_of(case: OptimizerInput) -> dict[str, Any]:
    return deepcopy(case.kwargs)


def small_model(
    optimizer_of: Callable[[list[Parameter]], AdaRem], scale: float = 1.0
) -> tuple[AdaRem, Callable[[], Tensor], tuple[Parameter, Parameter]]:
    torch.manual_seed(0)
    weight, bias = Parameter(torch.randn(10, 5) * scale), Parameter(torch.randn(10))
    x = torch.randn(5)
    optimizer = optimizer_of([weight, bias])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (weight.mv(x) + bias).pow(2).sum()
        loss.backward()
        return loss

    return optimizer, closure, (weight, bias)


def test_inputs_do_not_name_the_flags_that_the_machinery_adds() -> None:
    for info in INFOS:
        for case in info.optim_inputs_func():
            assert not {"foreach", "fused", "differentiable", "capturable"} & set(case.kwargs)
    assert len(CASES) >= 2 * 3 * len(inputs())


@pytest.mark.parametrize(
    "info, error", [(i, e) for i in INFOS for e in error_inputs("cpu", torch.float32)], ids=case_id
)
def test_errors(info: OptimizerInfo, error: ErrorOptimizerInput) -> None:
    params, kwargs = error.optimizer_error_input.params, error.optimizer_error_input.kwargs
    params = [Parameter(torch.randn(2, 3))] if params is None else params
    assert error.error_on == OptimizerErrorEnum.CONSTRUCTION_ERROR
    if issubclass(error.error_type, Warning):
        with pytest.warns(error.error_type, match=error.error_regex):
            info.optim_cls(params, **kwargs)
    else:
        with pytest.raises(error.error_type, match=error.error_regex):
            info.optim_cls(params, **kwargs)


@cases
@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("scheduled", [False, True])
def test_goes_in_the_right_direction(
    info: OptimizerInfo, case: OptimizerInput, contiguous: bool, scheduled: bool
) -> None:
    kwargs = kwargs_of(case)
    torch.manual_seed(0)
    weight = torch.randn(10, 5) if contiguous else torch.randn(10, 5, 2)[..., 0]
    bias = torch.randn(10) if contiguous else torch.randn(10, 2)[..., 0]
    weight, bias, x = Parameter(weight), Parameter(bias), torch.randn(5)
    optimizer = info.optim_cls([weight, bias], **kwargs)
    schedulers = [StepLR(optimizer, gamma=0.9, step_size=10), ReduceLROnPlateau(optimizer)] if scheduled else []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (weight.mv(x) + bias).pow(2).sum()
        loss.backward()
        # As torch's: only half of the gradients are there at every other step
        return loss

    initial = closure().item()
    for _ in range(20):
        loss = optimizer.step(closure)
        for s in schedulers:
            s.step(loss) if isinstance(s, ReduceLROnPlateau) else s.step()
    assert (closure().item() > initial) == kwargs.get("maximize", False)


@cases
def test_param_group_with_scheduler_goes_in_the_right_direction(info: OptimizerInfo, case: OptimizerInput) -> None:
    kwargs = kwargs_of(case)
    optimizer, closure, params = small_model(lambda ps: info.optim_cls([{"params": ps}], **kwargs))
    late = Parameter(torch.ones(3))
    optimizer.add_param_group({"params": [late], "lr": 0.01})
    scheduler = StepLR(optimizer, gamma=0.9, step_size=10)
    initial = closure().item()
    for _ in range(20):
        optimizer.step(closure)
        scheduler.step()
    assert (closure().item() > initial) == kwargs.get("maximize", False)


@cases
def test_tensor_lr_equals_number(info: OptimizerInfo, case: OptimizerInput) -> None:
    kwargs = kwargs_of(case)
    kwargs.pop("lr", None)
    number, step_number, p = small_model(lambda ps: info.optim_cls(ps, lr=1e-3, **kwargs))
    tensor, step_tensor, q = small_model(lambda ps: info.optim_cls(ps, lr=torch.tensor(1e-3), **kwargs))
    for _ in range(5):
        number.step(step_number)
        tensor.step(step_tensor)
    for a, b in zip(p, q, strict=True):
        torch.testing.assert_close(a, b)


@infos
@pytest.mark.parametrize("flag", ["foreach", "fused"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_implementations_match_the_for_loop(info: OptimizerInfo, flag: str, dtype: torch.dtype) -> None:
    for case in info.optim_inputs_func():
        updated, optimizers = [], []
        for value in (False, True):
            torch.manual_seed(0)
            model = torch.nn.Sequential(
                torch.nn.Linear(5, 3), torch.nn.Sigmoid(), torch.nn.Linear(3, 1), torch.nn.Sigmoid()
            ).to(dtype)
            params = list(model.parameters())
            x = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], dtype=dtype)[:5].reshape(1, 5)
            params.append(Parameter(torch.empty(())))  # never gets a gradient
            optimizer = info.optim_cls(params, **kwargs_of(case), **{flag: value})
            for _ in range(7):
                optimizer.zero_grad()
                model(x).sum().backward()
                optimizer.step()
            updated.append(params)
            optimizers.append(optimizer)
        tolerance = {"rtol": 1e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {"rtol": None, "atol": None}
        for a, b in zip(*updated, strict=True):
            if a.numel() and a.grad is not None:
                torch.testing.assert_close(a, b, **tolerance)
                for key, value in optimizers[0].state[a].items():
                    torch.testing.assert_close(value, optimizers[1].state[b][key], **tolerance)


@infos
@pytest.mark.parametrize("flag", ["foreach", "fused"])
def test_implementations_match_step_by_step(info: OptimizerInfo, flag: str) -> None:
    """torch's TensorTracker: the for-loop's values are taken after each step, the other's compared and replaced."""

    for case in info.optim_inputs_func():
        tracker = TensorTracker(assert_eq_kwargs={"rtol": 1e-12, "atol": 1e-12})
        for value in (False, True):
            torch.manual_seed(1)
            params = [Parameter(torch.randn(s, dtype=torch.float64)) for s in ((3, 4), (5,), ())]
            optimizer = info.optim_cls(params, **kwargs_of(case), **{flag: value})
            for _ in range(4):
                for p in params:
                    p.grad = torch.randn_like(p)
                optimizer.step()
                for p in params:
                    for t in (p, optimizer.state[p]["exp_avg"], optimizer.state[p]["exp_avg_max"]):
                        if value:
                            tracker.pop_check_set(t, TestCase())
                        else:
                            tracker.add(t)
        assert tracker.all_popped()


@infos
@pytest.mark.parametrize("name", ["_multi_tensor", "_single_tensor", "_fused"])
def test_implementations_can_be_patched_by_name(info: OptimizerInfo, name: str) -> None:
    """PyTorch's tests find them as _multi_tensor_<class in lower case> in the module of the class."""
    target = f"{info.optim_cls.__module__}.{name}_{info.optim_cls.__name__.lower()}"
    spherical = {"spherical": True} if info.optim_cls is AdaRemS else {}
    flags = {"_multi_tensor": {"foreach": True}, "_single_tensor": {"foreach": False}, "_fused": {"fused": True}}[name]
    p = Parameter(torch.ones(2))
    optimizer = info.optim_cls([{"params": [p], **spherical}], **flags)
    p.grad = torch.ones(2)
    with mock.patch(target) as patched:
        optimizer.step()
    assert patched.called


@cases
def test_step_is_noop_when_params_have_no_grad(info: OptimizerInfo, case: OptimizerInput) -> None:
    params = [torch.randn(2, 3, requires_grad=True) for _ in range(2)]
    old = [p.detach().clone() for p in params]
    optimizer = info.optim_cls(params, **kwargs_of(case))
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(old, params, strict=True))


@cases
def test_step_is_noop_for_zero_grads(info: OptimizerInfo, case: OptimizerInput) -> None:
    kwargs = {**kwargs_of(case), "weight_decay": 0.0}
    param = torch.randn(5, 1, requires_grad=True)
    old = param.detach().clone()
    optimizer = info.optim_cls([param], **kwargs)
    for _ in range(3):
        param.grad = torch.zeros_like(param)
        optimizer.step()
    assert torch.equal(old, param)


@cases
def test_printing_defaults_and_state(info: OptimizerInfo, case: OptimizerInput) -> None:
    optimizer, closure, params = small_model(lambda ps: info.optim_cls(ps, **kwargs_of(case)))
    optimizer.step(closure)
    text = repr(optimizer)
    assert info.name in text and "lam" in text and "decay_every" in text
    assert all(len(state) for state in optimizer.state.values())
    public = {k for k in optimizer.__dict__ if not k.startswith("_")}
    assert public == {k for k in deepcopy(optimizer).__dict__ if not k.startswith("_")}


@cases
def test_state_dict_deterministic_and_lockstep(info: OptimizerInfo, case: OptimizerInput) -> None:
    kwargs = kwargs_of(case)
    a, step_a, p = small_model(lambda ps: info.optim_cls(ps, **kwargs))
    for _ in range(5):
        a.step(step_a)
    saved = deepcopy(a.state_dict())
    b, step_b, q = small_model(lambda ps: info.optim_cls(ps, **kwargs_of(case)))
    with torch.no_grad():
        for x, y in zip(p, q, strict=True):
            y.copy_(x)
    b.load_state_dict(saved)
    for _ in range(5):
        a.step(step_a)
        b.step(step_b)
        for x, y in zip(p, q, strict=True):
            assert torch.equal(x, y)
    b.param_groups.extend(deepcopy(b.param_groups))
    assert str(a.state_dict()["param_groups"][-1]) == str(b.state_dict()["param_groups"][0])


@infos
def test_can_load_older_state_dict(info: OptimizerInfo) -> None:
    for case in all_inputs(info):
        optimizer, closure, _ = small_model(lambda ps, case=case: info.optim_cls(ps, **kwargs_of(case)))
        for _ in range(3):
            optimizer.step(closure)
        old = deepcopy(optimizer.state_dict())
        for group, flag in itertools.product(old["param_groups"], info.not_og_supported_flags):
            group.pop(flag, None)
        optimizer.load_state_dict(old)
        for _ in range(3):
            optimizer.step(closure)


@infos
@pytest.mark.parametrize("named", [(True, False), (False, True), (True, True)])
def test_named_parameters_and_state_dicts(info: OptimizerInfo, named: tuple[bool, bool]) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)

    def build(with_names: bool) -> AdaRem:
        return info.optim_cls(model.named_parameters() if with_names else model.parameters())

    source, target = (build(n) for n in named)
    model(torch.randn(1, 3)).sum().backward()
    source.step()
    target.load_state_dict(source.state_dict())
    target.step()
    assert ("param_names" in source.param_groups[0]) == named[0]


@infos
def test_weights_only_save_and_load(info: OptimizerInfo, tmp_path: Path) -> None:
    optimizer, closure, _ = small_model(lambda ps: info.optim_cls(ps))
    optimizer.step(closure)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    torch.testing.assert_close(loaded["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


@infos
def test_param_groups_with_own_lr_and_decay(info: OptimizerInfo) -> None:
    for key, value in (("lr", 0.01), ("weight_decay", 0.5)):
        weight, bias = Parameter(torch.randn(4, 4)), Parameter(torch.randn(4))
        optimizer = info.optim_cls([{"params": [weight]}, {"params": [bias], key: value}], lr=1e-3)
        x = torch.randn(2, 4)
        losses = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = (x @ weight + bias).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
        assert [g[key] for g in optimizer.param_groups] != [value, value]


@infos
def test_works_under_a_float64_default_type(info: OptimizerInfo) -> None:
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        for flags in ({"foreach": False}, {"foreach": True}, {"fused": True}):
            p = Parameter(torch.randn(3))
            optimizer = info.optim_cls([p], **flags)
            p.grad = torch.randn(3)
            optimizer.step()
            assert optimizer.state[p]["step"] == 1
    finally:
        torch.set_default_dtype(before)


@infos
def test_fused_step_counts_survive_a_change_of_implementation(info: OptimizerInfo) -> None:
    p = Parameter(torch.randn(3))
    optimizer = info.optim_cls([p], foreach=False)
    p.grad = torch.randn(3)
    optimizer.step()
    optimizer.state[p]["step"] = optimizer.state[p]["step"].double()
    optimizer.param_groups[0].update(foreach=None, fused=True)
    optimizer.step()
    assert optimizer.state[p]["step"].item() == 2


def test_structure_is_that_of_the_built_ins() -> None:
    """step is wrapped as theirs is, so that tools which unwrap it find the plain function."""
    for info in INFOS:
        theirs, ours = SGD.step, info.optim_cls.step
        assert hasattr(theirs, "__wrapped__") == hasattr(ours, "__wrapped__")
    assert {i.name for i in optim_db}.isdisjoint(i.name for i in INFOS)


# ---- timm's ideas ----------------------------------------------------------------------------------------------------


@infos
@pytest.mark.parametrize("flags", [{"foreach": False}, {"foreach": True}, {"fused": True}], ids=str)
def test_rosenbrock(info: OptimizerInfo, flags: dict[str, bool]) -> None:
    def rosenbrock(t: Tensor) -> Tensor:
        x, y = t
        return (1 - x) ** 2 + 1 * (y - x**2) ** 2

    param = torch.tensor([1.5, 1.5], requires_grad=True)
    optimizer = info.optim_cls([param], lr=1e-3, **flags)
    solution = torch.tensor([1.0, 1.0])
    initial = param.detach().dist(solution)
    for step in range(2000):
        optimizer.zero_grad()
        rosenbrock(param).backward()
        # Cyclic coordinate descent, as in torch's and timm's test
        param.grad[step % 2] = 0
        optimizer.step()
    assert param.detach().dist(solution) < 0.6 * initial


@infos
def test_no_warnings(info: OptimizerInfo) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for case in all_inputs(info):
            optimizer, closure, _ = small_model(lambda ps, case=case: info.optim_cls(ps, **kwargs_of(case)))
            optimizer.step(closure)
