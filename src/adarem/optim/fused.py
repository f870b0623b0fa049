"""AdaRem and AdaRem-S in one pass over memory: compiled C++ on the CPU, Triton on CUDA."""

import importlib.util

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from adarem.optim import cpu
from adarem.optim.layout import one_layout


def available(device_type: str) -> bool:
    """Whether ``fused=True`` works here for parameters on that device; compiles the CPU's kernels if need be."""
    if device_type == "cpu":
        return cpu.available()
    return device_type == "cuda" and importlib.util.find_spec("triton") is not None


def _fused_adarem(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    maxima: list[Tensor],
    state_steps: list[Tensor],
    model_maximum: Tensor | None,
    *,
    alphas: list[Tensor] | None = None,
    radii: list[Tensor] | None = None,
    slr: bool = False,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
    lr: float | Tensor,
    beta: float,
    lam: float,
    decay_every: int,
    eps: float,
    weight_decay: float,
    maximize: bool,
    capturable: bool,
    differentiable: bool,
) -> None:
    """AdaRem's step, or with ``alphas`` and ``radii`` AdaRem-S's (see :func:`adarem.optim.adarem_s.adarems`)."""
    if not params:
        return
    if differentiable:
        raise RuntimeError("`fused` does not support `differentiable`")
    settings = {
        "slr": slr,
        "lr": lr,
        "beta": beta,
        "lam": lam,
        "decay_every": decay_every,
        "eps": eps,
        "weight_decay": weight_decay,
        "maximize": maximize,
    }
    grouped = Optimizer._group_tensors_by_device_and_dtype([params], with_indices=True)
    if radii and len(radii) == 1 and len(grouped) > 1:
        raise RuntimeError(
            "`fused=True` with sphere='model' requires all spherical params of a group on one device, of one dtype"
        )
    for (device, _), (_, chosen) in grouped.items():
        lists = [params, grads, exp_avgs, maxima, state_steps]
        if len(grouped) > 1:
            lists = [[x[i] for i in chosen] for x in lists]
        if device.type == "cpu":
            # Reading a CPU tensor on the host costs nothing.
            if found_inf is not None and found_inf.item():
                continue
            step = cpu.fused_step
        else:
            if not available(device.type):
                raise RuntimeError("`fused=True` on CUDA needs Triton: pip install triton, or leave fused unset")
            from adarem.optim import triton_step

            step = triton_step.fused_step
            settings["found_inf"] = found_inf
        # The gradient is written too: a GradScaler's fused step leaves it unscaled.
        with one_layout(*lists[:3]) as dense:
            step(
                *dense,
                *lists[3:],
                model_maximum,
                alphas=None if alphas is None else [alphas[i] for i in chosen],
                radii=[] if radii is None else radii if len(radii) == 1 else [radii[i] for i in chosen],
                grad_scale=grad_scale,
                **settings,
            )
        # Kernels write behind autograd's back: graphs that saved a parameter must notice, as after any in-place step.
        torch.autograd.graph.increment_version(lists[0])
