"""A step that remembers the last check does what one does that looks at everything, whatever has happened between."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adarem import AdaRem, AdaRemS

FLAGS = {"single": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
implementations = pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
Event = Callable[[AdaRem], object]


def built(flags: dict[str, bool], cls: type[AdaRem] = AdaRem) -> AdaRem:
    torch.manual_seed(0)
    groups: list[dict[str, Any]] = [
        {"params": [nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(60))]},
        {"params": [nn.Parameter(torch.randn(3, 2))]},
    ]
    if cls is AdaRemS:
        groups[0]["spherical"] = True
    return cls(groups, lr=0.1, decay_every=2, lam=0.5, **flags)


def params_of(optimizer: AdaRem) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def train(optimizer: AdaRem, steps: int) -> None:
    for _ in range(steps):
        for p in params_of(optimizer):
            p.grad = torch.randn_like(p)
        optimizer.step()


def knows(optimizer: AdaRem) -> list[bool]:
    return [last.is_known for last in optimizer._last_checks]


def p(optimizer: AdaRem, index: int = 0) -> Tensor:
    found: Tensor = optimizer.param_groups[0]["params"][index]
    return found


def of(optimizer: AdaRem, key: str, index: int = 0) -> Tensor:
    found: Tensor = optimizer.state[p(optimizer, index)][key]
    return found


def grad(optimizer: AdaRem, index: int = 0) -> Tensor:
    found = p(optimizer, index).grad
    assert found is not None
    return found


def replace(key: str, new: Callable[[Tensor], Any], index: int = 0) -> Event:
    def event(optimizer: AdaRem) -> None:
        optimizer.state[p(optimizer, index)][key] = new(of(optimizer, key, index))

    return event


def set_data(where: Callable[[AdaRem], Tensor], new: Callable[[Tensor], Tensor]) -> Event:
    def event(optimizer: AdaRem) -> None:
        x = where(optimizer)
        x.data = new(x.data)

    return event


def give_grad(new: Callable[[AdaRem], Tensor | None]) -> Event:
    def event(optimizer: AdaRem) -> None:
        p(optimizer).grad = new(optimizer)

    return event


def shrink(x: Tensor, *nbytes: int) -> None:
    for n in nbytes:
        x.untyped_storage().resize_(n)


def convert(optimizer: AdaRem) -> None:
    for x in params_of(optimizer):
        x.data, x.grad = x.data.double(), None
        x.grad = torch.randn_like(x)


def reload(optimizer: AdaRem) -> None:
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def add_group(optimizer: AdaRem) -> None:
    new = nn.Parameter(torch.randn(5))
    new.grad = torch.ones(5)
    optimizer.add_param_group({"params": [new]})


def none_then_back(optimizer: AdaRem) -> None:
    p(optimizer).grad = None
    optimizer.step()
    p(optimizer).grad = torch.ones(4, 4)


def exchange(optimizer: AdaRem) -> None:
    state = optimizer.state
    state[p(optimizer)], state[p(optimizer, 1)] = state[p(optimizer, 1)], state[p(optimizer)]


def in_inference() -> Tensor:
    with torch.inference_mode():
        return torch.zeros(4, 4)


def settings(**changed: Any) -> Event:
    return lambda optimizer: optimizer.param_groups[0].update(changed)


def nested(_: Tensor) -> Tensor:
    return torch.nested.nested_tensor([torch.zeros(4), torch.zeros(4)])


EVENTS: dict[str, Event] = {
    "nothing": lambda o: None,
    "data swapped": set_data(p, torch.clone),
    "data that another parameter has": lambda o: setattr(p(o), "data", p(o, 1).data),
    "data of another shape": set_data(p, lambda x: x.view(2, 8)),
    "data of another stride": set_data(p, torch.t),
    "data of another type": set_data(p, torch.Tensor.double),
    "m read as another type": set_data(lambda o: of(o, "exp_avg"), lambda x: x.view(torch.int32)),
    "data expanded": set_data(p, lambda x: x[:1].expand(4, 4)),
    "all converted": convert,
    "a module converted": lambda o: nn.ParameterList(params_of(o)).double(),
    "set_ to other memory": lambda o: p(o).data.set_(torch.randn(4, 4)),
    "m set_ to other memory": lambda o: of(o, "exp_avg").set_(torch.randn(4, 4)),
    "m set_ to the parameter's memory": lambda o: of(o, "exp_avg").set_(p(o).detach()),
    "m resized": lambda o: of(o, "exp_avg").resize_(2, 2),
    "m resized in one dimension": lambda o: of(o, "exp_avg").resize_(16),
    "m transposed in place": lambda o: of(o, "exp_avg").t_(),
    "a count unsqueezed in place": lambda o: of(o, "step").unsqueeze_(0),
    "a count read as another type": set_data(lambda o: of(o, "step"), lambda x: x.view(torch.int32)),
    "m of another type": replace("exp_avg", torch.Tensor.double),
    "m replaced": replace("exp_avg", torch.zeros_like),
    "m of another parameter": lambda o: o.state[p(o)].update(exp_avg=of(o, "exp_avg", 1)),
    "m sparse": replace("exp_avg", torch.Tensor.to_sparse),
    "m nested": replace("exp_avg", nested),
    "m on meta": replace("exp_avg", lambda x: x.to("meta")),
    "m negated": replace("exp_avg", lambda x: torch._neg_view(x.clone())),
    "m of an inference": replace("exp_avg", lambda _: in_inference()),
    "m in shared memory": lambda o: of(o, "exp_avg").share_memory_(),
    "m freed": lambda o: shrink(of(o, "exp_avg"), 0),
    "m shrunk": lambda o: shrink(of(o, "exp_avg"), 4),
    "m freed and given less": lambda o: shrink(of(o, "exp_avg", 2), 0, 200),
    "parameter freed": lambda o: shrink(p(o).data, 0),
    "parameter freed and given back": lambda o: (shrink(p(o).data, 0, 64), p(o).data.zero_()),
    "maximum replaced": replace("exp_avg_max", torch.clone),
    "maximum of another type": replace("exp_avg_max", torch.Tensor.double),
    "maximum set_ to a part of m": lambda o: of(o, "exp_avg_max").set_(of(o, "exp_avg")[0, 0]),
    "maximum with a dimension": replace("exp_avg_max", lambda x: x.reshape(1)),
    "maximum freed": lambda o: shrink(of(o, "exp_avg_max"), 0),
    "count replaced": replace("step", torch.clone),
    "count of another parameter": lambda o: o.state[p(o)].update(step=of(o, "step", 1)),
    "count that is an integer": replace("step", torch.Tensor.long),
    "count that is a number": replace("step", float),
    "count that is none": replace("step", lambda _: None),
    "count that is nested": replace("step", nested),
    "count of NaN": lambda o: of(o, "step", 1).fill_(torch.nan),
    "offset of NaN": lambda o: of(o, "decay_offset", 1).fill_(torch.nan),
    "count too large": lambda o: of(o, "step", 1).fill_(2.0**70),
    "states exchanged": exchange,
    "state taken away": lambda o: o.state.pop(p(o)),
    "a part of a state taken away": lambda o: o.state[p(o)].pop("exp_avg"),
    "all state taken away": lambda o: o.state.clear(),
    "state loaded": reload,
    "group added": add_group,
    "group taken away": lambda o: o.param_groups.pop(),
    "parameter added by hand": lambda o: o.param_groups[0]["params"].append(o.param_groups[1]["params"].pop()),
    "gradient none": give_grad(lambda o: None),
    "gradient none, then back": none_then_back,
    "gradient elsewhere": give_grad(lambda o: grad(o).clone()),
    "gradient of another type": lambda o: setattr(grad(o), "data", grad(o).double()),
    "gradient of another shape": lambda o: setattr(grad(o), "data", torch.ones(1)),
    "gradient transposed": give_grad(lambda o: grad(o).t()),
    "gradient expanded": give_grad(lambda o: torch.ones(1).expand(4, 4)),
    "gradient negated": give_grad(lambda o: torch._neg_view(grad(o).clone())),
    "gradient sparse": give_grad(lambda o: grad(o).to_sparse()),
    "gradient that is the parameter": give_grad(lambda o: p(o).detach()),
    "gradient that is m": give_grad(lambda o: of(o, "exp_avg")),
    "gradient that is a view of m": give_grad(lambda o: of(o, "exp_avg").view(4, 4)),
    "gradient that is another parameter's m": give_grad(lambda o: of(o, "exp_avg", 1).detach()),
    "gradient that two share": give_grad(lambda o: grad(o, 1)),
    "gradient freed": lambda o: shrink(grad(o), 0),
    "gradient shrunk": lambda o: shrink(grad(o, 2), 100),
    "gradient in an offset": give_grad(lambda o: torch.ones(20)[4:].view(4, 4)),
    "gradient in an offset of a storage too short": lambda o: (
        give_grad(lambda o: torch.ones(20)[4:].view(4, 4))(o),
        shrink(grad(o), 64),
    ),
    "not trained any more": lambda o: p(o).requires_grad_(False),
    "implementation switched": settings(foreach=True, fused=None),
    "scope switched": settings(scope="model"),
    "decay_every changed": settings(decay_every=3),
    "maximize": settings(maximize=True),
    "learning rate beyond 32 bits": settings(lr=1e300),
}


def outcome(optimizer: AdaRem, event: Event, forget: bool) -> tuple[str, Any]:
    """The line that a step after the event raises, or nothing; parameters and state after two more."""
    line = ""
    torch.manual_seed(1)
    for x in params_of(optimizer):
        x.grad = torch.randn_like(x)
    event(optimizer)
    if forget:
        optimizer._last_checks = ()
    try:
        optimizer.step()
        if forget:
            optimizer._last_checks = ()
        optimizer.step()
    except (RuntimeError, ValueError, TypeError) as e:
        assert "\n" not in str(e)
        line = f"{type(e).__name__}: {e}"
        return line, None
    return "", [
        (x.detach().clone(), {k: v.clone() for k, v in optimizer.state.get(x, {}).items()})
        for x in params_of(optimizer)
    ]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@implementations
@pytest.mark.parametrize("cls", [AdaRem, AdaRemS])
@pytest.mark.parametrize("event", EVENTS)
def test_what_is_remembered_is_what_a_look_finds(event: str, cls: type[AdaRem], flags: dict[str, bool]) -> None:
    results = []
    for forget in (False, True):
        optimizer = built(flags, cls)
        train(optimizer, 4)
        assert knows(optimizer) == [True, True]
        results.append(outcome(optimizer, EVENTS[event], forget))
    (line, values), (expected, expected_values) = results
    assert line == expected
    torch.testing.assert_close(values, expected_values, rtol=0, atol=0, equal_nan=True)


@implementations
def test_the_usual_step_is_not_looked_at_again(flags: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """With gradients elsewhere at each step, another learning rate, and counts that go on."""
    optimizer = built(flags, AdaRemS)
    train(optimizer, 3)

    def look(*_: Any) -> None:
        raise AssertionError("looked at again")

    monkeypatch.setattr("adarem.optim.check._look", look)
    held = []
    for _ in range(3):
        for x in params_of(optimizer):
            held.append(x.grad)
            x.grad = torch.randn_like(x)
        optimizer.param_groups[0]["lr"] *= 0.5
        optimizer.step()
    assert all(of(optimizer, "step", i) == 6 for i in range(3))


def test_memory_that_was_given_up_is_not_kept() -> None:
    """A state that is moved away, as for offloading, is freed, though a step remembers its check."""
    import weakref

    optimizer = built(FLAGS["fused"])
    train(optimizer, 4)
    gone = [weakref.ref(x) for x in (of(optimizer, "exp_avg"), grad(optimizer))]
    optimizer.state[p(optimizer)]["exp_avg"] = of(optimizer, "exp_avg").clone()
    optimizer.zero_grad()
    assert [ref() for ref in gone] == [None, None]


@implementations
def test_less_memory_at_the_same_address_is_noticed(flags: dict[str, bool]) -> None:
    n = 100_000
    x = nn.Parameter(torch.randn(n))
    optimizer = AdaRem([x], lr=0.1, **flags)
    train(optimizer, 4)
    x.grad = torch.ones(n)
    m: Tensor = optimizer.state[x]["exp_avg"]
    shrink(m, 0, 2 * n)
    with pytest.raises(RuntimeError, match="exp_avg of parameter 0 of the group has no memory of its own, or less"):
        optimizer.step()


@pytest.mark.parametrize("cls", [AdaRem, AdaRemS])
def test_a_copy_of_an_optimizer_begins_anew(cls: type[AdaRem]) -> None:
    optimizer = built(FLAGS["fused"], cls)
    train(optimizer, 4)
    assert copy.deepcopy(optimizer)._last_checks == ()
    assert "_last_checks" not in optimizer.__getstate__()


def test_scaled_gradients_do_not_share() -> None:
    """A scaler's step writes them, so that what a plain step takes is refused."""
    optimizer = built(FLAGS["fused"])
    train(optimizer, 4)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0), torch.tensor(0.0)  # type: ignore[attr-defined]
    train(optimizer, 4)
    assert knows(optimizer) == [True, True]
    p(optimizer).grad = grad(optimizer, 1).view(4, 4)
    with pytest.raises(RuntimeError, match="share memory"):
        optimizer.step()


def test_layouts_that_are_alike_are_recalled_too() -> None:
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last))
    alone = w.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    for x in (w, alone):
        torch.manual_seed(1)
        optimizer = AdaRem([x], lr=0.1, fused=True)
        train_like(optimizer, x)
        assert knows(optimizer) == [True]
    torch.testing.assert_close(w, alone, rtol=0, atol=0)


def train_like(optimizer: AdaRem, x: Tensor) -> None:
    for _ in range(5):
        x.grad = torch.randn(x.shape).to(memory_format=torch.preserve_format)
        x.grad = x.grad.contiguous(memory_format=torch.contiguous_format if x.is_contiguous() else torch.channels_last)
        optimizer.step()
