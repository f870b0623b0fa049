"""The sphere of AdaRem-S: its radius, its learning rate and the way back onto it.

The parameters of a group with ``spherical=True`` lie on one sphere (``sphere="model"``) or each on its own
(``sphere="tensor"``). ``radii`` has one 0-dim tensor a sphere, so its length tells the two apart.
"""

import torch
from torch import Tensor

from adarem.optim.layout import is_dense
from adarem.optim.state import rates, wide_dtype


def _real(p: Tensor) -> Tensor:
    return torch.view_as_real(p) if torch.is_complex(p) else p


def norm(params: list[Tensor]) -> Tensor:
    """‖θ‖ of all ``params`` together: 0-dim, float64, on the first one's device."""
    device = params[0].device
    # Clones under autograd, which keeps the operands that the step then overwrites.
    reals = [_real(p.clone() if torch.is_grad_enabled() else p) for p in params]
    norms = [torch.linalg.vector_norm(p, dtype=wide_dtype(device)).to(device) for p in reals]
    return torch.linalg.vector_norm(torch.stack(norms))


def sphere_rates(lr: float | Tensor, weight_decay: float, alphas: list[Tensor], keep_tensors: bool) -> list:
    """lr / ((1 - lr weight_decay) alpha²) for each parameter: SLR, with alpha the equivalent network's norm over R.

    Floats for parameters on the CPU, where reading a tensor costs nothing; else 0-dim tensors, never read on the host.
    """
    (lr,) = rates(lr, 1)
    alpha = torch.stack([a.to(alphas[0].device) for a in alphas])
    lrs = lr / ((1 - lr * weight_decay) * alpha.square())
    if keep_tensors or lrs.device.type != "cpu":
        return list(lrs.unbind())
    return lrs.tolist()


def _norms(params: list[Tensor], wide: torch.dtype, foreach: bool, differentiable: bool) -> list[Tensor]:
    """‖θ‖ of each parameter to the rounding of its type at least."""
    if not foreach:
        return [torch.linalg.vector_norm(p.clone() if differentiable else p, dtype=wide) for p in params]
    if params[0].device.type == "cpu" and not torch.compiler.is_compiling():
        return [_blockwise_norm(p) for p in params]
    return list(torch._foreach_norm([p.float() if p.element_size() < 4 else p for p in params]))


def _blockwise_norm(p: Tensor) -> Tensor:
    """‖p‖ by blocks: float32 norms on the CPU add squares up naively, 4e-5 off for 2 million elements at once."""
    block = 1024
    whole = p.numel() // block * block
    flat = p.detach().float() if p.element_size() < 4 else p.detach()
    if whole <= block or not is_dense(p):
        return torch.linalg.vector_norm(flat, dtype=torch.float64)
    flat = flat.as_strided((p.numel(),), (1,))
    norms = [torch.linalg.vector_norm(flat[:whole].view(-1, block), dim=1).double()]
    if whole < p.numel():
        norms.append(torch.linalg.vector_norm(flat[whole:]).double().reshape(1))
    return torch.linalg.vector_norm(torch.cat(norms))


def project(
    params: list[Tensor],
    alphas: list[Tensor],
    radii: list[Tensor],
    decay: float | Tensor,
    *,
    foreach: bool,
    differentiable: bool,
) -> None:
    """θ ← R θ / ‖θ‖ and alpha ← decay · alpha · ‖θ‖ / R, for each sphere."""
    if not params:
        return
    norms = _norms(params, alphas[0].dtype, foreach, differentiable)
    device = alphas[0].device
    norms = torch.stack([n.to(device, alphas[0].dtype) for n in norms])
    if len(radii) == 1:
        shrink = (radii[0].to(device) / torch.linalg.vector_norm(norms)).expand(len(params))
    else:
        shrink = torch.stack([r.to(device) for r in radii]) / norms
    if params[0].element_size() < 4:
        for p, c in zip(params, shrink.unbind(), strict=True):  # c in 16 bits would miss the radius
            p.copy_(p.float() * c.to(p.device))
    elif foreach and len(radii) == 1:
        torch._foreach_mul_(params, shrink[0].to(params[0].dtype))
    elif foreach:
        torch._foreach_mul_(params, list(shrink.to(params[0].dtype).unbind()))
    else:
        for p, c in zip(params, shrink.unbind(), strict=True):
            p.mul_(c.to(p.device))
    grown = (decay / shrink).unbind()
    for alpha, g in zip(alphas, grown, strict=True):
        alpha.mul_(g.to(alpha.device))
