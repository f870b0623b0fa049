"""AdaRem and AdaRem-S in plain loops: to read, to copy, and to check every other implementation against.

For dense real parameters, in any torch, without a setting for speed. Nothing is shared with the other modules, not even
the algebra: b is a sign times a quotient, as the paper prints it. In float64 both follow the paper's formulas to
rounding. ``adarem.AdaRem`` and ``adarem.AdaRemS`` take the same settings, and document them.
"""

from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT


def norm(params: list[Tensor]) -> Tensor:
    """Euclidean norm of all parameters together, 0-dim."""
    return torch.stack([p.square().sum() for p in params]).sum().sqrt()


class AdaRem(Optimizer):
    """Algorithm 1. The state of a parameter: ``m``, the moving average of its gradient, and its ``t`` steps done, with
    ``k`` multiplications by lam."""

    def __init__(
        self, params: ParamsT, lr: float = 1e-3, beta: float = 0.9, lam: float = 1.0, decay_every: int | None = None,
        eps: float = 0.0, weight_decay: float = 0.0, scope: str = "tensor", maximize: bool = False,
    ) -> None:  # fmt: skip
        numbers = {"lr": lr, "beta": beta, "lam": lam, "decay_every": decay_every or 1, "eps": eps}
        super().__init__(params, numbers | {"weight_decay": weight_decay, "scope": scope, "maximize": maximize})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        in_model_scope = [p for g in self.param_groups if g["scope"] == "model" for p in g["params"]]
        maxima = [self.state[p]["m"].abs().max() for p in in_model_scope if "m" in self.state[p]]
        model_maximum = max(maxima, default=torch.zeros(()))
        for group in self.param_groups:
            self._step_group(group, model_maximum)
        return loss

    def _step_group(self, group: dict[str, Any], model_maximum: Tensor) -> None:
        for p in group["params"]:
            if p.grad is not None and p.numel():
                self._step_parameter(p, group, model_maximum, group["lr"], group["weight_decay"])

    def _step_parameter(self, p: Tensor, group: dict[str, Any], model_maximum: Tensor, lr: float, decay: float) -> None:
        state = self.state[p]
        m, t, k = state.get("m", torch.zeros_like(p)), state.get("t", 0), state.get("k", 0)
        assert p.grad is not None
        g = -p.grad if group["maximize"] else p.grad
        max_m = model_maximum if group["scope"] == "model" else m.abs().max()
        if group["eps"] > 0:
            b = g * m / (g.abs() * max_m + group["eps"])
        else:
            b = torch.where((g == 0) | (m == 0), torch.zeros_like(m), g.sign() * m / max_m)
        eta = (1 + group["lam"] ** k * b) * lr
        p -= eta * g + lr * decay * p
        state["m"] = group["beta"] * m + (1 - group["beta"]) * g
        state["t"] = t + 1
        state["k"] = k + ((t + 1) % group["decay_every"] == 0)


class AdaRemS(AdaRem):
    """Algorithm 2 with the sphere's learning rate, for groups with ``spherical=True``; AdaRem for all others.

    A spherical parameter's state has ``alpha``, the norm of the equivalent Euclidean network over the radius, besides.
    Unlike ``adarem.AdaRemS`` it brings parameters to a given radius at the first step.
    """

    def __init__(
        self, params: ParamsT, lr: float = 1e-3, beta: float = 0.9, lam: float = 1.0, decay_every: int | None = None,
        eps: float = 0.0, weight_decay: float = 0.0, scope: str = "tensor", maximize: bool = False,
        radius: float | None = None, sphere: str = "model", slr: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(params, lr, beta, lam, decay_every, eps, weight_decay, scope, maximize)
        self.defaults.update(radius=radius, sphere=sphere, slr=slr, spherical=False)
        for group, key in ((g, k) for g in self.param_groups for k in self.defaults):
            group.setdefault(key, self.defaults[key])

    def _step_group(self, group: dict[str, Any], model_maximum: Tensor) -> None:
        if not group["spherical"]:
            super()._step_group(group, model_maximum)
            return
        params = [p for p in group["params"] if p.numel()]
        for sphere in [params] if group["sphere"] == "model" else [[p] for p in params]:
            self._step_sphere(sphere, group, model_maximum)

    def _step_sphere(self, params: list[Tensor], group: dict[str, Any], model_maximum: Tensor) -> None:
        if "radius" not in self.state[params[0]]:
            size = norm(params)
            radius = size if group["radius"] is None else torch.full_like(size, group["radius"])
            for p in params:
                self.state[p].update(radius=radius, alpha=size / radius)
                p *= radius / size
        lr, decay = group["lr"], group["weight_decay"]
        moving = [p for p in params if p.grad is not None]
        for p in moving:
            rate = lr / ((1 - lr * decay) * self.state[p]["alpha"] ** 2) if group["slr"] else lr
            self._step_parameter(p, group, model_maximum, rate, 0.0 if group["slr"] else decay)
        if moving:  # the others stay as they are, and are a part of the sphere
            rest = sum((p.square().sum() for p in params if p.grad is None), torch.zeros(()))
            growth = norm(moving) / (self.state[params[0]]["radius"].square() - rest).sqrt()
            for p in moving:
                p /= growth
                if group["slr"]:
                    self.state[p]["alpha"] = self.state[p]["alpha"] * (1 - lr * decay) * growth
