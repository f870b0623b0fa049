"""AdaRem as a ``torch.optim`` optimizer, built like torch's own: class, functional form, three implementations."""

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT, _use_grad_for_differentiable

from adarem.optim.dispatch import choose, graph_capture_check, real_views
from adarem.optim.foreach import _multi_tensor_adarem
from adarem.optim.fused import _fused_adarem
from adarem.optim.single import _single_tensor_adarem
from adarem.optim.state import (
    check_fused,
    check_settings,
    init_state,
    model_maximum,
    restore_state_dtypes,
    step_to_tensor,
)

__all__ = ["AdaRem", "adarem"]


class AdaRem(Optimizer):
    r"""Implements AdaRem: each element's learning rate grows where the gradient agrees with its own past.

    .. math::
       \begin{aligned}
            &\rule{110mm}{0.4pt}                                                                 \\
            &\textbf{input}      : \hat\eta_t \text{ (lr)}, \: \beta, \: \lambda \text{ (lam)}, \: \theta_0
                \text{ (params)}, \: f(\theta) \text{ (objective)},                              \\
            &\hspace{13mm} \gamma \text{ (weight decay)}, \: \epsilon, \: \textit{maximize}      \\
            &\textbf{initialize} : m_0 \leftarrow 0                                             \\[-1.ex]
            &\rule{110mm}{0.4pt}                                                                 \\
            &\textbf{for} \: t=0 \: \textbf{to} \: \ldots \: \textbf{do}                         \\
            &\hspace{5mm} g_t \leftarrow \nabla_{\theta} f_t (\theta_t), \text{ negated to maximize} \\
            &\hspace{5mm} b_t \leftarrow \frac{g_t \, m_t}{|g_t| \max|m_t| + \epsilon}, \quad
                0 \text{ where } g_t \text{ or } m_t \text{ is } 0                               \\
            &\hspace{5mm} k \leftarrow \lfloor t \, / \, \textit{decay\_every} \rfloor             \\
            &\hspace{5mm} \theta_{t+1} \leftarrow \theta_t - \hat\eta_t (1 + \lambda^k b_t) \odot g_t
                - \hat\eta_t \gamma \theta_t                                                    \\
            &\hspace{5mm} m_{t+1} \leftarrow \beta m_t + (1 - \beta) g_t                         \\
            &\rule{110mm}{0.4pt}                                                          \\[-1.ex]
            &\bf{return} \:  \theta_t                                                     \\[-1.ex]
            &\rule{110mm}{0.4pt}                                                          \\[-1.ex]
       \end{aligned}

    This is Algorithm 1 of `Adaptive Gradient Method with Resilience and Momentum`. The paper sets
    :math:`\lambda = 0.999`, multiplied once an epoch, and a base rate of 0.4 for ImageNet at batch 1024 with a cosine
    schedule. It gives no :math:`\beta` and no :math:`\epsilon`; their defaults are ours.

    Args:
        params (iterable): iterable of parameters or named_parameters to optimize, or of dicts defining groups
        lr (float, Tensor, optional): learning rate, 0 or more (default: 1e-3, torch's; the paper's is 0.4)
        beta (float, optional): share of the old m in the moving average of the gradient, 0 to 1 (default: 0.9)
        lam (float, optional): factor of b after each ``decay_every`` steps, 0 to 1. The coefficient that a
            parameter's next step takes is ``lam ** (state["step"] // decay_every)`` (default: 0.999)
        decay_every (int, optional): steps between two multiplications by ``lam``. 1 is the letter of Algorithm 1, the
            number of steps in an epoch is what the paper found to be enough (default: 1)
        eps (float, optional): 0 computes b in its sign form, ``sign(g) m / max|m|``, which no gradient is too small
            for; a positive value adds to the denominator as printed, and shrinks b where ``|g| max|m|`` is not far
            above it (default: 0)
        weight_decay (float, optional): decoupled weight decay, scaled by ``lr`` and not by b (default: 0)
        scope (str, optional): ``"tensor"`` takes ``max|m|`` over each parameter tensor, ``"model"`` over all parameters
            of all groups with this scope, the letter of the paper, which leaves b near 0 (default: "tensor")
        maximize (bool, optional): maximize the objective instead of minimizing it (default: False)
        foreach (bool, optional): whether the implementation on lists of tensors is used. None takes it on CUDA
            (default: None)
        capturable (bool, optional): whether this instance is safe to capture in a CUDA graph (default: False)
        differentiable (bool, optional): whether autograd passes through the step (default: False)
        fused (bool, optional): True takes one pass over memory: Triton on CUDA; on the CPU a C++ kernel, compiled in
            seconds when it is first used, which needs a C++ compiler. None does not (default: None)

    The state of a parameter is ``step``, ``exp_avg`` (m; float32 for 16-bit parameters) and ``exp_avg_max``
    (``max|m|``). Complex parameters are seen as their real and imaginary parts, except by ``fused``.

    Raises:
        ValueError: a setting is out of its range, in a group or as a default.
        RuntimeError: sparse gradients; ``fused`` together with ``foreach`` or ``differentiable``; ``fused`` on the CPU
            without a C++ compiler, or on an unsupported device or type.

    Example:
        >>> optimizer = AdaRem(model.parameters(), lr=0.4, decay_every=len(loader), weight_decay=1e-4)
        >>> optimizer.zero_grad()
        >>> loss_fn(model(input), target).backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        beta: float = 0.9,
        lam: float = 0.999,
        decay_every: int = 1,
        eps: float = 0.0,
        weight_decay: float = 0.0,
        *,
        scope: str = "tensor",
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        self._build(
            params,
            {
                "lr": lr,
                "beta": beta,
                "lam": lam,
                "decay_every": decay_every,
                "eps": eps,
                "weight_decay": weight_decay,
                "scope": scope,
                "maximize": maximize,
                "foreach": foreach,
                "capturable": capturable,
                "differentiable": differentiable,
                "fused": fused,
            },
        )

    def _build(self, params: ParamsT, defaults: dict) -> None:
        self._check_group(defaults)
        super().__init__(params, defaults)

    def _check_group(self, group: dict) -> None:
        check_settings(group)

    def add_param_group(self, param_group: dict) -> None:
        if isinstance(param_group, dict):
            self._check_group({**self.defaults, **param_group})
        super().add_param_group(param_group)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        # Read by torch.amp.GradScaler: True hands grad_scale and found_inf to step instead of synchronising.
        return all(group["fused"] for group in self.param_groups)

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("decay_every", 1)
            group.setdefault("eps", 0.0)
            group.setdefault("scope", "tensor")
            group.setdefault("maximize", False)
            group.setdefault("foreach", None)
            group.setdefault("capturable", False)
            group.setdefault("differentiable", False)
            group.setdefault("fused", None)
            for p in group["params"]:
                step_to_tensor(self.state.get(p, {}), p, group)

    def load_state_dict(self, state_dict: dict) -> None:
        """Loads the optimizer's state; unlike the base class, 16-bit parameters keep their float32 state.

        Args:
            state_dict (dict): what :meth:`state_dict` returned.
        """
        with restore_state_dtypes(self):
            super().load_state_dict(state_dict)

    def _init_group(self, group, params, grads, exp_avgs, maxima, state_steps) -> bool:
        has_complex = False
        fused, differentiable = group["fused"], group["differentiable"]
        for p in group["params"]:
            grad = p.grad
            if grad is None:
                continue
            if grad.is_sparse:
                raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")
            if p.numel() == 0:
                continue  # nothing to update, and the maximum of nothing does not exist
            has_complex |= p.is_complex()
            state = self.state[p]
            if "exp_avg" not in state:
                if fused:
                    check_fused(p)
                init_state(state, p, group)
            step = state["step"]
            if fused and step.dtype != torch.float32:
                step = state["step"] = step.float()  # counted without fused, under a float64 default dtype
            if differentiable and step.requires_grad:
                raise RuntimeError("`requires_grad` is not supported for `step` in differentiable mode")
            params.append(p)
            grads.append(grad)
            exp_avgs.append(state["exp_avg"])
            maxima.append(state["exp_avg_max"])
            state_steps.append(step)
        return has_complex

    @_use_grad_for_differentiable
    def step(self, closure=None):
        """Performs a single optimization step.

        Args:
            closure (Callable, optional): A closure that reevaluates the model and returns the loss.
        """
        graph_capture_check(self)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        shared = model_maximum(self)
        for group in self.param_groups:
            lists: list[list[Tensor]] = [[], [], [], [], []]  # params, grads, exp_avgs, maxima, state_steps
            settings = {
                "has_complex": self._init_group(group, *lists),
                "model_maximum": shared if group["scope"] == "model" else None,
                "grad_scale": getattr(self, "grad_scale", None),
                "found_inf": getattr(self, "found_inf", None),
                **{k: group[k] for k in _GROUP_KEYS},
            }
            self._update(group, lists, settings)
        return loss

    def _update(self, group: dict, lists: list[list[Tensor]], settings: dict) -> None:
        adarem(*lists, **settings)


_GROUP_KEYS = (
    "lr",
    "beta",
    "lam",
    "decay_every",
    "eps",
    "weight_decay",
    "maximize",
    "foreach",
    "capturable",
    "differentiable",
    "fused",
)


def adarem(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    maxima: list[Tensor],
    state_steps: list[Tensor],
    model_maximum: Tensor | None = None,
    has_complex: bool = False,
    foreach: bool | None = None,
    capturable: bool = False,
    differentiable: bool = False,
    fused: bool | None = None,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    *,
    lr: float | Tensor | list,
    beta: float,
    lam: float,
    decay_every: int,
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    """Functional API that performs AdaRem algorithm computation. See :class:`~adarem.AdaRem` for details.

    Updates ``params``, ``exp_avgs`` (m), ``maxima`` (0-dim, max|m| of each tensor) and ``state_steps`` in place.

    Args:
        model_maximum (Tensor, optional): 0-dim; divides every tensor's m in place of its own maximum.
        lr: one rate for all, or a list with one rate (float or 0-dim tensor) for each parameter.
    """
    func = choose(
        _single_tensor_adarem,
        _multi_tensor_adarem,
        _fused_adarem,
        params,
        state_steps,
        foreach=foreach,
        capturable=capturable,
        differentiable=differentiable,
        fused=fused,
    )
    if has_complex:
        params, grads, exp_avgs = real_views(params, grads, exp_avgs)
    func(
        params,
        grads,
        exp_avgs,
        maxima,
        state_steps,
        model_maximum,
        grad_scale=grad_scale,
        found_inf=found_inf,
        lr=lr,
        beta=beta,
        lam=lam,
        decay_every=decay_every,
        eps=eps,
        weight_decay=weight_decay,
        maximize=maximize,
        capturable=capturable,
        differentiable=differentiable,
    )
