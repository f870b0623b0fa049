"""The private names of torch that this package uses, each under a public name; no other module may use a private one.

A comment at each name says what replaces it in a torch that no longer has it.
"""

import gc
import inspect
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

# The foreach functions apply one operation to lists of tensors. In their place: a loop over the tensors with the
# operation of the same name (torch.abs, Tensor.add_, ...). Results stay the same; on CUDA each tensor is then a launch
# of its own.
from torch import _foreach_abs as foreach_abs
from torch import _foreach_abs_ as foreach_abs_
from torch import _foreach_add_ as foreach_add_
from torch import _foreach_copy_ as foreach_copy_
from torch import _foreach_div as foreach_div
from torch import _foreach_lerp_ as foreach_lerp_
from torch import _foreach_mul as foreach_mul
from torch import _foreach_mul_ as foreach_mul_
from torch import _foreach_neg as foreach_neg
from torch import _foreach_norm as foreach_norm
from torch import _foreach_sub_ as foreach_sub_

# Tensors without values, of torch.export and torch.compile.
from torch._subclasses.fake_tensor import FakeTensor

# The base class of all BatchNorms. In its place: (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm).
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

# Runs step under no_grad, or with gradients for differentiable=True. In its place: a wrapper that calls step under
# torch.set_grad_enabled(self.defaults["differentiable"]), and torch._dynamo.graph_break() as torch's does.
from torch.optim.optimizer import (
    Optimizer,
    _default_to_fused_or_foreach,
    _get_capturable_supported_devices,
)
from torch.optim.optimizer import _use_grad_for_differentiable as use_grad_for_differentiable
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

try:
    # Compares types, sizes, strides and devices of a list of tensors with those of another one, in one call. In its
    # place: nothing; each step's tensors are then looked at anew.
    from torch._C._dynamo.guards import TensorGuards as TensorGuard
except ImportError:
    TensorGuard = None  # type: ignore[assignment,misc]

__all__ = [
    "BatchNorm",
    "TensorGuard",
    "are_as_guarded",
    "check_capturable",
    "check_graph_capture",
    "default_to_foreach",
    "eager",
    "fake_mode_is_active",
    "foreach_abs",
    "foreach_abs_",
    "foreach_add_",
    "foreach_copy_",
    "foreach_div",
    "foreach_lerp_",
    "foreach_mul",
    "foreach_mul_",
    "foreach_neg",
    "foreach_norm",
    "foreach_sub_",
    "flat_parts",
    "in_state_initialization",
    "in_zero_redundancy",
    "indices_by_device_and_dtype",
    "is_fake",
    "is_wrapper_tensor",
    "is_zero_tensor",
    "tensor_guard",
    "unwrap",
    "use_grad_for_differentiable",
]

# Warns when a capturable optimizer runs outside of a CUDA graph and refuses to be captured without the flag. torch
# renamed it; torch >= 2.6 has one of the two names. In its place: nothing; CUDA refuses what it cannot capture.
_CAPTURE_CHECK = next(
    name
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check")
    if hasattr(Optimizer, name)
)


_is_nested: Callable[[Tensor], bool] = attrgetter("is_nested")


def check_graph_capture(optimizer: Optimizer) -> None:
    """Raises RuntimeError if a CUDA graph captures an optimizer that is not capturable."""
    getattr(optimizer, _CAPTURE_CHECK)()


def default_to_foreach(params: list[Tensor], differentiable: bool) -> bool:
    """Whether torch's own optimizers would choose foreach for ``params``: plain tensors on CUDA, without autograd."""
    # In its place: not differentiable and all(type(p) in (Tensor, nn.Parameter) and p.is_cuda for p in params).
    _, foreach = _default_to_fused_or_foreach(params, differentiable, use_fused=False)
    return foreach


def check_capturable(params: list[Tensor], state_steps: list[Tensor]) -> None:
    """Raises AssertionError if a device cannot capture its part of a step in a graph."""
    if torch.compiler.is_compiling():
        return
    devices = _get_capturable_supported_devices()  # In its place: ["cuda", "xpu", "hpu", "xla"].
    for p, step in zip(params, state_steps, strict=True):
        if not (p.device.type == step.device.type and p.device.type in devices):
            raise AssertionError(f"If capturable=True, params and state_steps must be on supported devices: {devices}.")


def is_wrapper_tensor(p: Tensor) -> bool:
    """Whether a tensor wraps others and has no memory of its own."""
    return is_traceable_wrapper_subclass(p)  # In its place: hasattr(p, "__tensor_flatten__").


def is_zero_tensor(p: Tensor) -> bool:
    """Whether it is one of autograd's zeros without memory."""
    zero: bool = p._is_zerotensor()  # In its place: False; only forward-mode derivatives make them.
    return zero


def fake_mode_is_active() -> bool:
    """Whether operations see FakeTensors only, as while torch.export or torch.compile trace."""
    # In its place: type(torch.empty(0)) is not Tensor.
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None


def is_fake(kind: type[Tensor]) -> bool:
    """Whether tensors of that type have a type and a shape, and no values."""
    return issubclass(kind, FakeTensor)  # In its place: kind.__name__ == "FakeTensor".


def flat_parts(params: Sequence[Tensor]) -> bool:
    """Whether any of ``params`` is FSDP1's: a flat one that joins others, or one process's part of a parameter."""
    # In its place: False; torch without these names has no FSDP1.
    marked = [p for p in params if getattr(p, "_fsdp_flattened", False)]
    if not marked:
        return False
    # With use_orig_params and NO_SHARD, or in one process, they are complete parameters; only the handles know.
    from torch.distributed.fsdp._flat_param import FlatParamHandle

    handles = [x for x in gc.get_objects() if type(x) is FlatParamHandle]
    complete = {id(p) for h in handles if not h.uses_sharded_strategy for p in h.flat_param._params or ()}
    return any(id(p) not in complete for p in marked)


def in_zero_redundancy() -> bool:
    """Whether a ZeroRedundancyOptimizer is building its local optimizer, for its process's share of the parameters."""
    # In its place: False, and a maximum over the model would be that over a process's share.
    return _is_calling("torch.distributed.optim.zero_redundancy_optimizer", _zero_builder)


def in_state_initialization() -> bool:
    """Whether torch.distributed.checkpoint calls step, at rate 0 and gradients 0, to have the state made."""
    # In its place: False; that step then counts as one.
    return _is_calling("torch.distributed.checkpoint.state_dict", lambda module: module._init_optim_state)


def _zero_builder(module: Any) -> Any:
    return module.ZeroRedundancyOptimizer._init_local_optimizer


def _is_calling(module_name: str, function_in: Callable[[Any], Any]) -> bool:
    """Whether a function of a module, if that is imported, is among the callers."""
    module = sys.modules.get(module_name)
    code = None
    try:
        code = inspect.unwrap(function_in(module)).__code__
    except AttributeError:  # not imported, or not in this version of torch
        return False
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def indices_by_device_and_dtype(params: list[Tensor]) -> list[list[int]]:
    """Indices of ``params``, grouped by device and type; one group with all of them under torch.compile."""
    # In its place: a dict of lists by (p.device, p.dtype), ten times as slow as torch's.
    if torch.compiler.is_compiling():
        return [list(range(len(params)))]
    tensors: list[list[Tensor | None]] = [list(params)]
    grouped = Optimizer._group_tensors_by_device_and_dtype(tensors, with_indices=True)
    return [indices for _, indices in grouped.values()]


def tensor_guard(tensors: Sequence[Tensor]) -> "TensorGuard | None":
    """What :func:`are_as_guarded` compares other tensors with; None in a torch that has no such thing.

    Raises:
        RuntimeError, NotImplementedError: a tensor without strides.
    """
    if TensorGuard is None:
        return None
    sizes, strides = ([list(map(int, of(x))) for x in tensors] for of in (Tensor.size, Tensor.stride))
    return TensorGuard(*tensors, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides)  # type: ignore[arg-type]


def are_as_guarded(guard: "TensorGuard", tensors: Sequence[Tensor]) -> bool:
    """Whether as many tensors, no two of them the same object, have the types, sizes, strides and devices of before.

    Whatever the dispatcher distinguishes is part of a type: layout, negation, inference, functorch's wrappers.
    """
    # Nested tensors have no strides, and torch's comparison ends the process on being told so.
    return not any(map(_is_nested, tensors)) and bool(guard.check(*tensors))


def unwrap(model: nn.Module) -> tuple[nn.Module, str]:
    """The model inside torch.compile's wrapper and DDP's, and what these put in front of its parameters' names."""
    prefix = ""
    while True:
        # OptimizedModule has its model as _orig_mod. In its place: torch._dynamo.OptimizedModule, which takes seconds
        # to import.
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model, prefix = inner, prefix + "_orig_mod."
        elif isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model, prefix = model.module, prefix + "module."
        else:
            return model, prefix


def eager(model: nn.Module) -> AbstractContextManager[object]:
    """Runs compiled parts of ``model`` as they are written."""
    compiled = any(hasattr(module, "_orig_mod") for module in model.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def import_dynamo() -> None:
    """Imports ``torch._dynamo``, which takes seconds and which every optimizer of torch imports at its first step."""
    import torch._dynamo  # noqa: F401
