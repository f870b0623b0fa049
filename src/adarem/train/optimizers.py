"""Builds an optimizer of ``adarem.run.catalog`` over a network's parameters, from the settings of a config."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from adarem.optim import AdaRem, AdaRemS, param_groups
from adarem.optim.kernels.fused import available
from adarem.run.build import nearest
from adarem.run.catalog import OPTIMIZERS
from adarem.run.errors import UserError


def build_optimizer(
    name: str,
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    hparams: Mapping[str, object],
    steps_per_epoch: int,
    example_input: Tensor | None = None,
    decay_norm_and_bias: bool = True,
    no_decay: Collection[str] = (),
    fused: bool = True,
) -> Optimizer:
    """Builds an optimizer of the catalog over the trainable parameters of ``model``.

    Args:
        name (str): a key of ``adarem.run.catalog.OPTIMIZERS``.
        model (nn.Module): network on its device, in its dtype; not wrapped in DDP.
        lr (float): base learning rate; the schedule sets each group's ``lr`` at every step.
        weight_decay (float): added to the gradient, or decoupled for adamw, adarem and adarem_s.
        hparams (Mapping): the optimizer's other settings: all that the catalog lists. Only ``decay_every`` may be
            missing, as in configs from before it was a setting; it is then "epoch".
        steps_per_epoch (int): steps between two multiplications of AdaRem's lambda, where
            ``decay_every`` is "epoch" (the paper's) and not "step".
        example_input (Tensor, optional): a batch of the shape that training has; adarem_s needs it to find the
            scale-invariant parameters.
        decay_norm_and_bias (bool, optional): False exempts parameters of at most one dimension from weight decay.
        no_decay (Collection[str], optional): kinds of parameters without weight decay, see ``optim.param_groups``.
        fused (bool, optional): False takes AdaRem's steps by foreach, as where there are no kernels.

    Raises:
        UserError: an unknown name or setting, with the nearest valid one; a missing setting.
        ValueError: a value out of range, in
            torch's wording.
    """
    if name not in OPTIMIZERS:
        raise UserError(f"optimizer.name={name}: unknown optimizer; {nearest(name, OPTIMIZERS)}")
    known = OPTIMIZERS[name].hparams
    settings: dict[str, Any] = {"decay_every": "epoch", **hparams} if "decay_every" in known else dict(hparams)
    for key in settings:
        if key not in known:
            valid = ["lr", "weight_decay", *known]
            raise UserError(f"optimizer.{key}: {name} has no such setting; {nearest(key, valid)}")
    for key in known:
        if key not in settings:
            raise UserError(f"optimizer.{key}: missing; add it to the settings of {name}")
    if name == "adarem_s" and example_input is None:
        raise UserError("adarem_s needs example_input to find the scale-invariant parameters")
    groups: list[dict[str, Any]] = param_groups(
        model,
        example_input if name == "adarem_s" else None,
        weight_decay=weight_decay,
        decay_norm_and_bias=decay_norm_and_bias,
        no_decay=no_decay,
    )
    devices = {p.device.type for group in groups for p in group["params"]}
    floating = all(p.is_floating_point() for group in groups for p in group["params"])
    # torch's fused kernels where they exist; None leaves torch's own choice.
    torch_fused = True if floating and devices <= {"cpu", "cuda"} else None
    match name:
        case "sgd" | "sgdm":
            return torch.optim.SGD(groups, lr=lr, weight_decay=weight_decay, fused=torch_fused, **settings)
        case "adam" | "adamw":
            adam = torch.optim.Adam if name == "adam" else torch.optim.AdamW
            betas = (settings["beta1"], settings["beta2"])
            return adam(groups, lr=lr, betas=betas, eps=settings["eps"], weight_decay=weight_decay, fused=torch_fused)
        case "adabound":
            return _adabound(groups, lr, weight_decay, settings)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr=lr, weight_decay=weight_decay, **settings)
        case "adarem" | "adarem_s":
            # Without a C++ compiler (CPU) or Triton (CUDA): several times slower, the same algorithm.
            kernels = fused and torch_fused is not None and all(map(available, devices))
            foreach, fused_flag = (None, True) if kernels else (True, None)
            steps = {**settings, "decay_every": steps_per_epoch if settings["decay_every"] == "epoch" else 1}
            adarem = AdaRem if name == "adarem" else AdaRemS
            return adarem(groups, lr=lr, weight_decay=weight_decay, foreach=foreach, fused=fused_flag, **steps)
    raise UserError(f"optimizer.name={name}: in the catalog, but not built here; add it to build_optimizer")


def _adabound(groups: list[dict[str, Any]], lr: float, weight_decay: float, settings: Mapping[str, Any]) -> Optimizer:
    from pytorch_optimizer import AdaBound  # here: it is slow to import, and other optimizers do without

    optimizer: Optimizer = AdaBound(
        groups,
        lr=lr,
        betas=(settings["beta1"], settings["beta2"]),
        eps=settings["eps"],
        final_lr=settings["final_lr"],
        gamma=settings["gamma"],
        weight_decay=weight_decay,
        weight_decouple=False,  # as in the authors' code: weight decay is added to the gradient
    )
    return optimizer
