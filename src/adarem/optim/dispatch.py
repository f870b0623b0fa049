"""The way from an optimizer's step to one of its implementations, as torch's own optimizers go it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, _default_to_fused_or_foreach, _get_capturable_supported_devices

# torch renamed it; both names are private, neither exists in all of torch >= 2.6.
graph_capture_check = next(
    getattr(Optimizer, name)
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check")
    if hasattr(Optimizer, name)
)


def choose(
    single: Callable[..., None],
    multi: Callable[..., None],
    one_pass: Callable[..., None],
    params: list[Tensor],
    state_steps: list[Tensor],
    *,
    foreach: bool | None,
    capturable: bool,
    differentiable: bool,
    fused: bool | None,
) -> Callable[..., None]:
    """The implementation that the flags ask for; where they leave it open, foreach on CUDA and single elsewhere."""
    if capturable:
        check_capturable(params, state_steps)
    if fused:
        return one_pass
    if foreach is None and fused is None:
        _, foreach = _default_to_fused_or_foreach(params, differentiable, use_fused=False)
    return multi if foreach else single


def check_capturable(params: list[Tensor], state_steps: list[Tensor]) -> None:
    if torch.compiler.is_compiling():
        return
    devices = _get_capturable_supported_devices()
    for p, step in zip(params, state_steps, strict=True):
        if not (p.device.type == step.device.type and p.device.type in devices):
            raise AssertionError(f"If capturable=True, params and state_steps must be on supported devices: {devices}.")


def real_views(*lists: list[Tensor]) -> list[list[Tensor]]:
    """The lists with complex tensors seen as their real and imaginary parts."""
    return [[torch.view_as_real(x) if torch.is_complex(x) else x for x in tensors] for tensors in lists]
