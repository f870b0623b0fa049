"""Parameters spread over processes as DTensors: FSDP2, HSDP, tensor parallel and their combinations.

Each process steps on its own part, a plain tensor, with any implementation. What spans the parts, maxima and norms, is
then reduced over the mesh dimensions on which a parameter is sharded, in one collective for all parameters alike.
"""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

from adarem.optim import compat
from adarem.optim.step import StepTensors

LOAD_BY = "load it with torch.distributed.checkpoint.state_dict.set_optimizer_state_dict"

if TYPE_CHECKING:
    from torch.distributed import ReduceOp
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor

    from adarem.optim.state import Group


def is_sharded(p: Tensor) -> "TypeGuard[DTensor]":
    """Whether ``p`` is a DTensor."""
    # Where nobody has imported the module there is no DTensor; importing it here would take a second.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(p, module.DTensor)


def any_sharded(params: Sequence[Tensor]) -> bool:
    """Whether any of ``params`` is a DTensor."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and any(issubclass(kind, module.DTensor) for kind in set(map(type, params)))


def check_complete(groups: "list[Group]", over_model: "Callable[[Group], str | None]", has_share: bool) -> None:
    """Refuses parameters from which a process cannot know maxima and norms.

    Args:
        over_model: a group's setting by which they are over several parameters, if any.
        has_share: whether the parameters are one process's share.

    Raises:
        RuntimeError: in every process alike.
    """
    for group in groups:
        if compat.flat_parts(group["params"]):
            raise RuntimeError(
                "AdaRem does not support FullyShardedDataParallel's flat parameters, which hide the tensors: "
                "use torch.distributed.fsdp.fully_shard"
            )
        if group["differentiable"] and any_sharded(group["params"]):
            raise RuntimeError("`differentiable` does not support DTensor params")
        if has_share and (key := over_model(group)):
            raise RuntimeError(
                f"{key}='model' needs all parameters, and ZeroRedundancyOptimizer gives each process a share of them: "
                f"use {key}='tensor', or torch.distributed.fsdp.fully_shard in its place"
            )


def spread_alike(p: Tensor, m: Tensor) -> bool:
    """Whether the parts of a parameter and of its m are in the same processes, or both tensors are plain."""
    if is_sharded(p) and is_sharded(m):
        return p.placements == m.placements and p.device_mesh == m.device_mesh
    return not is_sharded(p) and not is_sharded(m)


def local_part(p: Tensor) -> Tensor:
    """The part of ``p`` in this process, sharing its memory: a plain tensor, empty or even ``p`` itself."""
    if not is_sharded(p):
        return p
    part: Tensor = p.to_local()
    wait = getattr(part, "wait", None)  # the result of a collective that may be under way
    return part if wait is None else wait()


def local_parts(tensors: StepTensors) -> StepTensors:
    """The tensors with parameters, gradients and m replaced by their parts in this process.

    Raises:
        RuntimeError: a gradient or m is not spread over the processes as its parameter is.
    """
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for p, grad, m in zip(tensors.params, tensors.grads, tensors.exp_avgs, strict=True):
        if not is_sharded(p):
            parts.append((p, grad, m))
            continue
        if not is_sharded(grad):
            raise RuntimeError("A DTensor param requires a DTensor gradient: distribute it like the param")
        if not spread_alike(p, m):
            raise RuntimeError(f"The state of a DTensor param is not distributed like the param: {LOAD_BY}")
        if grad.placements != p.placements:  # Partial: each process has a summand
            grad = grad.redistribute(p.device_mesh, p.placements)
        part = (local_part(p), local_part(grad), local_part(m))
        if part[0].numel() == 0:
            # Nothing here, but count and maximum belong to every process: a 0 takes the place of the missing part.
            part = (part[0].new_zeros(1), part[1].new_zeros(1), part[2].new_zeros(1))
        parts.append(part)
    params, grads, exp_avgs = map(list, zip(*parts, strict=True))
    return tensors._replace(params=params, grads=grads, exp_avgs=exp_avgs)


def finish_step(params: Sequence[Tensor], maxima: Sequence[Tensor]) -> None:
    """Replaces max|m| of the parts in this process by that over all of each parameter; NaN if any element is.

    Called after a step on the parts of ``params``, in every process.
    """
    # The bits of a number that is not negative, as an integer, keep its order and put NaN above infinity. The maximum
    # of floats may lose NaN on the way.
    bits = [m.abs().double().view(torch.int64) for m in maxima]
    for m, b, done in zip(maxima, bits, _all_reduce(params, bits, "MAX"), strict=True):
        if done is not b:
            m.copy_(done.view(torch.float64))
    if not torch.compiler.is_compiling():
        # Their parts were written: graphs that saved a parameter must notice, as after any in-place step.
        torch.autograd.graph.increment_version([p for p in params if is_sharded(p)])


def complete_norms(params: Sequence[Tensor], norms: Sequence[Tensor]) -> list[Tensor]:
    """The norm of each parameter from the norms of the parts in this process, 0-dim each."""
    squares = [n.square() for n in norms]
    sums = _all_reduce(params, squares, "SUM")
    return [n if total is own else total.sqrt() for n, own, total in zip(norms, squares, sums, strict=True)]


def _all_reduce(params: Sequence[Tensor], values: Sequence[Tensor], op: str) -> list[Tensor]:
    """``values``, one 0-dim tensor for each parameter, reduced over the processes that have different parts of it."""
    import torch.distributed as dist

    alike: dict[tuple[DeviceMesh, tuple[int, ...]], list[int]] = {}
    for i, p in enumerate(params):
        if is_sharded(p) and (dims := _sharded_dims(p)):
            alike.setdefault((p.device_mesh, dims), []).append(i)
    reduced = list(values)
    operation: ReduceOp.RedOpType = getattr(dist.ReduceOp, op)
    for (mesh, dims), indices in alike.items():
        # On the mesh's kind of device: parameters that are offloaded to the CPU are reduced on the GPU.
        vector = torch.stack([values[i] for i in indices]).to(mesh.device_type)
        for dim in dims:
            dist.all_reduce(vector, operation, group=mesh.get_group(dim))
        for i, value in zip(indices, vector.unbind(), strict=True):
            reduced[i] = value.to(values[i].device)
    return reduced


def _sharded_dims(p: "DTensor") -> tuple[int, ...]:
    """The dimensions of the mesh along which processes have different elements of ``p``."""
    if p.device_mesh.get_coordinate() is None:
        return ()  # this process has no part in the mesh
    return tuple(
        i for i, placement in enumerate(p.placements) if not placement.is_replicate() and p.device_mesh.size(i) > 1
    )
