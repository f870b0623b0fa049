"""AdaRem-S: AdaRem on a sphere for the scale-invariant parameters, plain AdaRem for all others."""

import math

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from adarem.optim.adarem import AdaRem
from adarem.optim.dispatch import choose, real_views
from adarem.optim.sphere import norm
from adarem.optim.sphere_step import _fused_adarems, _multi_tensor_adarems, _single_tensor_adarems
from adarem.optim.state import wide_dtype

__all__ = ["AdaRemS", "adarems"]


class AdaRemS(AdaRem):
    r"""Implements AdaRem-S: AdaRem on a sphere for scale-invariant parameters, AdaRem for all others.

    Parameters of groups with ``spherical=True`` keep the norm R. The loss must not see their length, as is so for
    weights in front of a BatchNorm; :func:`adarem.optim.param_groups` finds them and makes the groups. Their step:

    .. math::
       \begin{aligned}
            &\rule{110mm}{0.4pt}                                                                 \\
            &\textbf{initialize} : \alpha \leftarrow \|\theta_0\| / R, \:
                \theta \leftarrow R \, \theta_0 / \|\theta_0\|                                   \\
            &\hspace{5mm} \hat\eta_{sphere} \leftarrow
                \frac{\hat\eta_t}{(1 - \hat\eta_t \gamma) \alpha^2}                             \\
            &\hspace{5mm} \theta' \leftarrow \theta - \hat\eta_{sphere} (1 + \lambda^k b_t) \odot g_t \\
            &\hspace{5mm} \alpha \leftarrow (1 - \hat\eta_t \gamma) \, \alpha \, \|\theta'\| / R    \\
            &\hspace{5mm} \theta \leftarrow R \, \theta' / \|\theta'\|                             \\
            &\rule{110mm}{0.4pt}                                                          \\[-1.ex]
       \end{aligned}

    with :math:`b_t`, :math:`\lambda^k` and :math:`m` as in :class:`AdaRem`. :math:`\hat\eta_{sphere}` is the paper's
    sphere learning rate (section 3.4.1): :math:`\alpha` is the norm, over R, of the network that takes the same path
    in Euclidean space under weight decay :math:`\gamma`. With ``lam=0`` the network's outputs are those of SGD with
    weight decay. This form is ours; it needs none of the exponentially growing rates of Li and Arora (2019).

    Args:
        params (iterable): parameters, or dicts defining groups; ``spherical`` (bool) in a dict puts its parameters on a
            sphere (default: False)
        radius (float, optional): R, of each sphere. Given, the parameters are brought to it when the optimizer is
            built: build it after loading weights and after wrapping in DDP. None keeps the norm that they have at the
            first step, so that :math:`\alpha` starts at 1 (default: None)
        sphere (str, optional): ``"model"`` holds all parameters of a group on one sphere together, as the paper does;
            ``"tensor"`` each on its own (default: "model")
        slr (bool, optional): False is Algorithm 2 to the letter: the rate is ``lr`` and the weight decay is applied
            before the way back to the sphere (default: True)

    The other arguments are those of :class:`AdaRem`. With ``slr``, ``lr * weight_decay`` must be below 1. The state of
    a spherical parameter has ``alpha`` and ``radius`` besides. A parameter without gradient stays as it is and counts
    as a part of its sphere.

    Raises:
        ValueError: besides AdaRem's, a spherical parameter whose norm is 0, infinite or NaN.

    Example:
        >>> groups = adarem.optim.param_groups(model, images, weight_decay=1e-4)
        >>> optimizer = AdaRemS(groups, lr=0.4, decay_every=len(loader))
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
        radius: float | None = None,
        sphere: str = "model",
        slr: bool = True,
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
                "radius": radius,
                "sphere": sphere,
                "slr": slr,
                "spherical": False,
                "scope": scope,
                "maximize": maximize,
                "foreach": foreach,
                "capturable": capturable,
                "differentiable": differentiable,
                "fused": fused,
            },
        )

    def _check_group(self, group: dict) -> None:
        super()._check_group(group)
        if group["sphere"] not in ("model", "tensor"):
            raise ValueError(f"Invalid sphere value: {group['sphere']}")
        for key in ("slr", "spherical"):
            if not isinstance(group[key], bool):
                raise ValueError(f"Invalid {key} value: {group[key]}")
        radius = group["radius"]
        if radius is not None and not 0.0 < radius < math.inf:
            raise ValueError(f"Invalid radius value: {radius}")
        if group["spherical"] and group["slr"]:
            _check_decay(group["lr"], group["weight_decay"])

    def add_param_group(self, param_group: dict) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group["spherical"]:
            try:
                with torch.set_grad_enabled(group["differentiable"]):
                    self._place_on_sphere(group)
            except ValueError:
                self.param_groups.pop()
                raise

    def _place_on_sphere(self, group: dict) -> None:
        """Refuses what has no direction; with a given radius, θ̂₀ = R θ₀ / ‖θ₀‖ and alpha₀ = ‖θ₀‖ / R."""
        params = [p for p in group["params"] if p.numel() and p.device.type != "meta"]
        norms = [norm([p]) for p in params]
        for i, n in enumerate(norms):
            if not 0 < n.item() < math.inf:
                raise ValueError(
                    f"Invalid spherical parameter at index {i}, shape {tuple(params[i].shape)}: "
                    f"its norm is {n.item()}, and a sphere needs a positive finite one"
                )
        if group["radius"] is None or not params:
            return  # the radius is the norm at the first step: weights loaded until then count
        if group["sphere"] == "model":
            norms = [torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms]))] * len(params)
        for p, n in zip(params, norms, strict=True):
            alpha = n.to(p.device) / group["radius"]
            self.state[p]["radius"] = torch.full_like(alpha, group["radius"])
            self.state[p]["alpha"] = alpha.clone()
            # A resumed run builds its optimizer on weights that are there already; they must keep their bits.
            if abs(alpha.item() - 1) > 4 * torch.finfo(p.dtype).eps:
                p.div_(alpha)

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("radius", None)
            group.setdefault("sphere", "model")
            group.setdefault("slr", True)
            group.setdefault("spherical", False)

    def _init_group(self, group, params, grads, exp_avgs, maxima, state_steps) -> bool:
        # All state is made in here: torch.compile runs this method eagerly, so that the first step is the same graph.
        has_complex = super()._init_group(group, params, grads, exp_avgs, maxima, state_steps)
        new = [p for p in params if "radius" not in self.state[p]] if group["spherical"] else []
        if new:
            everyone = [p for p in group["params"] if p.numel()]
            known = [self.state[p]["radius"] for p in everyone if "radius" in self.state.get(p, {})]
            common = None
            if group["sphere"] == "model":
                common = known[0] if known else norm(everyone)
            for p in new:
                radius = norm([p]) if common is None else common
                # one tensor each: states that share storage would not survive a state_dict round trip
                self.state[p]["radius"] = radius.to(p.device).clone()
                self.state[p]["alpha"] = torch.ones((), dtype=wide_dtype(p.device), device=p.device)
        return has_complex

    def _radii(self, group: dict, params: list[Tensor]) -> list[Tensor]:
        """The radii that the step must bring ``params`` to: one a tensor, or one in all."""
        if group["sphere"] == "tensor":
            return [self.state[p]["radius"] for p in params]
        radius = self.state[params[0]]["radius"]
        idle = [p for p in group["params"] if p.grad is None and p.numel()]
        if idle:  # they lie on the sphere too, but a step does not touch a parameter without gradient
            radius = (radius.square() - norm(idle).to(radius.device).square()).sqrt()
        return [radius]

    def _update(self, group: dict, lists: list[list[Tensor]], settings: dict) -> None:
        params = lists[0]
        if not group["spherical"]:
            super()._update(group, lists, settings)
        elif params:
            alphas = [self.state[p]["alpha"] for p in params]
            adarems(*lists, alphas, self._radii(group, params), slr=group["slr"], **settings)


def _check_decay(lr: float | Tensor, weight_decay: float) -> None:
    if not isinstance(lr, Tensor) and not lr * weight_decay < 1:
        raise ValueError(f"Invalid weight_decay value: {weight_decay}; lr * weight_decay must be below 1 on the sphere")


def adarems(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    maxima: list[Tensor],
    state_steps: list[Tensor],
    alphas: list[Tensor],
    radii: list[Tensor],
    model_maximum: Tensor | None = None,
    has_complex: bool = False,
    foreach: bool | None = None,
    capturable: bool = False,
    differentiable: bool = False,
    fused: bool | None = None,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    *,
    slr: bool,
    lr: float | Tensor,
    beta: float,
    lam: float,
    decay_every: int,
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> None:
    """Functional API that performs AdaRem-S's step on a sphere. See :class:`~adarem.AdaRemS` for details.

    Args:
        alphas: 0-dim, one a parameter: norm of the equivalent Euclidean network over the radius; updated in place.
        radii: 0-dim, one a parameter, or a single one when all parameters lie on one sphere together.
    """
    func = choose(
        _single_tensor_adarems,
        _multi_tensor_adarems,
        _fused_adarems,
        params,
        state_steps,
        foreach=foreach,
        capturable=capturable,
        differentiable=differentiable,
        fused=fused,
    )
    if slr:
        _check_decay(lr, weight_decay)
    if has_complex:
        params, grads, exp_avgs = real_views(params, grads, exp_avgs)
    func(
        params,
        grads,
        exp_avgs,
        maxima,
        state_steps,
        alphas,
        radii,
        model_maximum,
        grad_scale=grad_scale,
        found_inf=found_inf,
        slr=slr,
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
