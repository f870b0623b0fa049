"""What a step refuses: in one line, the same for all implementations, with nothing changed."""

import copy
import math
import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from adarem import AdaRem, AdaRemS

FLAGS = {"single": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
implementations = pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)


def trained(flags: dict[str, bool], cls: type[AdaRem] = AdaRem, steps: int = 2) -> AdaRem:
    """Two groups after some steps; the fault is put into the second, so that the first shows whether it moved."""
    torch.manual_seed(0)
    groups: list[dict[str, Any]] = [
        {"params": [nn.Parameter(torch.randn(3, 2))]},
        {"params": [nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(4))]},
    ]
    if cls is AdaRemS:
        groups[1]["spherical"] = True
    optimizer = cls(groups, lr=0.1, **flags)
    for _ in range(steps):
        gradients(optimizer)
        optimizer.step()
    gradients(optimizer)
    return optimizer


def gradients(optimizer: AdaRem) -> None:
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.randn_like(p)


def refused(optimizer: AdaRem, error: type[Exception] | tuple[type[Exception], ...], match: str) -> None:
    """The step raises one line and changes neither parameters nor state."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    before = copy.deepcopy((params, optimizer.state_dict()["state"]))
    with pytest.raises(error, match=match or ".") as raised:
        optimizer.step()
    assert "\n" not in str(raised.value)
    after = (params, optimizer.state_dict()["state"])
    torch.testing.assert_close(after, before, rtol=0, atol=0, equal_nan=True)


def second(optimizer: AdaRem, index: int = 0) -> Tensor:
    p: Tensor = optimizer.param_groups[1]["params"][index]
    return p


def convert(optimizer: AdaRem) -> None:
    p = second(optimizer)
    p.data = p.data.double()
    p.grad = torch.randn_like(p)


def reshape(optimizer: AdaRem) -> None:
    p = second(optimizer)
    p.data = torch.randn(3, 4)
    p.grad = torch.randn(3, 4)


def swap(optimizer: AdaRem) -> None:
    state = optimizer.state
    state[second(optimizer, 0)], state[second(optimizer, 1)] = state[second(optimizer, 1)], state[second(optimizer, 0)]


def swap_gradient_data(optimizer: AdaRem) -> None:
    grad = second(optimizer).grad
    assert grad is not None
    grad.data = torch.randn(1)


def gradient_is_parameter(optimizer: AdaRem) -> None:
    second(optimizer).grad = second(optimizer).detach()


def share(optimizer: AdaRem) -> None:
    a, b = second(optimizer, 0), second(optimizer, 1)
    b.data = a.data.view(-1)[2:6]


def expand(optimizer: AdaRem) -> None:
    second(optimizer, 1).data = torch.randn(1).expand(4)


def free(optimizer: AdaRem) -> None:
    optimizer.state[second(optimizer)]["exp_avg"].untyped_storage().resize_(4)


def entry(key: str, value: Tensor) -> Callable[[AdaRem], None]:
    def change(optimizer: AdaRem) -> None:
        optimizer.state[second(optimizer)][key] = value.clone()

    return change


def inference(*shape: int) -> Tensor:
    with torch.inference_mode():
        return torch.zeros(shape)


FAULTS: dict[str, tuple[Callable[[AdaRem], None], str]] = {
    "converted parameter": (convert, r"call optimizer.load_state_dict\(optimizer.state_dict\(\)\)"),
    "reshaped parameter": (
        reshape,
        r"exp_avg of parameter 0 of the group has shape \(4, 3\), where \(3, 4\) is needed",
    ),
    "states in another order": (swap, r"exp_avg of parameter 0 of the group has shape \(4,\)"),
    "gradient of another shape": (
        swap_gradient_data,
        r"the gradient of parameter 0 of the group is .* of shape \(1,\)",
    ),
    "gradient that is the parameter": (gradient_is_parameter, "share memory"),
    "parameters that overlap": (share, "parameter [01] of the group and parameter [01] of the group share memory"),
    "expanded parameter": (expand, "more than one element of parameter 1 of the group refers to a single memory"),
    "m of another type": (entry("exp_avg", torch.zeros(4, 3).double()), "exp_avg of parameter 0 .* is torch.float64"),
    "maximum of another type": (entry("exp_avg_max", torch.tensor(1, dtype=torch.int32)), "exp_avg_max .*torch.int32"),
    "maximum with dimensions": (entry("exp_avg_max", torch.ones(1)), r"exp_avg_max .* has shape \(1,\)"),
    "step with dimensions": (entry("step", torch.ones(2)), r"step of parameter 0 of the group has shape \(2,\)"),
    "step that is none": (lambda o: o.state[second(o)].update(step=None), "step of parameter 0 of the group is None"),
    "sparse step": (entry("step", torch.ones(()).to_sparse()), "step of parameter 0 .* is torch.sparse_coo"),
    "m of an inference": (
        lambda o: o.state[second(o)].update(exp_avg=inference(4, 3)),
        "exp_avg of parameter 0 of the group is an inference tensor",
    ),
    "sparse m": (entry("exp_avg", torch.zeros(4, 3).to_sparse()), "exp_avg of parameter 0 .* is torch.sparse_coo"),
}


@implementations
@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_tensors_are_refused(flags: dict[str, bool], fault: str) -> None:
    change, message = FAULTS[fault]
    optimizer = trained(flags)
    change(optimizer)
    with pytest.raises(RuntimeError, match=message) as raised:
        optimizer.step()
    assert "\n" not in str(raised.value)
    first = optimizer.param_groups[0]["params"][0]
    assert optimizer.state[first]["step"] == 2  # the group before it has not moved


@implementations
def test_freed_memory_is_refused(flags: dict[str, bool]) -> None:
    optimizer = trained(flags)
    free(optimizer)
    with pytest.raises(RuntimeError, match="exp_avg of parameter 0 of the group has no memory of its own, or less"):
        optimizer.step()
    assert optimizer.state[optimizer.param_groups[0]["params"][0]]["step"] == 2


@implementations
@pytest.mark.parametrize("key", ["alpha", "radius"])
def test_faulty_spheres_are_refused(flags: dict[str, bool], key: str) -> None:
    optimizer = trained(flags, AdaRemS)
    optimizer.state[second(optimizer)][key] = torch.ones(())
    refused(optimizer, RuntimeError, f"{key} of parameter 0 of the group is torch.float32")


@implementations
@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("decay_every", value) for value in (0, -1, 2.5, True, math.nan, 2**64)),
        *(("beta", value) for value in (-0.1, 1.5, math.nan)),
        *(("lam", value) for value in (-0.1, 1.5, math.nan)),
        *((key, value) for key in ("lr", "weight_decay", "eps") for value in (-1.0, math.inf, math.nan)),
        ("lr", torch.tensor(-1.0)),
        ("lr", torch.ones(2)),
        ("scope", "everything"),
    ],
)
def test_settings_changed_later_are_refused_as_at_construction(flags: dict[str, bool], key: str, value: Any) -> None:
    optimizer = trained(flags)
    with pytest.raises(ValueError) as expected:
        AdaRem([torch.ones(1, requires_grad=True)], **{key: value})
    optimizer.param_groups[1][key] = value
    refused(optimizer, ValueError, "")
    with pytest.raises(ValueError) as raised:
        optimizer.step()
    assert str(raised.value) == str(expected.value)


@implementations
def test_groups_put_in_by_hand_lack_settings(flags: dict[str, bool]) -> None:
    optimizer = trained(flags)
    optimizer.param_groups.append({"params": [nn.Parameter(torch.ones(2))], "lr": 0.1})
    with pytest.raises(ValueError, match="a param group has no beta, .*: add groups by add_param_group"):
        optimizer.step()


@implementations
def test_no_state_is_made_for_a_step_that_is_refused(flags: dict[str, bool]) -> None:
    optimizer = trained(flags, steps=0)
    swap_gradient_data(optimizer)
    refused(optimizer, RuntimeError, "the gradient of parameter 0 of the group")
    assert not optimizer.state


@implementations
def test_the_remedy_for_converted_parameters_works(flags: dict[str, bool]) -> None:
    optimizer = trained(flags)
    convert(optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert optimizer.state[second(optimizer)]["exp_avg"].dtype == torch.float64


@implementations
def test_parts_of_one_matrix_are_parameters_of_their_own(flags: dict[str, bool]) -> None:
    """Their pieces of memory overlap, and no element is in two of them."""
    torch.manual_seed(0)
    matrix = torch.randn(5, 7)
    columns = [matrix[:, :3].requires_grad_(), matrix[:, 3:].requires_grad_()]
    alone = [p.detach().clone().requires_grad_() for p in columns]
    for params, kwargs in ((columns, flags), (alone, {"foreach": False})):
        draw = torch.Generator().manual_seed(1)
        optimizer = AdaRem(params, lr=0.1, **kwargs)
        for _ in range(3):
            for p in params:
                p.grad = torch.randn(p.shape, generator=draw)
            optimizer.step()
    torch.testing.assert_close(columns, alone)


@implementations
@pytest.mark.parametrize("step", [2, torch.tensor(2), torch.tensor(2.0, dtype=torch.float64)], ids=repr)
def test_counts_of_any_type_go_on(flags: dict[str, bool], step: Any) -> None:
    optimizer = trained(flags)
    optimizer.state[second(optimizer)]["step"] = copy.deepcopy(step)
    optimizer.step()
    assert optimizer.state[second(optimizer)]["step"] == 3


@implementations
def test_counts_that_are_none_are_refused(flags: dict[str, bool]) -> None:
    for value in (math.nan, -1.0, math.inf, 2.0**70):
        optimizer = trained(flags)
        optimizer.state[second(optimizer, 1)]["step"].fill_(value)
        with pytest.raises(ValueError, match=re.escape(f"Invalid step value: {value}")):
            optimizer.step()


@implementations
def test_offsets_that_are_none_are_refused(flags: dict[str, bool]) -> None:
    for value in (math.nan, math.inf, -(2.0**70)):
        optimizer = trained(flags)
        optimizer.state[second(optimizer, 1)]["decay_offset"].fill_(value)
        refused(optimizer, ValueError, f"decay_offset( value)?: {re.escape(str(value))}")


@implementations
@pytest.mark.parametrize("steps", [1, 5])  # before and after the last check is remembered
def test_a_negative_power_of_lam_is_refused(flags: dict[str, bool], steps: int) -> None:
    """As after a reset of ``step`` alone, where ``decay_every`` had changed."""
    optimizer = trained(flags, steps=steps)
    optimizer.param_groups[1].update(lam=0.0, decay_every=2, counted_every=2)
    optimizer.state[second(optimizer, 1)]["decay_offset"].fill_(-(steps // 2))
    optimizer.step()
    optimizer.state[second(optimizer, 1)]["decay_offset"].fill_(-20.0)
    refused(optimizer, ValueError, f"Invalid step value: {steps + 1}.0, or decay_offset: -20.0")


@implementations
def test_a_wrong_maximum_is_refused_before_state_is_made(flags: dict[str, bool]) -> None:
    """Of a parameter without a gradient: no step looks at the rest of its state."""
    optimizer = trained(flags, steps=0)
    for group in optimizer.param_groups:
        group["scope"] = "model"
    second(optimizer).grad = None
    optimizer.step()
    optimizer.state[second(optimizer, 1)]["exp_avg_max"] = torch.zeros(1)
    second(optimizer, 1).grad, second(optimizer).grad = None, torch.ones(4, 3)
    refused(optimizer, RuntimeError, "exp_avg_max of a parameter is no 0-dim Tensor")
    assert second(optimizer) not in optimizer.state


@implementations
@pytest.mark.parametrize("cls", [AdaRem, AdaRemS])
@pytest.mark.parametrize("steps", [0, 4])
def test_parameters_with_values_are_not_stepped_in_a_fake_mode(
    steps: int, cls: type[AdaRem], flags: dict[str, bool]
) -> None:
    optimizer = trained(flags, cls, steps)
    with FakeTensorMode(), pytest.raises(RuntimeError, match="step outside of it") as raised:
        optimizer.step()
    assert "\n" not in str(raised.value)
    train = trained(flags, cls, steps)  # nothing has changed
    optimizer.step()
    train.step()
    torch.testing.assert_close(second(optimizer), second(train), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("flags", "inside", "outside"),
    [
        ({"foreach": False}, "", "FakeTensor params have no values: step in their FakeTensorMode"),
        ({"foreach": True}, "`foreach=True` reads values, .*: use foreach=False", "FakeTensor params have no values"),
        (
            {"fused": True},
            "`fused=True` does not support FakeTensor params: use foreach=False",
            "`fused=True` does not",
        ),
    ],
    ids=FLAGS,
)
def test_fake_tensors_are_stepped_in_their_mode_or_refused(flags: dict[str, bool], inside: str, outside: str) -> None:
    mode = FakeTensorMode()
    p = nn.Parameter(mode.from_tensor(torch.ones(3)))
    optimizer = AdaRem([p], **flags)
    p.grad = mode.from_tensor(torch.ones(3))
    for place, message in ((mode, inside), (nullcontext(), outside)):
        for _ in range(4):
            with place, pytest.raises(RuntimeError, match=message) if message else nullcontext():
                optimizer.step()
    with pytest.raises(RuntimeError, match="FakeTensor params do not have the norms of a sphere"):
        AdaRemS([{"params": [p], "spherical": True}], **flags)


@implementations
@pytest.mark.parametrize("key", ["lr", "weight_decay"])
@pytest.mark.parametrize("steps", [0, 4])
def test_rates_beyond_the_range_of_a_type_are_refused(steps: int, key: str, flags: dict[str, bool]) -> None:
    optimizer = trained(flags, steps=steps)
    optimizer.param_groups[1][key] = 1e300
    refused(optimizer, RuntimeError, rf"{key} of 1e\+300 is beyond the range of torch.float32: give a smaller one")
    p = nn.Parameter(torch.ones(3).double())
    p.grad = torch.ones(3).double()
    AdaRem([p], **{key: 1e300}, **flags).step()
    assert p.isfinite().all() and (p < -1e295).all()


# ---- fused alone -----------------------------------------------------------------------------------------------------


def test_fused_refuses_gradients_of_another_type() -> None:
    optimizer = trained(FLAGS["fused"])
    grad = second(optimizer).grad
    assert grad is not None
    grad.data = grad.data.double()
    refused(optimizer, RuntimeError, "gradient .* is torch.float64, but the parameter is torch.float32: use foreach")


@pytest.mark.parametrize(
    ("name", "value"), [("grad_scale", torch.ones(2)), ("found_inf", torch.tensor(1)), ("grad_scale", 2.0)], ids=str
)
def test_fused_refuses_odd_scales(name: str, value: Any) -> None:
    optimizer = trained(FLAGS["fused"])
    setattr(optimizer, name, value)
    refused(optimizer, RuntimeError, f"`{name}` must be a 1-element floating point Tensor")


def test_scale_of_zero_scales() -> None:
    optimizer = trained(FLAGS["fused"])
    optimizer.grad_scale, optimizer.found_inf = torch.zeros(()), torch.zeros(())  # type: ignore[attr-defined]
    optimizer.step()
    assert not second(optimizer).isfinite().any()


def test_expanded_gradients_are_unscaled_or_refused_before_the_step() -> None:
    optimizer = trained(FLAGS["fused"])
    second(optimizer).grad = torch.ones(1).expand(4, 3)
    optimizer.grad_scale, optimizer.found_inf = torch.full((), 2.0), torch.zeros(())  # type: ignore[attr-defined]
    refused(optimizer, RuntimeError, "more than one element of the gradient of parameter 0")


def test_negated_views_are_read_as_what_they_are() -> None:
    results = []
    for flags in FLAGS.values():
        optimizer = trained(flags)
        values = torch.arange(12.0).view(4, 3)
        second(optimizer).grad = torch._neg_view(values)
        optimizer.step()
        results.append(second(optimizer).detach().clone())
    torch.testing.assert_close(results[1:], [results[0]] * 2)
