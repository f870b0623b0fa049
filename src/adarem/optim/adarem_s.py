"""AdaRem-S: AdaRem on a sphere for the scale-invariant parameters, plain AdaRem for all others.

Read downward as adarem.py: the class, the functional form, the three implementations, and the geometry of the sphere.
"""

import math
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from adarem.optim import compat, sharded
from adarem.optim.adarem import AdaRem, _fused_adarem, _multi_tensor_adarem, _single_tensor_adarem
from adarem.optim.check import check_step
from adarem.optim.recall import LastCheck
from adarem.optim.state import Group, check_number
from adarem.optim.step import Memory, Scalars, StepSettings, StepTensors, choose, rates, real_views, wide_dtype

__all__ = ["AdaRemS", "Sphere", "adarems"]

_ENTRIES_ON_SPHERE = itemgetter("exp_avg", "exp_avg_max", "step", "decay_offset", "alpha", "radius")


class Sphere(NamedTuple):
    """Where the parameters of a step lie: all on one sphere, or each on its own."""

    alphas: list[Tensor]  # 0-dim, one for each parameter: norm of the equivalent Euclidean network over R; updated
    radii: list[Tensor]  # 0-dim; a single one if all parameters lie on one sphere, else one for each
    slr: bool  # whether the learning rate is the sphere's; False is Algorithm 2 to the letter
    spread: list[Tensor] | None = None  # the step's parameters if its tensors are the local parts of DTensors


class AdaRemS(AdaRem):
    """Implements AdaRem-S: AdaRem on a sphere for scale-invariant parameters, AdaRem for all others.

    Parameters of groups with ``spherical=True`` keep the norm R. The loss must not see their length, as is so for
    weights in front of a BatchNorm; ``adarem.optim.param_groups`` finds them and makes the groups. Before the first
    step α ← ‖θ‖ / R and θ ← R θ / ‖θ‖. A step, with b, lamᵏ and m as in ``AdaRem``:

        lr_sphere ← lr / ((1 − lr weight_decay) α²)
        θ' ← θ − lr_sphere (1 + lamᵏ b) g
        α ← (1 − lr weight_decay) α ‖θ'‖ / R
        θ ← R θ' / ‖θ'‖

    lr_sphere is the paper's sphere learning rate (section 3.4.1): α is the norm, over R, of the network that takes the
    same path in Euclidean space under weight decay. With ``lam=0`` the network's outputs are those of SGD with weight
    decay. This form is ours; it needs none of the exponentially growing rates of Li and Arora (2019).

    Args:
        params (iterable): parameters, or dicts defining groups; ``spherical`` (bool) in a dict puts its parameters on a
            sphere (default: False)
        radius (float, optional): R, of each sphere. Given, the parameters are brought to it when the optimizer is
            built: build it after loading weights and after wrapping in DDP. None keeps the norm that they have at the
            first step, so that α starts at 1. After weights are loaded later call ``renew_radius`` (default: None)
        sphere (str, optional): ``"model"`` holds all parameters of a group on one sphere together, as the paper does;
            ``"tensor"`` each on its own (default: "model")
        slr (bool, optional): False is Algorithm 2 to the letter: the rate is ``lr`` and the weight decay is applied
            before the way back to the sphere (default: True)

    The other arguments are those of ``AdaRem``. With ``slr``, ``lr * weight_decay`` must be below 1. The state of
    a spherical parameter has ``alpha`` and ``radius`` besides. A parameter without gradient stays as it is and counts
    as a part of its sphere. The norms of DTensors are over all their parts.

    Raises:
        ValueError: besides AdaRem's, a spherical parameter whose norm is 0, infinite or NaN.
        RuntimeError: besides AdaRem's, ``sphere="model"`` under ZeroRedundancyOptimizer.

    Example:
        >>> groups = adarem.optim.param_groups(model, images, weight_decay=1e-4)
        >>> optimizer = AdaRemS(groups, lr=0.4, lam=0.999, decay_every=len(loader))
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        beta: float = 0.9,
        lam: float = 1.0,
        decay_every: int | None = None,
        eps: float = 0.0,
        weight_decay: float = 0.0,
        radius: float | None = None,
        sphere: Literal["model", "tensor"] = "model",
        slr: bool = True,
        *,
        scope: Literal["tensor", "model"] = "tensor",
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

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        if group["sphere"] not in ("model", "tensor"):
            raise ValueError(f"Invalid sphere value: {group['sphere']}")
        for key in ("slr", "spherical"):
            if not isinstance(group[key], bool):
                raise ValueError(f"Invalid {key} value: {group[key]}")
        radius = group["radius"]
        if radius is not None:
            check_number("radius", radius)
            if not 0.0 < radius < math.inf:
                raise ValueError(f"Invalid radius value: {radius}")
        if group["spherical"] and group["slr"]:
            _check_decay(group["lr"], group["weight_decay"])

    def add_param_group(self, param_group: Group) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            if group["spherical"]:
                with torch.set_grad_enabled(group["differentiable"]):
                    self._place_on_sphere(group)
            if any(g["spherical"] and g["radius"] is not None for g in self.param_groups):
                self._make_states()  # programs that save and load expect no state yet, or that of every parameter
        except (ValueError, RuntimeError):
            self.param_groups.pop()
            raise

    def _over_model(self, group: Group) -> str | None:
        return "sphere" if group["spherical"] and group["sphere"] == "model" else super()._over_model(group)

    def _place_on_sphere(self, group: dict[str, Any]) -> None:
        """Refuses what has no direction; with a given radius, θ₀ ← R θ₀ / ‖θ₀‖ and alpha₀ = ‖θ₀‖ / R."""
        params = [p for p in group["params"] if p.numel() and p.device.type != "meta"]
        if any(map(compat.is_fake, set(map(type, params)))):
            raise RuntimeError("FakeTensor params do not have the norms of a sphere: build from params with values")
        norms = _full_norms(params)
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
            self._set(p, "radius", torch.full_like(alpha, group["radius"]))
            self._set(p, "alpha", alpha.clone())
            # A resumed run builds its optimizer on weights that are there already; they must keep their bits.
            # In float64 the norm of many elements is not exact to a few roundings.
            if abs(alpha.item() - 1) > max(4 * torch.finfo(p.dtype).eps, 1e-12):
                sharded.local_part(p).div_(alpha)

    def _set(self, p: Tensor, key: str, value: Tensor) -> None:
        if key in self.state[p]:
            self.state[p][key].copy_(value)  # a captured graph goes on with the same tensor
        else:
            self.state[p][key] = value

    @torch.no_grad()
    def renew_radius(self) -> None:
        """Starts the spheres anew from the weights as they are now, as after ``model.load_state_dict``.

        After the first step the radius is fixed, and other weights that are loaded into the model would be brought to
        it by the next step, at a learning rate for the old ones. This makes the norms of now the radii and each alpha
        1; with a given ``radius`` the weights are brought to it and alpha is their norm over it. m and the counts of
        steps stay; ``optimizer.state.clear()`` before this call forgets them too. Before the first step it is not
        needed, unless a ``radius`` is given.

        Raises:
            ValueError: a spherical parameter whose norm is 0, infinite or NaN.
        """
        for group in self.param_groups:
            if not group["spherical"]:
                continue
            self._place_on_sphere(group)
            params = [p for p in group["params"] if "radius" in self.state.get(p, {})]
            if group["radius"] is not None or not params:
                continue
            radii = _full_norms(params)
            if group["sphere"] == "model":
                radii = [norm([p for p in group["params"] if p.numel()])] * len(params)
            for p, radius in zip(params, radii, strict=True):
                self._set(p, "radius", radius)
                self._set(p, "alpha", torch.ones_like(radius))

    def _added_settings(self) -> dict[str, Any]:
        return {**super()._added_settings(), "radius": None, "sphere": "model", "slr": True, "spherical": False}

    def _state_dtype(self, key: str, p: Tensor) -> torch.dtype:
        return wide_dtype(p.device) if key in ("alpha", "radius") else super()._state_dtype(key, p)

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> bool:
        # All state is made in here: torch.compile runs this method eagerly, so that the first step is the same graph.
        has_complex = super()._init_group(group, *lists)
        params = StepTensors(*lists).params
        if group["spherical"] and not all(["radius" in self.state[p] for p in params]):
            self._check_before_first_step(group)
            self._fix_radii(group, params)
        return has_complex

    def _make_states(self) -> None:
        super()._make_states()
        for group in self.param_groups:
            if group["spherical"]:
                self._fix_radii(group, [p for p in group["params"] if "exp_avg" in self.state.get(p, {})])

    def _make_state(self, p: Tensor, group: Group) -> None:
        super()._make_state(p, group)
        if group["radius"] is None:  # weights loaded until the first step count
            for key in ("radius", "alpha"):
                self.state[p].pop(key, None)

    def _fix_radii(self, group: Group, params: list[Tensor]) -> None:
        """The radius of each parameter that has none: its norm now, or that of its sphere."""
        new = [p for p in params if "radius" not in self.state[p]]
        if not new:
            return
        everyone = [p for p in group["params"] if p.numel()]
        known = [p for p in everyone if "radius" in self.state.get(p, {}) and p not in self._provisional]
        common = None
        if group["sphere"] == "model":
            common = self.state[known[0]]["radius"] if known else norm(everyone)
        radii = _full_norms(new) if common is None else [common] * len(new)
        for p, radius in zip(new, radii, strict=True):
            # one tensor each: states that share storage would not survive a state_dict round trip
            self.state[p]["radius"] = radius.to(p.device).clone()
            self.state[p]["alpha"] = torch.ones((), dtype=wide_dtype(p.device), device=p.device)

    def _update(self, group: dict[str, Any], tensors: StepTensors, settings: StepSettings) -> None:
        params = tensors.params
        if not group["spherical"]:
            super()._update(group, tensors, settings)
        elif params:
            alphas = [self.state[p]["alpha"] for p in params]
            adarems(tensors, settings, Sphere(alphas, self._radii(group, params), group["slr"]))

    def _entries(self, group: Group) -> Callable[[Any], tuple[Tensor, ...]]:
        return _ENTRIES_ON_SPHERE if group["spherical"] else super()._entries(group)

    def _check_tensors(self, group: Group, tensors: StepTensors, settings: StepSettings, last: LastCheck) -> Memory:
        if not group["spherical"]:
            return super()._check_tensors(group, tensors, settings, last)
        states = [self.state[p] for p in tensors.params]
        alphas, radii = ([s[key] for s in states] for key in ("alpha", "radius"))
        return check_step(tensors, settings, alphas, radii, group["sphere"] == "model", type(self).__name__, last)

    def _radii(self, group: dict[str, Any], params: list[Tensor]) -> list[Tensor]:
        """The radii that the step must bring ``params`` to: one for each, or one for all."""
        if group["sphere"] == "tensor":
            return [self.state[p]["radius"] for p in params]
        radius: Tensor = self.state[params[0]]["radius"]
        idle = [p for p in group["params"] if p.grad is None and p.numel()]
        if idle:  # they lie on the sphere too, but a step does not touch a parameter without gradient
            rest = radius.square() - norm(idle).to(radius.device).square()
            # By rounding, in 16 bits, the idle ones alone may be longer than the radius: the others keep their length.
            radius = torch.where(rest > 0, rest, norm(params).to(radius.device).square()).sqrt()
        return [radius]


def _check_decay(lr: float | Tensor, weight_decay: float) -> None:
    if not isinstance(lr, Tensor) and not lr * weight_decay < 1:
        raise ValueError(f"Invalid weight_decay value: {weight_decay}; lr * weight_decay must be below 1 on the sphere")


def adarems(tensors: StepTensors, settings: StepSettings, sphere: Sphere) -> None:
    """Functional API that performs AdaRem-S's step on a sphere, in place. See :class:`AdaRemS` for details."""
    if settings.memory is None and not torch.compiler.is_compiling():
        settings = settings._replace(memory=check_step(tensors, settings, sphere.alphas, sphere.radii))
    if sphere.slr:
        _check_decay(settings.lr, settings.weight_decay)
    local = tensors
    if sharded.any_sharded(tensors.params):
        local = sharded.local_parts(tensors)
        sphere = sphere._replace(spread=tensors.params)
    step = choose(_single_tensor_adarems, _multi_tensor_adarems, _fused_adarems, local, settings)
    step(real_views(local) if settings.has_complex else local, settings, sphere)
    if sphere.spread:
        sharded.finish_step(tensors.params, tensors.maxima)


def _single_tensor_adarems(tensors: StepTensors, settings: StepSettings, sphere: Sphere) -> None:
    _step_and_project(_single_tensor_adarem, tensors, settings, sphere, foreach=False)


def _multi_tensor_adarems(tensors: StepTensors, settings: StepSettings, sphere: Sphere) -> None:
    _step_and_project(_multi_tensor_adarem, tensors, settings, sphere, foreach=True)


def _fused_adarems(tensors: StepTensors, settings: StepSettings, sphere: Sphere) -> None:
    from adarem.optim.kernels.fused import fused_step

    if sphere.spread is None:
        fused_step(tensors, settings, sphere)
    elif settings.found_inf is None or not settings.found_inf.item():
        # The norms of all parts are needed between the step and the way back, so that two passes it is.
        _step_and_project(_fused_adarem, tensors, settings, sphere, foreach=True)


def _step_and_project(
    adarem_step: Callable[[StepTensors, StepSettings, Scalars | None], None],
    tensors: StepTensors,
    settings: StepSettings,
    sphere: Sphere,
    foreach: bool,
) -> None:
    """AdaRem's step at the sphere's learning rate, then the way back onto the sphere."""
    if not sphere.slr:
        adarem_step(tensors, settings, None)
        alphas = [a.clone() for a in sphere.alphas]  # Algorithm 2 has no alpha: leave it
        _project(tensors.params, sphere._replace(alphas=alphas), 1.0, foreach, settings.differentiable)
        return
    (lr,) = rates(settings, 1)
    decay = 1 - lr * settings.weight_decay
    lrs = _sphere_rates(settings, sphere.alphas)
    adarem_step(tensors, settings._replace(weight_decay=0.0), lrs)  # the sphere's learning rate contains the decay
    _project(tensors.params, sphere, decay, foreach, settings.differentiable)


def _sphere_rates(settings: StepSettings, alphas: list[Tensor]) -> Scalars:
    """lr / ((1 - lr weight_decay) alpha²) for each parameter, the sphere's learning rate.

    Floats for parameters on the CPU, where reading a tensor costs nothing; else 0-dim tensors, never read on the host.
    """
    (lr,) = rates(settings, 1)
    alpha = torch.stack([a.to(alphas[0].device) for a in alphas])
    lrs: Tensor = lr / ((1 - lr * settings.weight_decay) * alpha.square())
    on_device = settings.differentiable or settings.capturable or torch.compiler.is_compiling()
    if on_device or lrs.device.type != "cpu":
        return list(lrs.unbind())
    return [float(rate) for rate in lrs.tolist()]


def _project(params: list[Tensor], sphere: Sphere, decay: float | Tensor, foreach: bool, differentiable: bool) -> None:
    """θ ← R θ / ‖θ‖ and alpha ← decay · alpha · ‖θ‖ / R, for each sphere."""
    if not params:
        return
    alphas, radii = sphere.alphas, sphere.radii
    device, wide = alphas[0].device, alphas[0].dtype
    each = [n.to(device, wide) for n in _norms(params, wide, foreach, differentiable)]
    norms = torch.stack(each if sphere.spread is None else sharded.complete_norms(sphere.spread, each))
    if len(radii) == 1:
        shrink = (radii[0].to(device) / torch.linalg.vector_norm(norms)).expand(len(params))
    else:
        shrink = torch.stack([r.to(device) for r in radii]) / norms
    if params[0].element_size() < 4:
        for p, c in zip(params, shrink.unbind(), strict=True):  # c in 16 bits would miss the radius
            p.copy_(p.float() * c.to(p.device))
    elif foreach and len(radii) == 1:
        compat.foreach_mul_(params, shrink[0].to(params[0].dtype))
    elif foreach:
        compat.foreach_mul_(params, list(shrink.to(params[0].dtype).unbind()))
    else:
        for p, c in zip(params, shrink.unbind(), strict=True):
            p.mul_(c.to(p.device))
    grown = (decay / shrink).unbind()
    for alpha, g in zip(alphas, grown, strict=True):
        alpha.mul_(g.to(alpha.device))


def _norms(params: list[Tensor], wide: torch.dtype, foreach: bool, differentiable: bool) -> list[Tensor]:
    """‖θ‖ of each parameter to the rounding of its type at least."""
    if not foreach:
        return [torch.linalg.vector_norm(p.clone() if differentiable else p, dtype=wide) for p in params]
    if params[0].device.type == "cpu" and not torch.compiler.is_compiling():
        return [_blockwise_norm(p) for p in params]
    return list(compat.foreach_norm([p.float() if p.element_size() < 4 else p for p in params]))


def _blockwise_norm(p: Tensor) -> Tensor:
    """‖p‖ by blocks: float32 norms on the CPU add squares up naively, 4e-5 off for 2 million elements at once."""
    block = 1024
    in_blocks = p.numel() // block * block
    flat = p.detach().float() if p.element_size() < 4 else p.detach()
    total: Tensor
    if in_blocks <= block or not is_dense(p):
        total = torch.linalg.vector_norm(flat, dtype=torch.float64)
        return total
    flat = flat.as_strided((p.numel(),), (1,))
    norms = [torch.linalg.vector_norm(flat[:in_blocks].view(-1, block), dim=1).double()]
    if in_blocks < p.numel():
        norms.append(torch.linalg.vector_norm(flat[in_blocks:]).double().reshape(1))
    total = torch.linalg.vector_norm(torch.cat(norms))
    return total


def norm(params: list[Tensor]) -> Tensor:
    """‖θ‖ of all ``params`` together: 0-dim, float64, on the first one's device."""
    device = params[0].device
    total: Tensor = torch.linalg.vector_norm(torch.stack([n.to(device) for n in _full_norms(params)]))
    return total


def _full_norms(params: list[Tensor]) -> list[Tensor]:
    """‖θ‖ of each parameter, over all processes: 0-dim, float64, on its device."""
    spread = sharded.any_sharded(params)
    parts = list(map(sharded.local_part, params)) if spread else params
    # Clones under autograd, which keeps the operands that the step then overwrites.
    tensors = [p.clone() if torch.is_grad_enabled() else p for p in parts]
    reals = [torch.view_as_real(p) if torch.is_complex(p) else p for p in tensors]
    norms = [torch.linalg.vector_norm(p, dtype=wide_dtype(p.device)) for p in reals]
    return sharded.complete_norms(params, norms) if spread else norms


def is_dense(p: Tensor) -> bool:
    """Whether the elements fill their piece of memory without gaps or overlaps, in any order of dimensions."""
    expected = 1
    for stride, size in sorted(zip(p.stride(), p.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True
