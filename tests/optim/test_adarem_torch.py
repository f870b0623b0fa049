"""AdaRem and AdaRem-S as citizens of torch.optim: every flag and service that torch's own optimizers have."""

import copy
import io
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

import adarem.optim.kernels.cpu
from adarem import AdaRem, AdaRemS
from tests.support.warm import start_server

FLAGS = {"single": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
CLASSES = (AdaRem, AdaRemS)
both = pytest.mark.parametrize("cls", CLASSES)
implementations = pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)


def build(
    cls: type[AdaRem], flags: dict[str, bool] | None = None, dtype: torch.dtype = torch.float32, **kwargs: Any
) -> AdaRem:
    """Two groups; of AdaRem-S the first is on a sphere."""
    torch.manual_seed(0)
    weights = [torch.randn(s).to(dtype).requires_grad_() for s in ((4, 3), (6,))]
    bias = torch.randn(4).to(dtype).requires_grad_()
    groups = [{"params": weights}, {"params": [bias], "weight_decay": 0.0}]
    if cls is AdaRemS:
        groups[0]["spherical"] = True
    return cls(groups, **{"lr": 0.1, "weight_decay": 0.01, **kwargs, **(flags or {})})


def parameters(optimizer: AdaRem) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def train(optimizer: AdaRem, steps: int, seed: int = 1) -> None:
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in parameters(optimizer):
            p.grad = torch.randn(p.shape, generator=draw).to(p.dtype)
        optimizer.step()


def assert_same(a: AdaRem, b: AdaRem) -> None:
    """Bit for bit: parameters, state, its types, and the settings."""
    for p, q in zip(parameters(a), parameters(b), strict=True):
        assert torch.equal(p, q)
        assert a.state[p].keys() == b.state[q].keys()
        for key, value in a.state[p].items():
            assert value.dtype == b.state[q][key].dtype
            assert torch.equal(value, b.state[q][key]), key
    for g, h in zip(a.param_groups, b.param_groups, strict=True):
        assert {k: v for k, v in g.items() if k != "params"} == {k: v for k, v in h.items() if k != "params"}


# ---- state -----------------------------------------------------------------------------------------------------------


@both
@implementations
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("radius", [None, 2.0])
def test_resume_is_bit_identical(
    cls: type[AdaRem], flags: dict[str, bool], dtype: torch.dtype, radius: float | None
) -> None:
    kwargs = {"radius": radius} if cls is AdaRemS else {}
    straight, first = (build(cls, flags, dtype, decay_every=3, lam=0.5, **kwargs) for _ in range(2))
    train(straight, 7)
    train(first, 7)
    file = io.BytesIO()
    torch.save({"optimizer": first.state_dict(), "params": parameters(first)}, file)
    file.seek(0)
    saved = torch.load(file, map_location="cpu", weights_only=True)
    # Built with other settings than saved, on the saved weights, as a resumed run does.
    weights = [p.detach().clone().requires_grad_() for p in saved["params"]]
    groups = [{"params": weights[:2]}, {"params": weights[2:]}]
    if cls is AdaRemS:
        groups[0]["spherical"] = True
    resumed = cls(groups, lr=9.0, **kwargs)
    resumed.load_state_dict(saved["optimizer"])
    assert_same(first, resumed)
    train(straight, 7, seed=2)
    train(resumed, 7, seed=2)
    assert_same(straight, resumed)


@both
def test_16_bit_parameters_have_float32_state(cls: type[AdaRem]) -> None:
    optimizer = build(cls, dtype=torch.bfloat16)
    train(optimizer, 1)
    state = optimizer.state[parameters(optimizer)[0]]
    assert state["exp_avg"].dtype == state["exp_avg_max"].dtype == torch.float32
    before = {k: v.clone() for k, v in state.items()}
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    after = optimizer.state[parameters(optimizer)[0]]
    for key in before:
        assert before[key].dtype == after[key].dtype
        assert torch.equal(before[key], after[key]), key


def test_slow_average_moves_in_bfloat16() -> None:
    p = torch.zeros(1, dtype=torch.bfloat16, requires_grad=True)
    optimizer = AdaRem([p], lr=0.0, beta=0.999)
    for _ in range(5000):
        p.grad = torch.ones_like(p)
        optimizer.step()
    assert optimizer.state[p]["exp_avg"].item() == pytest.approx(1 - 0.999**5000, rel=1e-3)


def test_state_loads_into_parameters_of_another_type() -> None:
    wide, narrow = build(AdaRemS, dtype=torch.float64), build(AdaRemS, dtype=torch.bfloat16)
    train(wide, 3)
    narrow.load_state_dict(wide.state_dict())
    train(narrow, 1)
    state = narrow.state[parameters(narrow)[0]]
    assert state["exp_avg"].dtype == torch.float32
    assert state["alpha"].dtype == torch.float64


@both
def test_load_hooks_see_and_change_the_state(cls: type[AdaRem]) -> None:
    source, target = build(cls), build(cls)
    train(source, 2)
    seen = []

    def double(_: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        state_dict = copy.deepcopy(state_dict)
        state_dict["state"][0]["exp_avg"] *= 2
        return state_dict

    target.register_load_state_dict_pre_hook(double)
    target.register_load_state_dict_post_hook(lambda o: seen.append(len(o.state)))
    target.load_state_dict(source.state_dict())
    p, q = parameters(source)[0], parameters(target)[0]
    assert torch.equal(2 * source.state[p]["exp_avg"], target.state[q]["exp_avg"])
    assert seen == [3]
    assert len(target._optimizer_load_state_dict_pre_hooks) == 1  # none of ours stays


@both
def test_old_and_foreign_state_dicts_load(cls: type[AdaRem]) -> None:
    source, target = build(cls), build(cls)
    train(source, 2)
    old = copy.deepcopy(source.state_dict())
    kept = ("params", "lr", "beta", "lam", "weight_decay", "spherical")
    old["param_groups"] = [{k: g[k] for k in kept if k in g} for g in old["param_groups"]]
    for state in old["state"].values():
        state["step"] = state["step"].item()
    target.load_state_dict(old)
    for p, q in zip(parameters(source), parameters(target), strict=True):
        q.data.copy_(p)
    train(source, 1)
    train(target, 1)
    for p, q in zip(parameters(source), parameters(target), strict=True):
        assert torch.equal(p, q)


@both
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["copy", "pickle"])
def test_copies_go_their_own_way(cls: type[AdaRem], duplicate: Callable[[AdaRem], AdaRem]) -> None:
    original = build(cls, {"fused": True})
    train(original, 2)
    twin = duplicate(original)
    assert twin._step_supports_amp_scaling
    train(twin, 2, seed=5)
    train(original, 2, seed=5)
    assert_same(original, twin)
    train(twin, 1)
    assert not torch.equal(parameters(original)[0], parameters(twin)[0])


@both
def test_groups_added_later_count_their_own_steps(cls: type[AdaRem]) -> None:
    optimizer = build(cls)
    train(optimizer, 3)
    late = torch.ones(2, requires_grad=True)
    optimizer.add_param_group({"params": [late], "lr": 0.5})
    train(optimizer, 2)
    assert optimizer.state[late]["step"].item() == 2
    assert optimizer.state[parameters(optimizer)[0]]["step"].item() == 5
    again = build(cls)
    again.add_param_group({"params": [torch.ones(2, requires_grad=True)]})
    again.load_state_dict(optimizer.state_dict())
    assert again.param_groups[2]["lr"] == 0.5


# ---- step ------------------------------------------------------------------------------------------------------------


@both
@implementations
def test_parameters_without_gradient_are_left_alone(cls: type[AdaRem], flags: dict[str, bool]) -> None:
    optimizer = build(cls, flags)
    before = [p.detach().clone() for p in parameters(optimizer)]
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(optimizer), strict=True))
    assert not any("exp_avg" in s for s in optimizer.state.values())


@both
@implementations
def test_gradients_are_not_written_to(cls: type[AdaRem], flags: dict[str, bool]) -> None:
    optimizer = build(cls, flags, maximize=True)
    for p in parameters(optimizer):
        p.grad = torch.ones_like(p)
    versions = [p.grad._version for p in parameters(optimizer)]
    optimizer.step()
    assert all((p.grad == 1).all() for p in parameters(optimizer))
    assert versions == [p.grad._version for p in parameters(optimizer)]


@both
@implementations
def test_autograd_notices_the_update(cls: type[AdaRem], flags: dict[str, bool]) -> None:
    optimizer = build(cls, flags)
    p = parameters(optimizer)[0]
    loss = p.square().sum()
    train(optimizer, 1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@both
@implementations
@pytest.mark.parametrize("shape", [(), (1,)])
def test_tensor_lr(cls: type[AdaRem], flags: dict[str, bool], shape: tuple[int, ...]) -> None:
    number, tensor = build(cls, flags), build(cls, flags, lr=torch.full(shape, 0.1))
    train(number, 5)
    train(tensor, 5)
    for p, q in zip(parameters(number), parameters(tensor), strict=True):
        torch.testing.assert_close(p, q)
    for group in tensor.param_groups:
        group["lr"].fill_(0.0)
    before = [p.detach().clone() for p in parameters(tensor)]
    train(tensor, 1)
    for p, q in zip(before, parameters(tensor), strict=True):
        torch.testing.assert_close(p, q)


@both
def test_closure_and_hooks(cls: type[AdaRem]) -> None:
    optimizer = build(cls)
    calls = []
    optimizer.register_step_pre_hook(lambda *a: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *a: calls.append("post"))

    def closure() -> Tensor:
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = sum(p.square().sum() for p in parameters(optimizer))
        loss.backward()
        return loss

    first = optimizer.step(closure)
    for _ in range(20):
        last = optimizer.step(closure)
    assert calls[:2] == ["pre", "post"]
    if cls is AdaRem:
        assert last < first


@both
def test_sparse_gradients_are_refused(cls: type[AdaRem]) -> None:
    embedding = nn.Embedding(4, 3, sparse=True)
    optimizer = cls(embedding.parameters())
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match=f"{cls.__name__} does not support sparse gradients"):
        optimizer.step()


@pytest.mark.parametrize("flags", [FLAGS["single"], FLAGS["foreach"]], ids=["single", "foreach"])
def test_complex_parameters_are_their_real_views(flags: dict[str, bool]) -> None:
    torch.manual_seed(0)
    z = torch.randn(3, 4, dtype=torch.complex64, requires_grad=True)
    x = torch.view_as_real(z).detach().clone().requires_grad_()
    a, b = AdaRem([z], lr=0.1, weight_decay=0.1, **flags), AdaRem([x], lr=0.1, weight_decay=0.1, **flags)
    for _ in range(5):
        z.grad = torch.randn_like(z)
        x.grad = torch.view_as_real(z.grad)
        a.step()
        b.step()
    torch.testing.assert_close(torch.view_as_real(z.detach()), x.detach())
    a.load_state_dict(copy.deepcopy(a.state_dict()))
    assert a.state[z]["exp_avg"].dtype == torch.complex64


@both
def test_capturable_belongs_to_accelerators(cls: type[AdaRem]) -> None:
    optimizer = build(cls, capturable=True)
    with pytest.raises(AssertionError, match="If capturable=True, params and state_steps must be on supported devices"):
        train(optimizer, 1)


@both
def test_capturable_arithmetic_is_the_same(cls: type[AdaRem], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check, the path that a CUDA graph takes runs on the CPU too."""
    monkeypatch.setattr("adarem.optim.compat.check_capturable", lambda *a: None)
    for flags in (FLAGS["single"], FLAGS["foreach"]):
        plain = build(cls, flags, decay_every=2, lam=0.5)
        graph = build(cls, flags, decay_every=2, lam=0.5, capturable=True, lr=torch.tensor(0.1))
        train(plain, 7)
        train(graph, 7)
        for p, q in zip(parameters(plain), parameters(graph), strict=True):
            torch.testing.assert_close(p, q)


def test_no_path_but_the_cpus_own_reads_a_tensor_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """What CUDA runs eagerly when capturable: any .item() or .tolist() there would be a synchronisation."""
    monkeypatch.setattr("adarem.optim.compat.check_capturable", lambda *a: None)

    def refuse(*a: object) -> None:
        raise AssertionError("read on the host")

    for cls in CLASSES:
        optimizer = build(cls, FLAGS["single"], capturable=True, lr=torch.tensor(0.1))
        train(optimizer, 1)
        with monkeypatch.context() as m:
            for name in ("item", "tolist", "__float__", "__int__", "__bool__", "cpu", "numpy"):
                m.setattr(torch.Tensor, name, refuse)
            train(optimizer, 2)


@both
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_differentiable(cls: type[AdaRem], eps: float) -> None:
    """Gradients of two steps by the rate, the gradients and the start agree with finite differences."""
    torch.manual_seed(0)
    start = torch.randn(5, dtype=torch.float64, requires_grad=True)
    grads = [torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    lr = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)

    def two_steps(start: Tensor, g0: Tensor, g1: Tensor, lr: Tensor) -> Tensor:
        p = start.clone()
        group = {"params": [p], "spherical": True} if cls is AdaRemS else {"params": [p]}
        optimizer = cls([group], lr=lr, weight_decay=0.1, eps=eps, differentiable=True)
        for g in (g0, g1):
            p.grad = g
            optimizer.step()
        return p

    assert torch.autograd.gradcheck(two_steps, (start, *grads, lr))


def test_flags_that_exclude_each_other() -> None:
    p = [torch.ones(1, requires_grad=True)]
    with pytest.raises(RuntimeError, match="`fused` does not support `differentiable`"):
        AdaRem(p, fused=True, differentiable=True)
    with pytest.raises(RuntimeError, match="`fused` and `foreach` cannot be `True` together."):
        AdaRemS(p, fused=True, foreach=True)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"lr": -1.0}, "Invalid learning rate: -1.0"),
        ({"lr": math.nan}, "Invalid learning rate: nan"),
        ({"lr": math.inf}, "Invalid learning rate: inf"),
        ({"lr": torch.tensor([0.1, 0.1])}, "Tensor lr must be 1-element"),
        ({"weight_decay": -1.0}, "Invalid weight_decay value: -1.0"),
        ({"eps": -1e-8}, "Invalid epsilon value: -1e-08"),
        ({"beta": 1.1}, "Invalid beta value: 1.1"),
        ({"beta": -0.1}, "Invalid beta value: -0.1"),
        ({"lam": 1.5}, "Invalid lam value: 1.5"),
        ({"lam": math.nan}, "Invalid lam value: nan"),
        ({"decay_every": 0}, "Invalid decay_every value: 0"),
        ({"decay_every": 1.5}, "Invalid decay_every value: 1.5"),
        ({"scope": "layer"}, "Invalid scope value: layer"),
    ],
)
@both
def test_bad_settings_are_refused(cls: type[AdaRem], kwargs: dict[str, Any], message: str) -> None:
    p = torch.ones(1, requires_grad=True)
    with pytest.raises(ValueError, match=message):
        cls([p], **kwargs)
    with pytest.raises(ValueError, match=message):
        cls([{"params": [p], **kwargs}])
    optimizer = cls([p])
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [torch.ones(1, requires_grad=True)], **kwargs})
    assert len(optimizer.param_groups) == 1


# ---- fused -----------------------------------------------------------------------------------------------------------


@both
def test_found_inf_leaves_everything_untouched(cls: type[AdaRem]) -> None:
    optimizer = build(cls, FLAGS["fused"])
    train(optimizer, 2)
    before = copy.deepcopy(optimizer)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(1.0)
    for p in parameters(optimizer):
        p.grad = torch.full_like(p, math.inf)
    optimizer.step()
    del optimizer.grad_scale, optimizer.found_inf
    assert_same(before, optimizer)


@both
@implementations
def test_grad_scaler(cls: type[AdaRem], flags: dict[str, bool]) -> None:
    """Scaled training with one overflow equals plain training without that step."""
    plain, scaled = build(cls, flags), build(cls, flags)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1000)
    draw = torch.Generator().manual_seed(3)
    for step in range(5):
        grads = [torch.randn(p.shape, generator=draw) for p in parameters(plain)]
        scaler.scale(torch.ones(()))  # makes the scale a tensor, as a loss would
        for p, q, g in zip(parameters(plain), parameters(scaled), grads, strict=True):
            p.grad = g
            q.grad = g * scaler.get_scale()
        if step == 2:
            parameters(scaled)[0].grad[0] = math.inf
        else:
            plain.step()
        scaler.step(scaled)
        scaler.update()
    assert scaler.get_scale() == 2.0
    assert scaled.state[parameters(scaled)[0]]["step"].item() == 4
    assert_same(plain, scaled)


def test_fused_is_off_unless_asked_for() -> None:
    """Nobody gets a compiler run, or results that depend on one, without asking."""
    optimizer = build(AdaRem)
    assert optimizer.param_groups[0]["fused"] is None
    called = []
    with mock.patch.object(adarem.optim.kernels.cpu, "library", side_effect=lambda: called.append(1)):
        train(optimizer, 1)
    assert not called


# ---- compile and DDP -------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("flags", [FLAGS["single"], FLAGS["foreach"]], ids=["single", "foreach"])
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_compiled_step_is_one_graph_for_all_rates(cls: type[AdaRem], flags: dict[str, bool], warm: bool) -> None:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    eager = build(cls, flags, lam=0.5, decay_every=5)
    compiled = build(cls, flags, lam=0.5, decay_every=5, lr=torch.tensor(0.1))
    if warm:
        train(eager, 1)
        train(compiled, 1)
    step = torch.compile(compiled.step, backend="aot_eager")
    draw = torch.Generator().manual_seed(9)
    for k in range(20):
        rate = 0.1 * (1 + math.cos(math.pi * k / 20)) / 2
        for p, q in zip(parameters(eager), parameters(compiled), strict=True):
            p.grad = torch.randn(p.shape, generator=draw)
            q.grad = p.grad.clone()
        for g, h in zip(eager.param_groups, compiled.param_groups, strict=True):
            g["lr"] = rate
            h["lr"].fill_(rate)
        eager.step()
        step()
    assert counters["stats"]["unique_graphs"] == 1
    for p, q in zip(parameters(eager), parameters(compiled), strict=True):
        torch.testing.assert_close(p, q)


def _ddp_rank(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Linear(4, 3))
    optimizer = AdaRemS(
        [{"params": [model.module.weight], "spherical": True}, {"params": [model.module.bias]}], lr=0.1, fused=True
    )
    data = torch.randn(8, 4)
    for _ in range(5):
        optimizer.zero_grad()
        model(data[rank::2]).square().mean().backward()
        optimizer.step()
    torch.save([p.detach() for p in model.parameters()], folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


def test_ddp_ranks_stay_equal_and_equal_one_process(tmp_path: Path) -> None:
    start_server()
    torch.multiprocessing.start_processes(_ddp_rank, (tmp_path,), nprocs=2, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert all(map(torch.equal, first, second))
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = AdaRemS([{"params": [model.weight], "spherical": True}, {"params": [model.bias]}], lr=0.1)
    data = torch.randn(8, 4)
    for _ in range(5):
        optimizer.zero_grad()
        model(data).square().mean().backward()
        optimizer.step()
    for got, p in zip(first, model.parameters(), strict=True):
        torch.testing.assert_close(got, p.detach())
