"""b, by which AdaRem scales each element's rate, read out of an optimizer before its step."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from adarem.optim import sharded
from adarem.optim.adarem import AdaRem
from adarem.optim.state import Group
from adarem.optim.step import wide_dtype

__all__ = ["Agreement", "agreement"]


class Agreement(NamedTuple):
    """How far one parameter's gradient agrees with its own past: an element's rate is ``lr * (1 + weight * b)``."""

    param: Tensor
    b: Tensor  # -1 to 1, of the parameter's shape; of a complex one [..., 2], its real and imaginary parts
    weight: Tensor  # lamᵏ, 0-dim


@torch.no_grad()
def agreement(optimizer: AdaRem, grad_scale: Tensor | None = None) -> Iterator[Agreement]:
    """b of each parameter that has a gradient, as the next ``step`` will take it. Changes nothing.

    Call it between the backward pass and ``step``. No value is asked for, so that the host waits for no device. One
    parameter's b is made at a time, in m's type; before a parameter's first step m, and so b, is 0. On a sphere the
    rate is the sphere's in place of ``lr``.

    Args:
        optimizer (AdaRem or AdaRemS): whose state and gradients are read.
        grad_scale (Tensor, optional): 0-dim, by which the gradients are still multiplied, as under a GradScaler. Only
            b with ``eps`` above 0 depends on it. (default: None)

    Raises:
        RuntimeError: a parameter is a DTensor.

    Example:
        >>> loss.backward()
        >>> shares = [(a.b > 0).float().mean() for a in agreement(optimizer)]
        >>> optimizer.step()
    """
    of_model = optimizer._model_maximum()
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is None or not p.numel():
                continue
            if sharded.is_sharded(p):
                raise RuntimeError("agreement does not support DTensor params: call it where parameters are complete")
            state = optimizer.state.get(p, {})
            if "exp_avg" not in state:
                like = torch.view_as_real(p) if p.is_complex() else p
                yield Agreement(p, torch.zeros_like(like), torch.ones((), device=p.device))
                continue
            maximum = state["exp_avg_max"] if group["scope"] == "tensor" or of_model is None else of_model
            # As continue_decay would have it, where decay_every was changed since the last step.
            multiplied = torch.div(state["step"], group["counted_every"], rounding_mode="floor")
            count = multiplied + state.get("decay_offset", 0)
            weight = group["lam"] ** count.to(wide_dtype(count.device))
            yield Agreement(p, _b(p.grad, state["exp_avg"], maximum, group, grad_scale), weight)


def _b(grad: Tensor, m: Tensor, maximum: Tensor, group: Group, grad_scale: Tensor | None) -> Tensor:
    grad = grad.to(m.dtype)
    if m.is_complex():
        grad, m = torch.view_as_real(grad), torch.view_as_real(m)
    maximum = maximum.to(m.device, m.dtype)
    if group["eps"] == 0:
        # Where max|m| is 0 so is m, hence b: the clamp only keeps 0 / 0 out.
        b = grad.sign().mul_(m).div_(maximum.clamp(min=torch.finfo(m.dtype).tiny))
    else:
        grad = grad if grad_scale is None else grad / grad_scale
        b = grad / (grad.abs() * maximum + group["eps"]) * m
    return b.neg_() if group["maximize"] else b
