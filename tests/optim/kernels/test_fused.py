"""The fused step: what it refuses, and that memory layouts and devices are sorted out before a kernel runs."""

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from adarem import AdaRem, AdaRemS
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
