"""AdaRem on lists of tensors with torch's foreach functions."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from adarem.optim.state import abs_max, coefficients, rates

# Elements whose temporaries are alive together on the CPU. Small enough that malloc hands the same pages out again
# and that they stay in the cache; a whole ResNet-50 at once takes more time in page faults than in arithmetic.
_CPU_CHUNK = 1 << 20


def _multi_tensor_adarem(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    maxima: list[Tensor],
    state_steps: list[Tensor],
    model_maximum: Tensor | None,
    *,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
    lr: float | Tensor | list,
    beta: float,
    lam: float,
    decay_every: int,
    eps: float,
    weight_decay: float,
    maximize: bool,
    capturable: bool,
    differentiable: bool,
) -> None:
    if len(params) == 0:
        return
    if differentiable:
        raise AssertionError("_foreach ops don't support autograd")
    if grad_scale is not None or found_inf is not None:
        raise AssertionError("Expected grad_scale and found_inf to be None")
    compiling = torch.compiler.is_compiling()
    lam_t = coefficients(state_steps, lam, decay_every, as_tensor=capturable or compiling)
    lrs = rates(lr, len(params))
    settings = {"beta": beta, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
    for lists in _by_device_and_dtype(params, grads, exp_avgs, maxima, lam_t, lrs):
        on_host = lists[0][0].device.type == "cpu" and not compiling
        for chunk in _chunks(lists) if on_host else [lists]:
            _update(*chunk, model_maximum, on_host, **settings)
    if not compiling and state_steps[0].is_cpu:
        # A 0-dim tensor on the CPU as the addend: a number would be wrapped into a tensor again for each step.
        torch._foreach_add_(state_steps, torch.tensor(1.0, device="cpu"), alpha=1.0)
    else:
        torch._foreach_add_(state_steps, 1)


def _update(
    params, grads, exp_avgs, maxima, lam_t, lrs, model_maximum, on_host, *, beta, eps, weight_decay, maximize
) -> None:
    dtype = exp_avgs[0].dtype
    if grads[0].dtype != dtype:
        grads = [g.to(dtype) for g in grads]
    if maximize:
        grads = torch._foreach_neg(grads)
    max_m = maxima
    if model_maximum is not None:
        max_m = [model_maximum.to(maxima[0].device, maxima[0].dtype)] * len(params)
    if on_host:
        max_m = torch.stack(max_m).tolist()
    sizes = torch._foreach_abs(grads)
    if eps == 0:
        # m is divided first: |g| m underflows in float32, |g| lam_t / max|m| overflows. For tiny see single.py.
        tiny = torch.finfo(maxima[0].dtype).tiny
        if on_host:
            scales = [c / tiny if m < tiny else c / m for c, m in zip(lam_t, max_m, strict=True)]
        else:
            scales = [c / m.clamp(min=tiny) for c, m in zip(lam_t, max_m, strict=True)]
        updates = torch._foreach_mul(exp_avgs, scales)
        torch._foreach_mul_(updates, sizes)
        torch._foreach_add_(updates, grads)
    else:
        torch._foreach_mul_(sizes, max_m)
        torch._foreach_add_(sizes, eps)
        updates = torch._foreach_div(grads, sizes)
        torch._foreach_mul_(updates, exp_avgs)
        torch._foreach_mul_(updates, grads)
        torch._foreach_mul_(updates, lam_t)
        torch._foreach_add_(updates, grads)
    if weight_decay != 0:
        torch._foreach_add_(updates, params, alpha=weight_decay)
    if isinstance(lrs[0], Tensor):
        torch._foreach_mul_(updates, lrs if lrs[0] is not lrs[-1] else lrs[0].to(params[0].device))
        torch._foreach_sub_(params, updates)
    elif lrs[0] == lrs[-1] and len(set(lrs)) == 1:
        torch._foreach_add_(params, updates, alpha=-lrs[0])
    else:
        torch._foreach_mul_(updates, lrs)
        torch._foreach_sub_(params, updates)

    torch._foreach_lerp_(exp_avgs, grads, 1 - beta)
    # On the CPU foreach's norm takes ten times as long as the tensors one by one.
    on_cpu = params[0].device.type == "cpu"
    torch._foreach_copy_(maxima, [abs_max(m) for m in exp_avgs] if on_cpu else torch._foreach_norm(exp_avgs, math.inf))


def _by_device_and_dtype(*lists: list) -> list[tuple[list, ...]]:
    """The lists cut to tensors of one device and one dtype; numbers go with their parameter."""
    if torch.compiler.is_compiling():
        return [lists]
    params = lists[0]
    grouped = Optimizer._group_tensors_by_device_and_dtype([params], with_indices=True)
    indices = [i for _, i in grouped.values()]
    if len(indices) == 1:
        return [lists]
    return [tuple([x[i] for i in chosen] for x in lists) for chosen in indices]


def _chunks(lists: tuple[list, ...]) -> Iterator[tuple[list, ...]]:
    start, size = 0, 0
    for i, p in enumerate(lists[0]):
        if size and size + p.numel() > _CPU_CHUNK:
            yield tuple(x[start:i] for x in lists)
            start, size = i, 0
        size += p.numel()
    yield tuple(x[start:] for x in lists)
