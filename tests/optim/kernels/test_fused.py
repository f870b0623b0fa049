"""The fused step: what it refuses, and that memory layouts and devices are sorted out before a kernel runs."""

import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from adarem import AdaRem, AdaRemS, native
from adarem.optim.kernels import cpu_library, fused
from adarem.optim.kernels.fused import available


def test_fused_refuses_what_it_cannot_do() -> None:
    z = torch.ones(2, dtype=torch.complex64, requires_grad=True)
    optimizer = AdaRem([z], fused=True)
    z.grad = torch.ones_like(z)
    with pytest.raises(RuntimeError, match="`fused=True` requires all the params to be floating point Tensors"):
        optimizer.step()


class Wrapped(torch.Tensor):
    """A tensor around another, without memory of its own."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "Wrapped":
        wrapped: Wrapped = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        wrapped.inner = inner
        return wrapped

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], *_: object) -> "Wrapped":
        return Wrapped(inner["inner"])

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        args, kwargs = tree_map_only(Wrapped, lambda x: x.inner, (args, kwargs or {}))
        return tree_map_only(torch.Tensor, Wrapped, func(*args, **kwargs))


def test_fused_refuses_wrapped_tensors() -> None:
    p = nn.Parameter(Wrapped(torch.ones(4)))
    optimizer = AdaRem([p], fused=True)
    p.grad = Wrapped(torch.ones(4))
    with pytest.raises(RuntimeError, match="`fused=True` does not support Wrapped params: use foreach"):
        optimizer.step()


def test_unlike_layouts_and_types_are_updated_as_contiguous_ones() -> None:
    def run(flags: dict[str, bool]) -> list[torch.Tensor]:
        torch.manual_seed(0)
        params = [
            torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last).requires_grad_(),
            torch.randn(6, 8)[:, ::2].detach().requires_grad_(),
            torch.randn(7, dtype=torch.float64, requires_grad=True),
        ]
        optimizer = AdaRem(params, lr=0.1, **flags)
        for _ in range(4):
            for p in params:
                p.grad = torch.randn(p.shape, dtype=p.dtype)  # contiguous, unlike the first two
            optimizer.step()
        return params

    for one_pass, plain in zip(run({"fused": True}), run({"foreach": False}), strict=True):
        torch.testing.assert_close(one_pass, plain)


def test_one_sphere_needs_one_type() -> None:
    params = [torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.float64, requires_grad=True)]
    optimizer = AdaRemS([{"params": params, "spherical": True}], fused=True)
    for p in params:
        p.grad = torch.ones_like(p)
    with pytest.raises(RuntimeError, match="requires all spherical params of a group on one device, of one dtype"):
        optimizer.step()


def test_available_names_devices_with_kernels() -> None:
    assert available("cpu")
    assert not available("mps")


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_library, "find", lambda: native.Loaded(None, "c++: none; install one"))
    fused.kernels.cache_clear()
    yield
    fused.kernels.cache_clear()


CASES = [
    (AdaRem, {}),
    (AdaRem, {"scope": "model", "weight_decay": 0.1, "maximize": True}),
    (AdaRem, {"eps": 1e-3, "lr": torch.tensor(0.1), "beta": 0.0}),
    (AdaRemS, {"weight_decay": 0.1}),
    (AdaRemS, {"sphere": "tensor", "slr": False}),
    (AdaRemS, {"sphere": "tensor", "radius": 2.0, "scope": "model"}),
]


def trained(kind: type[AdaRem], settings: dict, dtype: torch.dtype, scaler: torch.amp.GradScaler | None) -> list:
    """Parameters and state after six steps, of which one overflows where gradients are scaled."""
    torch.manual_seed(0)
    params = [torch.randn(4, 3, 2, 2), torch.randn(7, 5), torch.randn(9)]
    params[0] = params[0].to(memory_format=torch.channels_last)
    params = [nn.Parameter(p.to(dtype)) for p in params]
    groups = [{"params": params[:2], "spherical": True}, {"params": params[2:]}]
    optimizer = kind(groups if kind is AdaRemS else params, **{"lr": 0.1, "decay_every": 2, **settings})
    for step in range(6):
        loss = sum((p.float() * torch.randn(p.shape)).sum() for p in params) * (float("inf") if step == 3 else 1)
        optimizer.zero_grad()
        if scaler is None:
            if step != 3:
                loss.backward()
                optimizer.step()
            continue
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        for p in params:  # a fused step leaves them unscaled
            assert step == 3 or p.grad.abs().max() < 10
    return [*(p.detach() for p in params), *(v for p in params for v in optimizer.state[p].values())]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "GradScaler"])
@pytest.mark.parametrize("kind, settings", CASES, ids=str)
def test_without_kernels_the_results_are_the_same_to_rounding(
    kind: type[AdaRem], settings: dict, scaled: bool, dtype: torch.dtype, no_kernels: None
) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10) if scaled else None
    expected = trained(kind, {**settings, "foreach": False}, dtype, None)
    with pytest.warns(
        UserWarning, match=r"^c\+\+: none; install one \(`fused=True` runs as foreach on cpu\)$"
    ) as caught:
        found = trained(kind, {**settings, "fused": True}, dtype, scaler)
    assert len(caught) == 1
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b)


def test_found_inf_skips_and_grad_scale_divides_without_kernels(no_kernels: None) -> None:
    p = nn.Parameter(torch.ones(3))
    p.grad = torch.full((3,), 8.0)
    optimizer = AdaRem([p], lr=0.1, fused=True)
    assert optimizer._step_supports_amp_scaling
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(8.0), torch.tensor(1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer.step()
        assert p.tolist() == [1.0] * 3 and optimizer.state[p]["step"] == 0
        optimizer.found_inf = torch.tensor(0.0)
        optimizer.step()
    assert p.tolist() == pytest.approx([0.9] * 3) and optimizer.state[p]["step"] == 1 and p.grad.tolist() == [1.0] * 3


_STEPS = """
import torch
from adarem import AdaRem, AdaRemS
for kind in (AdaRem, AdaRemS):
    p = torch.ones(3, requires_grad=True)
    optimizer = kind([{"params": [p]}], fused=True)
    for _ in range(3):
        p.grad = torch.ones(3)
        optimizer.step()
"""


@pytest.mark.parametrize("name", ["ccache-that-is-absent g++", "false"])
def test_a_process_warns_once_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", name)
    done = subprocess.run([sys.executable, "-W", "always", "-c", _STEPS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "SlowerWarning: " in line)
    assert "set CXX to a" in line and line.endswith("(`fused=True` runs as foreach on cpu)")


def test_a_triton_that_is_absent_or_cannot_compile_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    uncached = fused.kernels.__wrapped__
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)

    def refuse(device: torch.device) -> None:
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nmore")

    monkeypatch.setattr("adarem.optim.kernels.triton_step.try_out", refuse)
    with pytest.warns(UserWarning, match="^triton: cannot compile .RuntimeError: Failed to find C compiler") as caught:
        assert uncached("cuda").name == ""
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    monkeypatch.setattr("adarem.optim.kernels.triton_step.try_out", lambda device: None)
    assert uncached("cuda") == ("Triton", "")
    monkeypatch.setattr(fused.importlib.util, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="^triton: not installed; pip install triton"):
        assert uncached("cuda").name == ""
