"""The one table of the optimizers that the harness offers, under the names of its configs."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from adarem.optim.adarem import AdaRem
from adarem.optim.adarem_s import AdaRemS
from adarem.optim.kernels.fused import available
from adarem.optim.groups import param_groups


@dataclass(frozen=True)
class Entry:
    """``hyper`` is what the optimizer takes beside lr and weight_decay, with the defaults."""

    hyper: Mapping[str, Any]
    make: Callable[..., Optimizer]  # (groups, lr, weight_decay, steps_per_epoch, hyper)


def _sgd(groups, lr, weight_decay, steps_per_epoch, hyper) -> Optimizer:
    return torch.optim.SGD(groups, lr=lr, weight_decay=weight_decay, fused=_fused(groups), **hyper)


def _adam(groups, lr, weight_decay, steps_per_epoch, hyper, cls=torch.optim.Adam) -> Optimizer:
    betas = (hyper["beta1"], hyper["beta2"])
    return cls(groups, lr=lr, betas=betas, eps=hyper["eps"], weight_decay=weight_decay, fused=_fused(groups))


def _adamw(groups, lr, weight_decay, steps_per_epoch, hyper) -> Optimizer:
    return _adam(groups, lr, weight_decay, steps_per_epoch, hyper, torch.optim.AdamW)


def _adabound(groups, lr, weight_decay, steps_per_epoch, hyper) -> Optimizer:
    from pytorch_optimizer import AdaBound  # here: `from adarem import AdaRem` needs torch alone

    # Not decoupled, as in the authors' code: weight decay is added to the gradient.
    return AdaBound(
        groups,
        lr=lr,
        betas=(hyper["beta1"], hyper["beta2"]),
        eps=hyper["eps"],
        final_lr=hyper["final_lr"],
        gamma=hyper["gamma"],
        weight_decay=weight_decay,
        weight_decouple=False,
    )


def _rmsprop(groups, lr, weight_decay, steps_per_epoch, hyper) -> Optimizer:
    return torch.optim.RMSprop(groups, lr=lr, weight_decay=weight_decay, **hyper)


def _adarem(groups, lr, weight_decay, steps_per_epoch, hyper, cls=AdaRem) -> Optimizer:
    decay_every = {"epoch": steps_per_epoch, "step": 1}[hyper["decay_every"]]
    rest = {k: v for k, v in hyper.items() if k != "decay_every"}
    # Without a C++ compiler (CPU) or Triton (CUDA): several times slower, the same algorithm.
    devices = {p.device.type for group in groups for p in group["params"]}
    fused = True if _fused(groups) and all(map(available, devices)) else None
    return cls(groups, lr=lr, weight_decay=weight_decay, decay_every=decay_every, fused=fused, **rest)


def _adarem_s(groups, lr, weight_decay, steps_per_epoch, hyper) -> Optimizer:
    return _adarem(groups, lr, weight_decay, steps_per_epoch, hyper, AdaRemS)


_BETAS = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
_ADAREM = {"beta": 0.9, "lam": 0.999, "decay_every": "epoch", "eps": 0.0, "scope": "tensor"}

OPTIMIZERS: dict[str, Entry] = {
    "sgd": Entry({}, _sgd),
    "sgdm": Entry({"momentum": 0.9, "nesterov": False, "dampening": 0.0}, _sgd),
    "adam": Entry(_BETAS, _adam),
    "adamw": Entry(_BETAS, _adamw),
    "adabound": Entry({**_BETAS, "final_lr": 0.1, "gamma": 1e-3}, _adabound),
    "rmsprop": Entry({"alpha": 0.99, "eps": 1e-8, "momentum": 0.0}, _rmsprop),
    "adarem": Entry(_ADAREM, _adarem),
    "adarem_s": Entry({**_ADAREM, "sphere": "model", "slr": True}, _adarem_s),
}


def _fused(groups: list[dict]) -> bool | None:
    """torch's fused kernels where they exist: CPU and CUDA, floating point. None leaves torch's own choice."""
    params = [p for group in groups for p in group["params"]]
    return True if all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in params) else None


def _unknown(what: str, name: str, valid) -> ValueError:
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'?" if close else "valid: " + ", ".join(valid)
    return ValueError(f"{what} '{name}': {hint}")


def build_optimizer(
    name: str,
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    hyper: Mapping[str, Any],
    steps_per_epoch: int,
    example_input: Tensor | None = None,
    decay_norm_and_bias: bool = True,
) -> Optimizer:
    """Builds an optimizer of the table over the trainable parameters of ``model``.

    Args:
        name (str): a key of ``OPTIMIZERS``.
        model (nn.Module): network on its device, in its dtype; not wrapped in DDP.
        lr (float): base learning rate; the schedule sets each group's ``lr`` at every step.
        weight_decay (float): added to the gradient, or decoupled for adamw, adarem and adarem_s.
        hyper (Mapping): the optimizer's own settings; what is missing takes the table's default.
        steps_per_epoch (int): steps between two multiplications of AdaRem's lambda, where
            ``decay_every`` is "epoch" (the paper's, and the default) and not "step".
        example_input (Tensor, optional): a batch of the shape that training has; adarem_s needs it to find the
            scale-invariant parameters.
        decay_norm_and_bias (bool, optional): False exempts parameters of at most one dimension from weight decay.

    Raises:
        ValueError: unknown name or setting, with the nearest valid one; a bad value, in torch's wording.
    """
    if name not in OPTIMIZERS:
        raise _unknown("unknown optimizer", name, OPTIMIZERS)
    entry = OPTIMIZERS[name]
    for key in hyper:
        if key not in entry.hyper:
            raise _unknown(f"{name} has no setting", key, ("lr", "weight_decay", *entry.hyper))
    spherical = name == "adarem_s"
    if spherical and example_input is None:
        raise ValueError("adarem_s needs example_input to find the scale-invariant parameters")
    groups = param_groups(
        model,
        example_input if spherical else None,
        weight_decay=weight_decay,
        decay_norm_and_bias=decay_norm_and_bias,
    )
    return entry.make(groups, lr, weight_decay, steps_per_epoch, {**entry.hyper, **hyper})
