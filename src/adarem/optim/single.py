"""AdaRem one tensor after the other: the readable implementation, and the one that autograd can pass through."""

import torch
from torch import Tensor

from adarem.optim.state import abs_max, coefficients, rates


def _single_tensor_adarem(
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
    if grad_scale is not None or found_inf is not None:
        raise AssertionError("Expected grad_scale and found_inf to be None")
    lrs = rates(lr, len(params))
    lam_t = coefficients(state_steps, lam, decay_every, as_tensor=capturable or torch.compiler.is_compiling())
    for i, param in enumerate(params):
        exp_avg, maximum = exp_avgs[i], maxima[i]
        grad = grads[i].to(exp_avg.dtype)
        if maximize:
            grad = -grad
        # Autograd needs the values of before where the state is overwritten below.
        m = exp_avg.clone() if differentiable else exp_avg
        max_m = maximum if model_maximum is None else model_maximum.to(maximum.device, maximum.dtype)
        if differentiable:
            max_m = max_m.clone()

        if eps == 0:
            # (lam_t b) g = lam_t |g| m / max|m|: exact for every g and m. Where max|m| is 0 so is m, hence b; the
            # clamp to the smallest normal number only keeps lam_t / max|m| finite, and lets NaN through.
            scale = lam_t[i] / max_m.clamp(min=torch.finfo(max_m.dtype).tiny)
            update = torch.mul(m, scale).mul_(grad.abs())
        else:
            update = grad / (grad.abs() * max_m + eps) * m * grad * lam_t[i]
        update.add_(grad)
        if weight_decay != 0:
            update.add_(param, alpha=weight_decay)
        if isinstance(lrs[i], Tensor):
            param.sub_(update.mul_(lrs[i]))  # alpha= would read the tensor on the host
        else:
            param.add_(update, alpha=-lrs[i])

        exp_avg.lerp_(grad, 1 - beta)
        maximum.copy_(abs_max(exp_avg.clone() if differentiable else exp_avg))
        state_steps[i] += 1
