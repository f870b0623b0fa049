"""The fused step: its tensors by device, type and memory layout, each part to the kernel of its device."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from adarem.optim import compat, sharded
from adarem.optim.adarem_s import Sphere, is_dense
from adarem.optim.kernels import cpu, cpu_library
from adarem.optim.step import StepSettings, StepTensors

DEVICES = ("cpu", "cuda")


def available(device_type: str) -> bool:
    """Whether ``fused=True`` works here for parameters on that device; compiles the CPU's kernels if need be."""
    if device_type == "cpu":
        return cpu_library.available()
    return device_type == "cuda" and importlib.util.find_spec("triton") is not None


def check_supported(p: Tensor) -> None:
    """Raises RuntimeError for a parameter that no kernel can update."""
    if not (p.device.type in DEVICES and torch.is_floating_point(p)):
        raise RuntimeError(
            "`fused=True` requires all the params to be floating point Tensors of "
            f"supported devices: {list(DEVICES)} but {p.dtype} and {p.device.type}"
        )
    part = sharded.local_part(p)
    if compat.is_wrapper_tensor(part):  # no memory of its own for a kernel to write to
        raise RuntimeError(f"`fused=True` does not support {type(part).__name__} params: use foreach")


def fused_step(tensors: StepTensors, settings: StepSettings, sphere: Sphere | None = None) -> None:
    """AdaRem's step, or with ``sphere`` AdaRem-S's."""
    if not tensors.params:
        return
    if settings.differentiable:
        raise RuntimeError("`fused` does not support `differentiable`")
    groups = compat.indices_by_device_and_dtype(tensors.params)
    if sphere is not None and len(sphere.radii) == 1 and len(groups) > 1:
        raise RuntimeError(
            "`fused=True` with sphere='model' requires all spherical params of a group on one device, of one dtype"
        )
    for chosen in groups:
        part, part_of_sphere = tensors, sphere
        if len(groups) > 1:
            part = StepTensors._make([xs[i] for i in chosen] for xs in tensors)
            if sphere is not None:
                alphas, radii = ([xs[i] for i in chosen] for xs in (sphere.alphas, sphere.radii))
                part_of_sphere = Sphere(alphas, radii, sphere.slr)
        device = part.params[0].device.type
        # The gradient is written too: a GradScaler's fused step leaves it unscaled.
        with _one_layout(part) as dense:
            if device == "cpu":
                cpu.fused_step(dense, settings, part_of_sphere)
            elif available(device):
                from adarem.optim.kernels import triton_step

                triton_step.fused_step(dense, settings, part_of_sphere)
            else:
                raise RuntimeError("`fused=True` on CUDA needs Triton: pip install triton, or leave fused unset")
        # Kernels write behind autograd's back: graphs that saved a parameter must notice, as after any in-place step.
        torch.autograd.graph.increment_version(part.params)


@contextmanager
def _one_layout(tensors: StepTensors) -> Iterator[StepTensors]:
    """The tensors with the k-th parameter, gradient and m in one dense layout, for every k.

    Kernels walk over memory: the k-th element in memory must be the same element in all three. Where layouts differ, or
    have gaps, all three are copied, and what was written to the copies goes back at the end.
    """
    originals = (tensors.params, tensors.grads, tensors.exp_avgs)
    if all(all(map(Tensor.is_contiguous, xs)) for xs in originals):
        yield tensors
        return
    params, grads, exp_avgs = map(list, zip(*map(_alike, *originals), strict=True))
    yield tensors._replace(params=params, grads=grads, exp_avgs=exp_avgs)
    copies = [
        (original, copy)
        for xs, dense in zip(originals, (params, grads, exp_avgs), strict=True)
        for original, copy in zip(xs, dense, strict=True)
        if copy is not original
    ]
    if copies:
        compat.foreach_copy_([original for original, _ in copies], [copy for _, copy in copies])


def _alike(*tensors: Tensor) -> tuple[Tensor, ...]:
    if all(map(Tensor.is_contiguous, tensors)):
        return tensors
    if len({t.stride() for t in tensors}) == 1 and is_dense(tensors[0]):
        return tensors
    return tuple(t.clone(memory_format=torch.contiguous_format) for t in tensors)
