"""AdaRem-S's step: AdaRem's implementations at the sphere's learning rate, then the way back onto the sphere."""

import torch
from torch import Tensor

from adarem.optim.foreach import _multi_tensor_adarem
from adarem.optim.fused import _fused_adarem
from adarem.optim.single import _single_tensor_adarem
from adarem.optim.sphere import project, sphere_rates


def _on_sphere(step, foreach: bool, args: tuple, alphas, radii, model_maximum, slr, lr, weight_decay, settings) -> None:
    """AdaRem's step by ``step`` at the sphere's learning rate, then the way back."""
    params, differentiable = args[0], settings["differentiable"]
    decay: float | Tensor = 1.0
    rate: float | Tensor | list = lr
    if slr:  # the sphere's learning rate stands for the decay
        keep_tensors = differentiable or settings["capturable"] or torch.compiler.is_compiling()
        rate = sphere_rates(lr, weight_decay, alphas, keep_tensors)
        decay = 1 - lr * weight_decay
    step(*args, model_maximum, lr=rate, weight_decay=0.0 if slr else weight_decay, **settings)
    if not slr:
        alphas = [a.clone() for a in alphas]  # Algorithm 2 has no alpha: leave it
    project(params, alphas, radii, decay, foreach=foreach, differentiable=differentiable)


def _single_tensor_adarems(
    params, grads, exp_avgs, maxima, state_steps, alphas, radii, model_maximum, *, slr, lr, weight_decay, **settings
) -> None:
    args = (params, grads, exp_avgs, maxima, state_steps)
    _on_sphere(_single_tensor_adarem, False, args, alphas, radii, model_maximum, slr, lr, weight_decay, settings)


def _multi_tensor_adarems(
    params, grads, exp_avgs, maxima, state_steps, alphas, radii, model_maximum, *, slr, lr, weight_decay, **settings
) -> None:
    args = (params, grads, exp_avgs, maxima, state_steps)
    _on_sphere(_multi_tensor_adarem, True, args, alphas, radii, model_maximum, slr, lr, weight_decay, settings)


def _fused_adarems(
    params, grads, exp_avgs, maxima, state_steps, alphas, radii, model_maximum, *, slr, **settings
) -> None:
    lists = (params, grads, exp_avgs, maxima, state_steps, model_maximum)
    _fused_adarem(*lists, alphas=alphas, radii=radii, slr=slr, **settings)
