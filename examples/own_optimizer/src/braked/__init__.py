"""SGD with momentum that brakes where the gradient turns against it."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["BrakedSGD"]


class BrakedSGD(Optimizer):
    """SGD with momentum m, of which an entry is multiplied by ``brake`` when the gradient has the opposite sign.

    With θ the parameters, η ``lr``, β ``momentum``, ρ ``brake``, γ ``weight_decay`` and m₀ = 0, entry by entry::

        g = ∇L(θ) + γ θ
        s = ρ where g m < 0, else 1
        m ← β s m + g
        θ ← θ − η m

    ρ = 1 is ``torch.optim.SGD`` with momentum. ρ = 0 forgets the momentum of an entry whose gradient turns: the restart
    rule of accelerated gradient methods, for each entry alone. No result is claimed for it.

    The state of a parameter is one tensor of its shape and type, ``momentum``.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        brake: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        """
        Raises:
            ValueError: a setting out of range.
        """
        if lr < 0 or weight_decay < 0:
            raise ValueError(f"lr={lr}, weight_decay={weight_decay}: need 0 or more")
        if not 0 <= momentum < 1 or not 0 <= brake <= 1:
            raise ValueError(f"momentum={momentum} needs 0 up to 1 (excluded), brake={brake} needs 0 to 1")
        super().__init__(params, dict(lr=lr, momentum=momentum, brake=brake, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step. ``closure`` computes the loss again and returns it; none is needed."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._step_parameter(p, group)
        return loss

    def _step_parameter(self, p: Tensor, group: dict[str, Any]) -> None:
        g = p.grad.add(p, alpha=group["weight_decay"]) if group["weight_decay"] else p.grad
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        m = state["momentum"]
        turned = g * m < 0
        m.mul_(group["momentum"])
        m[turned] *= group["brake"]
        m.add_(g)
        p.sub_(m, alpha=group["lr"])
