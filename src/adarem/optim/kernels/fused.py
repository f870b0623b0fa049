"""The fused step: its tensors by device, type and memory layout, each part to the kernel of its device."""

import functools
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from adarem import native
from adarem.optim import compat
from adarem.optim.adarem import adarem
from adarem.optim.adarem_s import Sphere, adarems, is_dense
from adarem.optim.check import check_step
from adarem.optim.kernels import cpu, cpu_library
from adarem.optim.step import Scalars, StepSettings, StepTensors


class Kernels(NamedTuple):
    """What takes the fused step of a type of device."""

    name: str  # "C++" or "Triton"; empty where there are none, and foreach takes it
    note: str  # one line for the user; empty where all is well


@functools.cache
def kernels(device_type: str) -> Kernels:
    """Compiles and tries the kernels at the first call; warns, once, where anything is not as it should be."""
    if device_type == "cpu":
        compiled = cpu_library.find()
        found = Kernels("C++" if compiled.library else "", compiled.note)
    elif device_type != "cuda":
        return Kernels("", f"{device_type}: there are no fused kernels; use cpu or cuda")
    elif importlib.util.find_spec("triton") is None:
        found = Kernels("", "triton: not installed; pip install triton")
    else:
        found = _tried_triton()
    if found.note:
        consequence = "" if found.name else f" (`fused=True` runs as foreach on {device_type})"
        warnings.warn(found.note + consequence, native.SlowerWarning, stacklevel=2)
    return found


def _tried_triton() -> Kernels:
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        return Kernels("Triton", "")  # a graph must not hold the trial
    try:
        from adarem.optim.kernels import triton_step

        triton_step.try_out(torch.device("cuda", torch.cuda.current_device()))
    except Exception as e:  # what Triton, its C compiler, its cache and its driver raise has no common type
        line = next(iter(str(e).strip().splitlines()), "")
        return Kernels("", f"triton: cannot compile ({type(e).__name__}: {line}); set CC and TRITON_CACHE_DIR")
    return Kernels("Triton", "")


def available(device_type: str) -> bool:
    """Whether kernels take the fused step for parameters on that device; compiles them if need be."""
    return bool(kernels(device_type).name)


def fused_step(
    tensors: StepTensors, settings: StepSettings, sphere: Sphere | None = None, *, lrs: Scalars | None = None
) -> None:
    """AdaRem's step, or with ``sphere`` AdaRem-S's; ``lrs`` has one learning rate for each parameter."""
    if not tensors.params:
        return
    if lrs is not None:
        # A kernel takes one rate. Parameters on one sphere have one, mostly.
        values = torch.stack(lrs).tolist() if isinstance(lrs[0], Tensor) else lrs
        for lr in dict.fromkeys(values):
            alike = [i for i, value in enumerate(values) if value == lr]
            fused_step(StepTensors._make([xs[i] for i in alike] for xs in tensors), settings._replace(lr=lr))
        return
    if settings.differentiable:
        raise RuntimeError("`fused` does not support `differentiable`")
    memory = settings.memory
    if memory is None or memory.tensors is not tensors:  # of other tensors: parts or copies of those that were checked
        alphas, radii = (sphere.alphas, sphere.radii) if sphere else ([], [])
        one_sphere = len(radii) == 1 < len(alphas)
        memory = check_step(tensors, settings, alphas, radii, one_sphere)
        settings = settings._replace(memory=memory)
    groups = memory.groups
    for chosen in groups:
        part, part_of_sphere = tensors, sphere
        if len(groups) > 1:
            part = StepTensors._make([xs[i] for i in chosen] for xs in tensors)
            if sphere is not None:
                alphas, radii = ([xs[i] for i in chosen] for xs in (sphere.alphas, sphere.radii))
                part_of_sphere = Sphere(alphas, radii, sphere.slr)
        device = part.params[0].device.type
        if not available(device):
            _without_kernels(part, settings, part_of_sphere)
            continue
        # The gradient is written too: a GradScaler's fused step leaves it unscaled.
        with _one_layout(part, settings.grad_scale is not None, memory.alike) as dense:
            if device == "cpu":
                cpu.fused_step(dense, settings, part_of_sphere)
            else:
                from adarem.optim.kernels import triton_step

                triton_step.fused_step(dense, settings, part_of_sphere)
        # Kernels write behind autograd's back: graphs that saved a parameter must notice, as after any in-place step.
        torch.autograd.graph.increment_version(part.params)


def _without_kernels(tensors: StepTensors, settings: StepSettings, sphere: Sphere | None) -> None:
    """The same step by foreach, with what a fused step does for a GradScaler."""
    if settings.found_inf is not None and settings.found_inf.item():
        return
    if settings.grad_scale is not None:
        for grad in tensors.grads:
            grad.div_(settings.grad_scale.to(grad.device))
    on_device = not tensors.state_steps[0].is_cpu  # there foreach must not read the counts
    plain = settings._replace(fused=False, foreach=True, capturable=on_device, grad_scale=None, found_inf=None)
    if sphere is None:
        adarem(tensors, plain)
    else:
        adarems(tensors, plain, sphere)


@contextmanager
def _one_layout(tensors: StepTensors, scaled: bool, alike: bool) -> Iterator[StepTensors]:
    """The tensors with the k-th parameter, gradient and m in one dense layout, for every k.

    Kernels walk over memory: the k-th element in memory must be the same element in all three. Where layouts differ, or
    have gaps, all three are copied, and what was written to the copies goes back at the end: gradients if ``scaled``.
    """
    if alike:
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
    if any(original.is_neg() for original, _ in copies):  # which the list operation does not take
        for original, copy in copies:
            original.copy_(copy)
    elif copies:
        compat.foreach_copy_([original for original, _ in copies], [copy for _, copy in copies])


def _alike(*tensors: Tensor) -> tuple[Tensor, ...]:
    if not any(map(Tensor.is_neg, tensors)):
        if all(map(Tensor.is_contiguous, tensors)):
            return tensors
        if len({t.stride() for t in tensors}) == 1 and is_dense(tensors[0]):
            return tensors
    return tuple(t.clone(memory_format=torch.contiguous_format) for t in tensors)
