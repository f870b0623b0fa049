"""The fused step: its tensors by device, type and memory layout, each part to the kernel of its device."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from adarem.optim import compat
from adarem.optim.adarem_s import Sphere, is_dense
from adarem.optim.check import check_step
from adarem.optim.kernels import cpu, cpu_library
from adarem.optim.step import StepSettings, StepTensors


def available(device_type: str) -> bool:
    """Whether ``fused=True`` works here for parameters on that device; compiles the CPU's kernels if need be."""
    if device_type == "cpu":
        return cpu_library.available()
    return device_type == "cuda" and importlib.util.find_spec("triton") is not None


def fused_step(tensors: StepTensors, settings: StepSettings, sphere: Sphere | None = None) -> None:
    """AdaRem's step, or with ``sphere`` AdaRem-S's."""
    if not tensors.params:
        return
    if settings.differentiable:
        raise RuntimeError("`fused` does not support `differentiable`")
    memory = settings.memory
    if memory is None or memory.tensors is not tensors:  # of other tensors: parts or copies of those that were checked
        alphas, radii = (sphere.alphas, sphere.radii) if sphere else ([], [])
        one_sphere = len(radii) == 1 < len(alphas)
        memory = check_step(tensors, settings, alphas, radii, one_sphere)
    groups = memory.groups
    for x in tensors.params if not memory.pointers else ():
        if compat.is_wrapper_tensor(x):  # a DTensor has no memory of its own for a kernel to write to
            raise RuntimeError(f"`fused=True` does not support {type(x).__name__} params: use foreach")
    for chosen in groups:
        part, part_of_sphere = tensors, sphere
        if len(groups) > 1:
            part = StepTensors._make([xs[i] for i in chosen] for xs in tensors)
            if sphere is not None:
                alphas, radii = ([xs[i] for i in chosen] for xs in (sphere.alphas, sphere.radii))
                part_of_sphere = Sphere(alphas, radii, sphere.slr)
        device = part.params[0].device.type
        # The gradient is written too: a GradScaler's fused step leaves it unscaled.
        with _one_layout(part, settings.grad_scale is not None, memory.contiguous) as dense:
            if device == "cpu":
                cpu.fused_step(dense, settings._replace(memory=memory), part_of_sphere)
            elif available(device):
                from adarem.optim.kernels import triton_step

                triton_step.fused_step(dense, settings, part_of_sphere)
            else:
                raise RuntimeError("`fused=True` on CUDA needs Triton: pip install triton, or leave fused unset")
        # Kernels write behind autograd's back: graphs that saved a parameter must notice, as after any in-place step.
        torch.autograd.graph.increment_version(part.params)


@contextmanager
def _one_layout(tensors: StepTensors, scaled: bool, contiguous: bool) -> Iterator[StepTensors]:
    """The tensors with the k-th parameter, gradient and m in one dense layout, for every k.

    Kernels walk over memory: the k-th element in memory must be the same element in all three. Where layouts differ, or
    have gaps, all three are copied, and what was written to the copies goes back at the end: gradients if ``scaled``.
    """
    if contiguous:
        yield tensors
        return
    originals = (tensors.params, tensors.grads, tensors.exp_avgs)
    params, grads, exp_avgs = map(list, zip(*map(_alike, *originals), strict=True))
    yield tensors._replace(params=params, grads=grads, exp_avgs=exp_avgs)
    written = [(tensors.params, params), (tensors.exp_avgs, exp_avgs)] + [(tensors.grads, grads)] * scaled
    copies = [
        (original, copy)
        for xs, dense in written
        for original, copy in zip(xs, dense, strict=True)
        if copy is not original
    ]
    if copies:
        compat.foreach_copy_([original for original, _ in copies], [copy for _, copy in copies])


def _alike(*tensors: Tensor) -> tuple[Tensor, ...]:
    if not any(map(Tensor.is_neg, tensors)):
        if all(map(Tensor.is_contiguous, tensors)):
            return tensors
        if len({t.stride() for t in tensors}) == 1 and is_dense(tensors[0]):
            return tensors
    return tuple(t.clone(memory_format=torch.contiguous_format) for t in tensors)
