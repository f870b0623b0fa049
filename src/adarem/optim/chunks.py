"""The foreach implementation's pieces: lists of tensors of one device and type, on the CPU as many as fit the cache."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adarem.optim import compat
from adarem.optim.step import Scalars, StepSettings, abs_max

# Elements whose temporaries are alive together on the CPU. Small enough that malloc hands the same pages out again
# and that they stay in the cache; a ResNet-50 at once takes more time in page faults than in arithmetic.
_CPU_CHUNK = 1 << 20


class Chunk(NamedTuple):
    params: list[Tensor]
    grads: list[Tensor]
    exp_avgs: list[Tensor]
    maxima: list[Tensor]
    lam_t: Scalars
    lrs: Scalars


def chunks(everything: Chunk) -> Iterator[Chunk]:
    """Parts of one device and one type each; on the CPU small enough for the cache."""
    for chosen in compat.indices_by_device_and_dtype(everything.params):
        alike = Chunk._make([xs[i] for i in chosen] for xs in everything)
        start, size = 0, 0
        for i, p in enumerate(alike.params):
            if p.is_cpu and size and size + p.numel() > _CPU_CHUNK:
                yield Chunk._make(xs[start:i] for xs in alike)
                start, size = i, 0
            size += p.numel()
        yield Chunk._make(xs[start:] for xs in alike)


def update_chunk(chunk: Chunk, settings: StepSettings, on_host: bool) -> None:
    params, grads, exp_avgs, maxima, lam_t, lrs = chunk
    if any(g.dtype != exp_avgs[0].dtype for g in grads):
        grads = [g.to(exp_avgs[0].dtype) for g in grads]
    if settings.maximize:
        grads = list(compat.foreach_neg(grads))
    shared = settings.model_maximum
    max_m = maxima if shared is None else [shared.to(maxima[0].device, maxima[0].dtype)] * len(params)
    divisors: list[Any] = torch.stack(max_m).tolist() if on_host else max_m
    sizes = compat.foreach_abs(grads)
    if settings.eps == 0:
        # m is divided first: |g| m underflows in float32, |g| lam_t / max|m| overflows. The clamp is that of above.
        tiny = torch.finfo(maxima[0].dtype).tiny
        clamped = [tiny if m < tiny else m for m in divisors] if on_host else [m.clamp(min=tiny) for m in max_m]
        scales: list[Any] = [c / m for c, m in zip(lam_t, clamped, strict=True)]
        updates = compat.foreach_mul(exp_avgs, scales)
        compat.foreach_mul_(updates, sizes)
    else:
        compat.foreach_mul_(sizes, divisors)
        compat.foreach_add_(sizes, settings.eps)
        updates = compat.foreach_div(grads, sizes)
        compat.foreach_mul_(updates, exp_avgs)
        compat.foreach_mul_(updates, grads)
        compat.foreach_mul_(updates, lam_t)
    compat.foreach_add_(updates, grads)
    if settings.weight_decay != 0:
        compat.foreach_add_(updates, params, alpha=settings.weight_decay)
    first = lrs[0]
    if not isinstance(first, Tensor) and len(set(lrs)) == 1:
        compat.foreach_add_(params, updates, alpha=-first)
    else:
        one = isinstance(first, Tensor) and first is lrs[-1]
        compat.foreach_mul_(updates, first.to(params[0].device) if one else lrs)
        compat.foreach_sub_(params, updates)

    compat.foreach_lerp_(exp_avgs, grads, 1 - settings.beta)
    # On the CPU foreach's norm takes ten times as long as the tensors one by one.
    largest = map(abs_max, exp_avgs) if params[0].is_cpu else compat.foreach_norm(exp_avgs, math.inf)
    compat.foreach_copy_(maxima, list(largest))
