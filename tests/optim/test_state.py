"""Settings as numpy's numbers, λ's count, and state dicts: what loads, and what is refused with nothing changed."""

import copy
import inspect
import io
import math
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.optim import lr_scheduler as schedules
from torch.optim.swa_utils import SWALR, AveragedModel

from adarem import AdaRem, AdaRemS
from adarem.optim import reference
from tests.optim.test_adarem_torch import assert_same, both, build, implementations, parameters, train

StateDict = dict[str, Any]


def saved_and_loaded(state_dict: StateDict) -> StateDict:
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    loaded: StateDict = torch.load(file, weights_only=True)
    return loaded


# ---- settings --------------------------------------------------------------------------------------------------------

NUMPY = {
    "lr": np.float32(0.125), "beta": np.float64(0.5), "lam": np.array(0.5), "decay_every": np.int64(2),
    "weight_decay": np.array(0.25, dtype=np.float32), "eps": np.float16(0.5), "maximize": np.bool_(True),
    "scope": np.str_("model"),
}  # fmt: skip
ON_SPHERE = {"radius": np.float64(2.0), "slr": np.bool_(True), "sphere": np.str_("tensor")}


@both
@implementations
def test_numpys_numbers_are_pythons(cls: type[AdaRem], flags: dict[str, bool]) -> None:
    numbers = {**NUMPY, **(ON_SPHERE if cls is AdaRemS else {})}
    plain = {key: value.item() for key, value in numbers.items()}
    reference = build(cls, flags, **plain)
    at_once = build(cls, flags, **numbers)
    in_groups = build(cls, flags, **{k: v for k, v in plain.items() if k in ON_SPHERE})
    later = build(cls, flags, **{k: v for k, v in plain.items() if k in ON_SPHERE})
    late = {"params": [torch.ones(3, requires_grad=True)], "weight_decay": 0.0, **plain}
    for group in later.param_groups:
        group.update(numbers | {"weight_decay": group["weight_decay"] and numbers["weight_decay"]})
    for group in in_groups.param_groups:
        group.update(plain | {"weight_decay": group["weight_decay"] and plain["weight_decay"]})
    for optimizer in (reference, at_once, in_groups, later):
        values = {**plain, **(numbers if optimizer is in_groups else {})}
        late = torch.ones(3, requires_grad=True)
        optimizer.add_param_group({"params": [late], **values, "weight_decay": np.float64(0)})
    for optimizer in (at_once, in_groups, later):
        saved_and_loaded(optimizer.state_dict())  # before a step too
        train(optimizer, 5)
    train(reference, 5)
    for optimizer in (at_once, in_groups, later):
        assert_same(reference, optimizer)
        for group in saved_and_loaded(optimizer.state_dict())["param_groups"]:
            assert all(type(v) in (float, int, bool, str, list, type(None)) for v in group.values()), group


def test_a_schedule_in_numpy_leaves_the_state_loadable() -> None:
    optimizer = build(AdaRem)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: np.cos(epoch / 10))
    train(optimizer, 1)
    scheduler.step()
    assert isinstance(optimizer.param_groups[0]["lr"], np.floating)
    saved_and_loaded(optimizer.state_dict())


@pytest.mark.parametrize("value", ["0.1", [0.1], np.array([0.1]), None, True])
@pytest.mark.parametrize("key", ["lr", "beta", "lam", "eps", "weight_decay"])
def test_what_is_no_number_is_refused(key: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"{key} must be a float, but got"):
        AdaRem([torch.ones(1, requires_grad=True)], **{key: value})


@pytest.mark.parametrize("lr", [torch.tensor(1j), torch.tensor([0.1]).to_sparse()])
def test_a_rate_that_is_no_real_tensor_is_refused(lr: Tensor) -> None:
    with pytest.raises(TypeError, match="Tensor lr must be real and dense") as raised:
        AdaRem([torch.ones(1, requires_grad=True)], lr=lr)
    assert "\n" not in str(raised.value)


# ---- the defaults of λ -----------------------------------------------------------------------------------------------


@both
def test_b_keeps_its_weight_by_default(cls: type[AdaRem]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = build(cls)
        build(cls, lam=0.0)
        build(cls, lam=0.999, decay_every=1)
    assert {(g["lam"], g["decay_every"]) for g in optimizer.param_groups} == {(1.0, 1)}


@both
@pytest.mark.parametrize("lam, steps", [(0.999, "693 steps"), (0.9, "7 steps"), (0.5, "1 step;"), (0.01, "1 step;")])
def test_lam_at_every_step_warns_once(cls: type[AdaRem], lam: float, steps: str) -> None:
    with pytest.warns(UserWarning, match="without decay_every") as caught:
        optimizer = build(cls, lam=lam)
    (warning,) = caught
    assert warning.filename == inspect.getfile(build)  # the line that builds, not one of torch or of the optimizer
    text = str(warning.message)
    assert text.startswith(f"lam={lam} without decay_every: multiplied at every step") and f" after {steps}" in text
    assert "\n" not in text and "decay_every=1 as in Algorithm 1" in text
    assert [g["decay_every"] for g in optimizer.param_groups] == [1, 1]


def test_a_groups_own_decay_counts_as_given() -> None:
    a, b, c = (torch.ones(1, requires_grad=True) for _ in range(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AdaRem([{"params": [a], "decay_every": 5}], lam=0.9)
        optimizer = AdaRem([{"params": [a], "decay_every": None}, {"params": [b], "lam": 0.9}], decay_every=4)
    assert [g["decay_every"] for g in optimizer.param_groups] == [4, 4]
    optimizer = AdaRem([a])
    with pytest.warns(UserWarning, match="lam=0.9 without decay_every"):
        optimizer.add_param_group({"params": [c], "lam": 0.9})


# ---- λ's count -------------------------------------------------------------------------------------------------------


def weight_of_b(optimizer: AdaRem, i: int) -> float:
    """λ's power in the next step, seen from outside: a gradient that equals m moves p by lr (1 + λᵏ) g."""
    twin = copy.deepcopy(optimizer)
    q = parameters(twin)[i]
    for other in parameters(twin):
        other.grad = None
    state = twin.state[q]
    state["exp_avg"].fill_(1.0)
    state["exp_avg_max"].fill_(1.0)
    q.grad = torch.ones_like(q)
    for group in twin.param_groups:
        group.update(lr=1.0, weight_decay=0.0, **({"spherical": False} if "spherical" in group else {}))
    before = q.detach().clone()
    twin.step()
    return (before - q.detach()).flatten()[0].item() - 1


@both
@implementations
def test_changing_decay_every_keeps_the_count(cls: type[AdaRem], flags: dict[str, bool]) -> None:
    optimizer = build(cls, flags, torch.float64, lam=0.5, decay_every=2)
    late = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    train(optimizer, 5)
    optimizer.add_param_group({"params": [late]})
    train(optimizer, 2)  # early 7 steps, late 2
    expected = {0: 3, -1: 1}

    def check(o: AdaRem) -> None:
        for i, k in expected.items():
            assert weight_of_b(o, i) == pytest.approx(0.5**k, abs=1e-12), k

    check(optimizer)
    for every in (100, 1, 3, 100):
        for group in optimizer.param_groups:
            group["decay_every"] = every
        check(optimizer)  # nothing jumps
    loaded = copy.deepcopy(optimizer)
    loaded.load_state_dict(saved_and_loaded(optimizer.state_dict()))  # saved between the change and a step
    check(loaded)
    for group in optimizer.param_groups:
        group["decay_every"] = 4
    train(optimizer, 2)  # 9 and 4 steps: each has passed a multiple of 4
    expected = {0: 4, -1: 2}
    check(optimizer)
    fresh = build(cls, flags, torch.float64)
    fresh.add_param_group({"params": [torch.zeros_like(late).requires_grad_()]})
    fresh.load_state_dict(saved_and_loaded(optimizer.state_dict()))
    for p, q in zip(parameters(optimizer), parameters(fresh), strict=True):
        q.data.copy_(p)
    assert_same(optimizer, fresh)
    assert_same(optimizer, pickle.loads(pickle.dumps(optimizer)))
    train(optimizer, 9, seed=4)
    train(fresh, 9, seed=4)
    assert_same(optimizer, fresh)


@both
@implementations
def test_changed_decay_follows_the_reference(cls: type[AdaRem], flags: dict[str, bool]) -> None:
    ours = build(cls, flags, torch.float64, lam=0.5, decay_every=3)
    others = build(cls, flags, torch.float64)
    exact_cls = reference.AdaRemS if cls is AdaRemS else reference.AdaRem
    keys = ("params", "weight_decay", *(["spherical"] if cls is AdaRemS else []))
    groups = [{k: g[k] for k in keys} for g in others.param_groups]
    exact = exact_cls(groups, lr=0.1, lam=0.5, decay_every=3)
    for step in range(40):
        for optimizer in (ours, exact):
            for group in optimizer.param_groups:
                group["decay_every"] = (3, 7, 2, 5)[step // 10]
            train(optimizer, 1, seed=step)  # type: ignore[arg-type]
    for p, q in zip(parameters(ours), parameters(others), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-12)


@both
@pytest.mark.slow
@pytest.mark.parametrize("foreach", [False, True])
def test_changed_decay_in_graphs(cls: type[AdaRem], foreach: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch.compile and CUDA graphs compute: the counts stay tensors."""
    monkeypatch.setattr("adarem.optim.compat.check_capturable", lambda *a: None)
    settings = {"lam": 0.5, "decay_every": 3, "foreach": foreach}
    eager, graph = build(cls, **settings), build(cls, **settings, capturable=True)
    compiled = build(cls, **settings, lr=torch.tensor(0.1))
    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "step", torch.compile(compiled.step, backend="eager"))
    for every in (3, 7, 2):
        for optimizer in (eager, graph, compiled):
            for group in optimizer.param_groups:
                group["decay_every"] = every
            train(optimizer, 5, seed=every)
    for p, *others in zip(*map(parameters, (eager, graph, compiled)), strict=True):
        for q in others:
            torch.testing.assert_close(p, q)


# ---- state dicts that are refused ------------------------------------------------------------------------------------


def foreign(make: Callable[[list[Tensor]], torch.optim.Optimizer]) -> StateDict:
    """After a step on parameters as ``build`` makes them, in the same groups."""
    params = parameters(build(AdaRem))
    optimizer = make(params)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    return optimizer.state_dict()


def groups_of(params: list[Tensor]) -> list[dict[str, Any]]:
    return [{"params": params[:2]}, {"params": params[2:]}]


def good() -> StateDict:
    optimizer = build(AdaRem)
    train(optimizer, 1)
    return copy.deepcopy(optimizer.state_dict())


def changed(change: Callable[[StateDict], object]) -> StateDict:
    state_dict = good()
    change(state_dict)
    return state_dict


class AsAdaRem(torch.optim.Adam):
    """Another optimizer with AdaRem's settings in its groups."""

    def state_dict(self) -> StateDict:
        state_dict = super().state_dict()
        for group in state_dict["param_groups"]:
            group.update(beta=0.9, lam=1.0)
        return state_dict


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "SGD": (lambda: foreign(lambda ps: torch.optim.SGD(groups_of(ps), lr=0.1)), "no beta, lam but lr, momentum"),
    "SGDM": (
        lambda: foreign(lambda ps: torch.optim.SGD(groups_of(ps), lr=0.1, momentum=0.9)),
        "another optimizer's: its parameter group 0 has no beta, lam",
    ),
    "Adam": (lambda: foreign(lambda ps: torch.optim.Adam(groups_of(ps))), "no beta, lam but lr, betas"),
    "Adam's state": (
        lambda: foreign(lambda ps: AsAdaRem(groups_of(ps))),
        "state of parameter 0 is not AdaRem's: it has exp_avg_sq and lacks exp_avg_max",
    ),
    "the reference's": (
        lambda: foreign(lambda ps: reference.AdaRem(groups_of(ps))),
        "state of parameter 0 is not AdaRem's: it has m, t, k and lacks step, exp_avg, exp_avg_max",
    ),
    "other shapes": (
        lambda: changed(lambda d: d["state"][1].update(exp_avg=torch.ones(7))),
        r"state of parameter 1 has exp_avg of shape \(7,\), and needs \(6,\)",
    ),
    "another order": (
        lambda: changed(lambda d: d["param_groups"][0]["params"].reverse()),
        r"state of parameter 0 has exp_avg of shape \(6,\), and needs \(4, 3\): .* in the saved order",
    ),
    "a maximum of another shape": (
        lambda: changed(lambda d: d["state"][1].update(exp_avg_max=torch.ones(1))),
        r"parameter 1 has exp_avg_max of shape \(1,\), and needs \(\)",
    ),
    "one group": (lambda: changed(lambda d: d["param_groups"].pop()), "different number of parameter groups: 1, .* 2;"),
    "a larger group": (
        lambda: changed(lambda d: d["param_groups"][1]["params"].append(9)),
        "doesn't match the size of optimizer's group: group 1 has 2 parameters, the optimizer's 1",
    ),
    "a key less": (lambda: changed(lambda d: d["state"][2].pop("exp_avg_max")), "parameter 2 .* lacks exp_avg_max;"),
    "no count": (lambda: changed(lambda d: d["state"][2].pop("step")), "parameter 2 .* lacks step;"),
    "a key more": (lambda: changed(lambda d: d["state"][0].update(k=1)), "parameter 0 .* it has k;"),
    "alpha alone": (lambda: changed(lambda d: d["state"][0].update(alpha=torch.ones(()))), "it lacks radius"),
    "no tensor": (lambda: changed(lambda d: d["state"][0].update(exp_avg=[1.0])), r"exp_avg is \[1.0\], no Tensor"),
    "integers": (
        lambda: changed(lambda d: d["state"][0].update(exp_avg=torch.ones(4, 3, dtype=torch.int64))),
        "exp_avg of type torch.int64",
    ),
    "complex": (
        lambda: changed(lambda d: d["state"][0].update(exp_avg=torch.ones(4, 3, dtype=torch.complex64))),
        "exp_avg of type torch.complex64",
    ),
    "a count that is none": (
        lambda: changed(lambda d: d["state"][0].update(step=torch.tensor(math.nan))),
        r"parameter 0 has counts that are no integers: \[tensor\(nan\)",
    ),
    "half a step": (
        lambda: changed(lambda d: d["state"][2].update(step=1.5)),
        "parameter 2 has counts that are no int",
    ),
    "a negative count": (
        lambda: changed(lambda d: d["state"][0].update(decay_offset=torch.tensor(-9.0))),
        "parameter 0 has a negative count: step 1, offset -9",
    ),
    "no radius": (
        lambda: changed(lambda d: d["state"][0].update(alpha=torch.ones(()), radius=torch.zeros(()))),
        "parameter 0 has radius 0.0, not above 0",
    ),
    "sparse m": (
        lambda: changed(lambda d: d["state"][0].update(exp_avg=torch.ones(4, 3).to_sparse())),
        "exp_avg without dense values: it is torch.sparse_coo",
    ),
    "m without data": (
        lambda: changed(lambda d: d["state"][0].update(exp_avg=torch.ones(4, 3, device="meta"))),
        "exp_avg without dense values: it is a meta tensor",
    ),
    "a list for a parameter": (lambda: changed(lambda d: d["state"].update({0: [1.0]})), r"it is \[1.0\], no dict"),
    "a group without parameters": (
        lambda: changed(lambda d: d["param_groups"][1].pop("params")),
        "parameter group 1 of the loaded state dict is no dict with a list 'params'",
    ),
    "a count for no decay": (
        lambda: changed(lambda d: d["param_groups"][0].update(counted_every=0)),
        "Invalid counted_every value: 0",
    ),
    "a setting out of range": (lambda: changed(lambda d: d["param_groups"][1].update(lam=2.0)), "Invalid lam value: 2"),
    "no lam": (lambda: changed(lambda d: d["param_groups"][1].pop("lam")), "parameter group 1 has no lam but"),
    "a model's": (lambda: {"fc.weight": torch.ones(1)}, r"has the keys \['fc.weight'\] and not a dict 'state'"),
    "nothing": (dict, r"has the keys \[\] and not"),
}


@both
@implementations
@pytest.mark.parametrize("case", REFUSED)
def test_other_state_dicts_are_refused_at_load(cls: type[AdaRem], flags: dict[str, bool], case: str) -> None:
    make, message = REFUSED[case]
    bad = make()
    optimizer = build(cls, flags)
    train(optimizer, 2)
    before = copy.deepcopy(optimizer)
    with pytest.raises(ValueError, match=message) as error:
        optimizer.load_state_dict(bad)
    assert "\n" not in str(error.value)
    assert_same(before, optimizer)
    assert not optimizer._optimizer_load_state_dict_pre_hooks
    train(before, 1)
    train(optimizer, 1)
    assert_same(before, optimizer)


def test_names_tell_another_order() -> None:
    torch.manual_seed(0)
    params = [(name, torch.randn(3, requires_grad=True)) for name in "ab"]
    first, second = AdaRem(params), AdaRem(params[::-1])
    train(first, 1)
    with pytest.raises(ValueError, match="another order: parameter 0 is a, and the optimizer's is b; build"):
        second.load_state_dict(first.state_dict())
    renamed = AdaRem([(f"module.{name}", p) for name, p in params])
    renamed.load_state_dict(first.state_dict())  # other names are no order


def test_a_state_dict_that_is_none() -> None:
    with pytest.raises(TypeError, match="state_dict must be a dict, but got NoneType"):
        build(AdaRem).load_state_dict(None)  # type: ignore[arg-type]


# ---- state dicts that load -------------------------------------------------------------------------------------------


@both
@implementations
def test_empty_and_partial_states_load(cls: type[AdaRem], flags: dict[str, bool]) -> None:
    source, target = build(cls, flags), build(cls, flags)
    target.load_state_dict(saved_and_loaded(source.state_dict()))  # before the first step
    train(source, 2)
    train(target, 2)
    assert_same(source, target)
    frozen = parameters(source)[1].requires_grad_(False)
    del source.state[frozen]
    target.load_state_dict(saved_and_loaded(source.state_dict()))
    assert parameters(target)[1] not in target.state
    train(target, 1)


@both
def test_caller_keeps_the_state_dict(cls: type[AdaRem]) -> None:
    source, target = build(AdaRemS, radius=2.0), build(cls)
    train(source, 1)
    saved = source.state_dict()
    before = [[list(part) for part in (*saved["state"].values(), *saved["param_groups"])], list(saved["state"])]
    target.load_state_dict(saved)
    train(target, 1)
    assert before == [[list(part) for part in (*saved["state"].values(), *saved["param_groups"])], list(saved["state"])]


@implementations
@pytest.mark.parametrize("radius", [None, 3.0])
def test_adarems_state_starts_adarem_s(flags: dict[str, bool], radius: float | None) -> None:
    source, target = build(AdaRem, flags, decay_every=2, lam=0.5), build(AdaRemS, flags, radius=radius, sphere="tensor")
    train(source, 5)
    for p, q in zip(parameters(source), parameters(target), strict=True):
        q.data.copy_(p)
    if radius is not None:
        target.renew_radius()
    target.load_state_dict(saved_and_loaded(source.state_dict()))
    assert [g["spherical"] for g in target.param_groups] == [True, False]
    assert {(g["sphere"], g["radius"], g["slr"], g["lam"]) for g in target.param_groups} == {
        ("tensor", radius, True, 0.5)
    }
    for p, q in zip(parameters(source), parameters(target), strict=True):
        for key in source.state[p]:
            assert torch.equal(source.state[p][key], target.state[q][key])
    weights = parameters(target)[:2]
    sizes = [p.norm().item() for p in weights]
    alphas = [1.0, 1.0] if radius is None else [parameters(source)[i].norm().item() / radius for i in range(2)]
    for group in target.param_groups:
        group["lr"] = 0.0
    train(target, 1)
    assert [target.state[p]["radius"].item() for p in weights] == pytest.approx(sizes)
    assert [target.state[p]["alpha"].item() for p in weights] == pytest.approx(alphas)
    assert "alpha" not in target.state[parameters(target)[2]]


@implementations
def test_adarem_takes_nothing_of_a_sphere_from_adarem_s(flags: dict[str, bool]) -> None:
    source, target = build(AdaRemS, flags, radius=3.0), build(AdaRem, flags)
    train(source, 5)
    target.load_state_dict(saved_and_loaded(source.state_dict()))
    plain = build(AdaRem, flags)
    train(plain, 1)
    for p, q, r in zip(*map(parameters, (source, target, plain)), strict=True):
        assert target.state[q].keys() == plain.state[r].keys()
        assert all(torch.equal(source.state[p][key], value) for key, value in target.state[q].items())
    assert [g.keys() for g in target.param_groups] == [g.keys() for g in plain.param_groups]
    train(target, 1)


def test_groups_made_for_spheres_keep_their_mark_in_adarem() -> None:
    groups = [{"params": [torch.ones(2, requires_grad=True)], "spherical": True}]
    first, second = AdaRem(copy.deepcopy(groups)), AdaRem(copy.deepcopy(groups))
    train(first, 1)
    second.load_state_dict(first.state_dict())
    assert second.param_groups[0]["spherical"]
    third = AdaRemS([{**groups[0], "spherical": False}])
    third.load_state_dict(first.state_dict())
    assert third.param_groups[0]["spherical"]  # saved, and so it wins
    train(third, 1)


@both
@implementations
def test_a_loaded_radius_wins(cls: type[AdaRem], flags: dict[str, bool]) -> None:
    """Also over another one that was given, and a step follows as in the run that saved."""
    source = build(cls, flags, **({"radius": 2.0} if cls is AdaRemS else {}))
    train(source, 3)
    saved = saved_and_loaded(source.state_dict())
    target = build(cls, flags, **({"radius": 5.0} if cls is AdaRemS else {}))
    for p, q in zip(parameters(source), parameters(target), strict=True):
        q.data.copy_(p)
    target.load_state_dict(saved)
    assert_same(source, target)
    train(source, 3, seed=8)
    train(target, 3, seed=8)
    assert_same(source, target)


def network(cls: type[AdaRem], **settings: Any) -> tuple[torch.nn.Module, AdaRem]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3, bias=False), torch.nn.Linear(3, 2))
    groups: list[dict[str, Any]] = [{"params": [model[0].weight]}, {"params": list(model[1].parameters())}]
    if cls is AdaRemS:
        groups[0]["spherical"] = True
    return model, cls(groups, lr=0.1, lam=0.5, decay_every=3, **settings)


@pytest.mark.parametrize("radius", [None, 2.0])
@both
@implementations
@pytest.mark.parametrize("kind", [{"full_state_dict": True}, {}, {"flatten_optimizer_state_dict": True}], ids=str)
def test_distributed_checkpoints(
    kind: dict[str, bool], cls: type[AdaRem], flags: dict[str, bool], radius: float | None, tmp_path: Path
) -> None:
    """In one process, through files: weights, radius, alpha and the count after a changed decay_every are as saved."""
    settings = {**flags, **({"radius": radius} if cls is AdaRemS else {})}
    options = StateDictOptions(**kind)
    model, optimizer = network(cls, **settings)
    train(optimizer, 4)
    for group in optimizer.param_groups:
        group["decay_every"] = 2
    train(optimizer, 3)
    weights, state = get_state_dict(model, optimizer, options=options)
    dcp.save({"model": weights, "optimizer": state}, checkpoint_id=tmp_path)
    other, resumed = network(cls, **settings)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.7)
    weights, state = get_state_dict(other, resumed, options=options)
    dcp.load({"model": weights, "optimizer": state}, checkpoint_id=tmp_path)
    set_state_dict(other, resumed, model_state_dict=weights, optim_state_dict=state, options=options)
    assert_same(optimizer, resumed)
    assert any(s["decay_offset"] for s in resumed.state.values())
    train(optimizer, 3, seed=3)
    train(resumed, 3, seed=3)
    assert_same(optimizer, resumed)


# ---- older pickles and schedulers ------------------------------------------------------------------------------------


@both
@implementations
def test_older_pickles_go_on(cls: type[AdaRem], flags: dict[str, bool]) -> None:
    """Written before a setting or a part of the state was added, with counts as numbers."""
    optimizer = build(cls, flags, lam=0.5, decay_every=1)
    train(optimizer, 3)
    old = copy.deepcopy(optimizer)
    late = ("decay_every", "counted_every", "eps", "scope", "maximize", "capturable", "differentiable")
    state = old.__getstate__()
    for group in (state["defaults"], *state["param_groups"]):
        for key in late:
            group.pop(key, None)
    for own in state["state"].values():
        own["step"] = own["step"].item()
        del own["decay_offset"]
    revived = cls.__new__(cls)
    revived.__setstate__(state)
    train(optimizer, 3)
    train(revived, 3)
    assert_same(optimizer, revived)
    revived.add_param_group({"params": [torch.ones(2, requires_grad=True)]})
    train(revived, 1)


SCHEDULES: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "OneCycleLR": lambda o: schedules.OneCycleLR(o, max_lr=0.2, total_steps=20, cycle_momentum=False),
    "CyclicLR": lambda o: schedules.CyclicLR(o, base_lr=0.01, max_lr=0.2, step_size_up=4, cycle_momentum=False),
    "ReduceLROnPlateau": lambda o: schedules.ReduceLROnPlateau(o, patience=1),
    "LambdaLR": lambda o: schedules.LambdaLR(o, lambda epoch: np.float64(0.9) ** epoch),
    "SequentialLR": lambda o: schedules.SequentialLR(
        o, [schedules.LinearLR(o, 0.1, total_iters=3), schedules.CosineAnnealingLR(o, 9)], [3]
    ),
    "CosineAnnealingWarmRestarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 5),
    "SWALR": lambda o: SWALR(o, swa_lr=0.05, anneal_epochs=3),
}


@both
@implementations
@pytest.mark.parametrize("name", SCHEDULES)
def test_torchs_schedulers_run(cls: type[AdaRem], flags: dict[str, bool], name: str) -> None:
    """With a resume in the midst, which ends with the bits of the uninterrupted run."""
    straight, first = build(cls, flags), build(cls, flags)
    schedule, interrupted = SCHEDULES[name](straight), SCHEDULES[name](first)

    def run(optimizer: AdaRem, scheduler: Any, steps: range) -> None:
        for step in steps:
            train(optimizer, 1, seed=step)
            scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))

    run(straight, schedule, range(12))
    run(first, interrupted, range(6))
    resumed = build(cls, flags)
    again = SCHEDULES[name](resumed)
    resumed.load_state_dict(saved_and_loaded(first.state_dict()))
    again.load_state_dict(copy.deepcopy(interrupted.state_dict()))
    for p, q in zip(parameters(first), parameters(resumed), strict=True):
        q.data.copy_(p)
    run(resumed, again, range(6, 12))
    assert_same(straight, resumed)
    assert straight.param_groups[0]["lr"] != 0.1


@both
def test_a_cycled_momentum_is_refused_by_torch(cls: type[AdaRem]) -> None:
    with pytest.raises(ValueError, match="cycle_momentum"):
        schedules.OneCycleLR(build(cls), max_lr=0.2, total_steps=20)


@both
def test_averaged_model(cls: type[AdaRem]) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8, bias=False), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
    groups: list[dict[str, Any]] = [{"params": [model[0].weight]}, {"params": list(model[1:].parameters())}]
    if cls is AdaRemS:
        groups[0]["spherical"] = True
    optimizer, average = cls(groups, lr=0.1), AveragedModel(model)
    scheduler = SWALR(optimizer, swa_lr=0.05, anneal_epochs=2)
    seen = []
    for _ in range(6):
        optimizer.zero_grad()
        model(torch.randn(16, 4)).square().mean().backward()
        optimizer.step()
        average.update_parameters(model)
        scheduler.step()
        seen.append(model[0].weight.detach().clone())
    torch.testing.assert_close(average.module[0].weight.detach(), torch.stack(seen).mean(0))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
