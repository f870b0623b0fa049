"""AdaRem for ``torch.optim``, laid out as torch lays out sgd.py: class, functional form, implementations."""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT, StateDict

from adarem.optim import compat, sharded
from adarem.optim import state as kept
from adarem.optim.check import check_parameters, check_step, recall_step
from adarem.optim.chunks import Chunk, chunks, update_chunk
from adarem.optim.recall import LastCheck
from adarem.optim.state import Group, State
from adarem.optim.step import (
    Memory,
    Scalars,
    StepSettings,
    StepTensors,
    abs_max,
    average_dtype,
    choose,
    coefficients,
    rates,
    real_views,
)

__all__ = ["AdaRem", "adarem"]


_FLAGS = {"maximize": False, "foreach": None, "capturable": False, "differentiable": False, "fused": None}
_ENTRIES = itemgetter("exp_avg", "exp_avg_max", "step", "decay_offset")  # in the order of StepTensors


class AdaRem(Optimizer):
    """Implements AdaRem: each element's learning rate grows where the gradient agrees with its own past.

    A step of each element, with m = 0 before the first:

        g ← gradient, negated to maximize
        b ← g m / (|g| max|m| + eps),  0 where g or m is 0
        k ← steps done // decay_every, the count of multiplications by lam
        θ ← θ − lr (1 + lamᵏ b) g − lr weight_decay θ
        m ← beta m + (1 − beta) g

    This is Algorithm 1 of "Adaptive Gradient Method with Resilience and Momentum". The paper sets λ = 0.999, multiplied
    once an epoch, and a base rate of 0.4 for ImageNet at batch 1024 with a cosine schedule. It gives no β and no ε;
    their defaults are ours.

    Args:
        params (iterable): iterable of parameters or named_parameters to optimize, or of dicts defining groups
        lr (float, Tensor, optional): learning rate, 0 or more (default: 1e-3, torch's; the paper's is 0.4)
        beta (float, optional): share of the old m in the moving average of the gradient, 0 to 1 (default: 0.9)
        lam (float, optional): factor of b after each ``decay_every`` steps, 0 to 1. 1 lets b keep its full weight, 0 is
            SGD; the paper's is 0.999 (default: 1)
        decay_every (int, optional): steps between two multiplications by ``lam``: the steps of an epoch as in the
            paper's experiments, or 1 as in Algorithm 1. Changed between steps, it keeps the count k of multiplications
            done. None is 1, with a warning where ``lam`` is neither 0 nor 1: 0.999 at every step halves b's weight in
            693 steps (default: None)
        eps (float, optional): 0 computes b in its sign form, ``sign(g) m / max|m|``, which no gradient is too small
            for; a positive value adds to the denominator as printed, and shrinks b where ``|g| max|m|`` is not far
            above it (default: 0)
        weight_decay (float, optional): decoupled weight decay, scaled by ``lr`` and not by b (default: 0)
        scope (str, optional): ``"tensor"`` takes ``max|m|`` over each parameter tensor, ``"model"`` over all parameters
            of all groups with this scope, the letter of the paper, which leaves b near 0 (default: "tensor")
        maximize (bool, optional): maximize the objective instead of minimizing it (default: False)
        foreach (bool, optional): use the implementation on lists of tensors; None does on CUDA (default: None)
        capturable (bool, optional): whether this instance is safe to capture in a CUDA graph (default: False)
        differentiable (bool, optional): whether autograd passes through the step (default: False)
        fused (bool, optional): True takes one pass over memory: Triton on CUDA; on the CPU a C++ kernel, compiled in
            seconds when it is first used. Without Triton or a C++ compiler that works, one warning says so and
            foreach takes the steps. None does not (default: None)

    The state of a parameter is ``step``, ``exp_avg`` (m; float32 for 16-bit parameters), ``exp_avg_max`` (``max|m|``)
    and ``decay_offset``, 0 until ``decay_every`` changes: k is ``decay_offset + step // decay_every``. Complex
    parameters are seen as their real and imaginary parts, except by ``fused``. Parameters may be DTensors (FSDP2, HSDP,
    tensor parallelism): m is spread as they are, and ``max|m|`` is over all parts. Schedulers that cycle a momentum,
    OneCycleLR and CyclicLR, need ``cycle_momentum=False``.

    Raises:
        ValueError: a setting is out of its range, in a group or as a default.
        TypeError: a setting that is a number is given as something else; numpy's numbers are numbers.
        RuntimeError: sparse gradients; ``fused`` together with ``foreach`` or ``differentiable``; ``fused`` on an
            unsupported device or type; FSDP1's flat parameters; ``scope="model"`` under ZeroRedundancyOptimizer.

    Example:
        >>> optimizer = AdaRem(model.parameters(), lr=0.4, lam=0.999, decay_every=len(loader), weight_decay=1e-4)
        >>> optimizer.zero_grad()
        >>> loss_fn(model(input), target).backward()
        >>> optimizer.step()
    """

    _has_share = False  # whether the parameters are one process's share of them, a ZeroRedundancyOptimizer's
    _provisional: frozenset[Tensor] = frozenset()  # parameters with state made before any step
    _last_checks: tuple[LastCheck, ...] = ()  # one for each group

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        beta: float = 0.9,
        lam: float = 1.0,
        decay_every: int | None = None,
        eps: float = 0.0,
        weight_decay: float = 0.0,
        *,
        scope: Literal["tensor", "model"] = "tensor",
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        defaults: dict[str, Any] = {
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
        }
        self._build(params, defaults)

    def _build(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        kept.make_plain(defaults, defaults)
        self._check_group({**defaults, "decay_every": kept.resolved(defaults["decay_every"])})
        self._has_share = compat.in_zero_redundancy()
        super().__init__(params, defaults)
        sharded.check_complete(self.param_groups, self._over_model, self._has_share)

    def _check_group(self, group: dict[str, Any]) -> None:
        """Raises what the class documents, in torch's wording."""
        kept.check_settings(group)

    def add_param_group(self, param_group: Group) -> None:
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        settings: Group = {**self.defaults, **param_group}
        kept.make_plain(settings, self.defaults)
        given = settings["decay_every"] if settings["decay_every"] is not None else self.defaults["decay_every"]
        settings["decay_every"] = settings["counted_every"] = kept.resolved(given)
        self._check_group(settings)
        param_group.update((key, value) for key, value in settings.items() if key != "params")
        super().add_param_group(param_group)
        if given is None and settings["lam"] not in (0, 1) and not getattr(self, "_warned_of_decay", False):
            self._warned_of_decay = True
            kept.warn_of_every_step(settings["lam"])

    def _over_model(self, group: Group) -> str | None:  # the setting that takes a maximum or norm over parameters
        return "scope" if group["scope"] == "model" else None

    @property
    def _step_supports_amp_scaling(self) -> bool:
        # Read by torch.amp.GradScaler: True hands grad_scale and found_inf to step instead of synchronising.
        return all(group["fused"] for group in self.param_groups)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._provisional = frozenset()
        for group in (self.defaults, *self.param_groups):
            for key, default in self._added_settings().items():
                group.setdefault(key, default)
        for group in self.param_groups:
            kept.make_plain(group, self.defaults)
            group["decay_every"] = kept.resolved(group["decay_every"])
            group.setdefault("counted_every", group["decay_every"])
            for p in group["params"]:
                step = self.state[p].get("step") if p in self.state else None
                if step is not None and not isinstance(step, Tensor):  # older and hand-made states
                    self.state[p]["step"] = kept.new_count(float(step), p, group)

    def _added_settings(self) -> dict[str, Any]:
        """Settings that older pickles and state dicts do not have, with the values that they meant."""
        return {"decay_every": 1, "eps": 0.0, "scope": "tensor", **_FLAGS}

    def state_dict(self) -> StateDict:
        """Returns the optimizer's state as torch's do; numpy's numbers, set in a group, as Python's."""
        for group in self.param_groups:
            kept.make_plain(group, self.defaults)
        return super().state_dict()

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Loads the optimizer's state; unlike the base class, 16-bit parameters keep their float32 state.

        AdaRem's loads into AdaRemS and the other way: m and counts are the same, settings and state of spheres stay
        those of the optimizer that loads, or are left out.

        Args:
            state_dict (dict): what :meth:`state_dict` returned.

        Raises:
            ValueError: it is another optimizer's or of other parameters; nothing is changed then.
        """
        if not isinstance(state_dict, dict):
            raise TypeError(f"state_dict must be a dict, but got {torch.typename(state_dict)}")
        saved: StateDict = {}

        def adapt(_: Optimizer, given: StateDict) -> StateDict:  # after the user's own pre-hooks
            saved.update(kept.loadable(given, self.param_groups, self.state))
            for group in saved["param_groups"]:
                settings = {**self._added_settings(), **group}
                kept.make_plain(settings, self.defaults)
                self._check_group({**settings, "decay_every": kept.resolved(settings["decay_every"])})
            return saved

        def restore(_: Optimizer) -> None:  # before the user's own post-hooks
            ids = [i for group in saved["param_groups"] for i in group["params"]]
            params = [(p, group) for group in self.param_groups for p in group["params"]]
            for i, (p, group) in zip(ids, params, strict=True):
                for key, value in saved["state"].get(i, {}).items():
                    if key == "decay_offset":
                        self.state[p][key] = kept.new_count(float(value), p, group)
                    elif key != "step" and self.state[p][key].dtype != (dtype := self._state_dtype(key, p)):
                        # a clone: the loaded tensor must not be the one in the caller's dict
                        self.state[p][key] = value.detach().clone().to(device=p.device, dtype=dtype)

        with (
            self.register_load_state_dict_pre_hook(adapt),
            self.register_load_state_dict_post_hook(restore, prepend=True),
        ):
            super().load_state_dict(state_dict)

    def _state_dtype(self, key: str, p: Tensor) -> torch.dtype:
        dtype = average_dtype(p.dtype)
        return dtype.to_real() if key == "exp_avg_max" else dtype

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> bool:
        """Appends the tensors of this step to the lists and makes missing state; returns whether any is complex.

        torch.compile knows this method by name, runs it eagerly and takes nothing but plain lists.
        """
        if self._has_share or self._provisional or not self.state:
            self._begin(group)
        kept.make_plain(group, self.defaults)
        tensors = StepTensors(*lists)
        # An empty parameter has nothing to update, and the maximum of nothing does not exist.
        pairs = [(p, grad) for p in group["params"] if (grad := p.grad) is not None and p.numel()]
        params = [p for p, _ in pairs]
        states: list[State] = [s for s in map(self.state.get, params) if s is not None]
        if len(states) < len(params) or not all(["exp_avg" in s and "decay_offset" in s for s in states]):
            self._check_before_first_step(group)
            for p in params:
                if "exp_avg" not in self.state[p]:
                    self._make_state(p, group)
                if "decay_offset" not in self.state[p]:  # older and hand-made states
                    self.state[p]["decay_offset"] = kept.new_count(0.0, p, group)
            states = [self.state[p] for p in params]
        steps, offsets = ([s[key] for s in states] for key in ("step", "decay_offset"))
        if not kept.are_counts(steps + offsets, group):
            steps, offsets = (
                [kept.recounted(key, p, group, s) for p, s in zip(params, states, strict=True)]
                for key in ("step", "decay_offset")
            )
        if group["differentiable"] and any(step.requires_grad for step in steps):
            raise RuntimeError("`requires_grad` is not supported for `step` in differentiable mode")
        tensors.params.extend(params)
        tensors.grads.extend([grad for _, grad in pairs])
        tensors.exp_avgs.extend([s["exp_avg"] for s in states])
        tensors.maxima.extend([s["exp_avg_max"] for s in states])
        tensors.state_steps.extend(steps)
        tensors.decay_offsets.extend(offsets)
        return not group["fused"] and any(map(Tensor.is_complex, params))

    def _begin(self, group: Group) -> None:
        """Looks again at what was there at construction: since then parameters may be wrapped, moved or converted."""
        sharded.check_complete(self.param_groups, self._over_model, self._has_share)
        begun = {p for p in group["params"] if p in self._provisional and p.grad is not None}
        for p in begun:
            if not self.state[p]["step"]:
                self._make_state(p, group)
        self._provisional -= begun

    def _make_state(self, p: Tensor, group: Group) -> None:
        state = self.state[p]
        state["step"] = kept.new_count(0.0, p, group)
        state["exp_avg"] = torch.zeros_like(
            p, dtype=self._state_dtype("exp_avg", p), memory_format=torch.preserve_format
        )
        state["exp_avg_max"] = torch.zeros((), dtype=self._state_dtype("exp_avg_max", p), device=p.device)
        state["decay_offset"] = kept.new_count(0.0, p, group)

    def _check_before_first_step(self, first: Group) -> None:
        """Refuses what the step will not take in ``first`` and the groups after it, before any state is made."""
        begin = next(i for i, group in enumerate(self.param_groups) if group is first)
        for group in self.param_groups[begin:]:
            entries = [(p, p.grad, self.state.get(p, {})) for p in group["params"] if p.grad is not None and p.numel()]
            one_sphere = bool(group.get("spherical")) and group.get("sphere") == "model"
            check_parameters(entries, self._settings(group), one_sphere, type(self).__name__)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @compat.use_grad_for_differentiable
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Performs a single optimization step.

        Args:
            closure (Callable, optional): A closure that reevaluates the model and returns the loss.
        """
        if torch.compiler.is_compiling() and any(group["fused"] for group in self.param_groups):
            # The kernel is one pass over memory: nothing around it gains from a graph, and none can hold its pointers.
            uncompiled: Callable[..., float | None] = torch.compiler.disable(type(self)._step)  # type: ignore[no-untyped-call]
            return uncompiled(self, closure)
        return self._step(closure)

    def _step(self, closure: Callable[[], float] | None) -> float | None:
        compat.check_graph_capture(self)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        compiling = torch.compiler.is_compiling()
        if not compiling and not self.state and compat.in_state_initialization():
            self._make_states()
            return loss
        for group in self.param_groups:
            if not compiling:
                self._check_changed_group(group)
            if group.get("counted_every") != group["decay_every"]:  # here, where torch.compile sees a new value
                self._continue_decay(group)
        if not compiling and len(self._last_checks) != len(self.param_groups):
            self._last_checks = tuple(LastCheck() for _ in self.param_groups)
        model_maximum = None if compiling else self._model_maximum()  # raises before state is made, which are zeros
        prepared: list[tuple[dict[str, Any], StepTensors, StepSettings]] = []
        for i, group in enumerate(self.param_groups):  # all of them before any is updated
            tensors, settings = self._prepare(group, None if compiling else self._last_checks[i])
            prepared.append((group, tensors, settings))
        model_maximum = self._model_maximum() if compiling else model_maximum  # one graph for first and later steps
        for group, tensors, settings in prepared:
            if group["scope"] == "model":
                settings = settings._replace(model_maximum=model_maximum)
            self._update(group, tensors, settings)
        return loss

    def _prepare(self, group: Group, last: LastCheck | None) -> tuple[StepTensors, StepSettings]:
        """What a step of the group reads, checked unless ``last`` is None; state that is missing is made."""
        if last is not None and (memory := self._recall(group, last)) is not None:
            has_complex = any(memory.tensors.params[alike[0]].is_complex() for alike in memory.groups)
            settings = self._settings(group, has_complex and not group["fused"])
            return memory.tensors, settings._replace(memory=memory)
        tensors = StepTensors([], [], [], [], [], [])
        has_complex = self._init_group(group, *tensors)
        settings = self._settings(group, has_complex)
        if last is not None:
            settings = settings._replace(memory=self._check_tensors(group, tensors, settings, last))
        return tensors, settings

    def _recall(self, group: Group, last: LastCheck) -> Memory | None:
        """What a check of the group finds, if nothing has changed since the last step that it looks at; else None."""
        if not last.is_known or self._has_share or self._provisional:
            return None
        pairs = [(p, grad) for p in group["params"] if (grad := p.grad) is not None]
        params = [p for p, _ in pairs]
        try:
            entries = zip(*map(self._entries(group), map(self.state.get, params)), strict=True)
            lists: list[Sequence[Tensor]] = [params, [grad for _, grad in pairs], *entries]
        except (KeyError, TypeError):  # no state, or not all of it
            return None
        one_sphere = bool(group.get("spherical")) and group["sphere"] == "model"
        return recall_step(lists, self._settings(group), one_sphere, last)

    def _entries(self, group: Group) -> Callable[[Any], tuple[Tensor, ...]]:
        """Takes the tensors that a step reads out of a parameter's state."""
        return _ENTRIES

    def _continue_decay(self, group: Group) -> None:
        continued: Callable[..., None] = kept.continue_decay
        if torch.compiler.is_compiling():
            continued = torch.compiler.disable(continued)  # type: ignore[no-untyped-call]
        continued(group, self.state)

    def _settings(self, group: dict[str, Any], has_complex: bool = False) -> StepSettings:
        return StepSettings(
            **{name: group[name] for name in StepSettings._fields if name in group},
            has_complex=has_complex,
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=getattr(self, "found_inf", None),
        )

    def _check_changed_group(self, group: dict[str, Any]) -> None:
        """Raises as at construction for a setting that was changed since; a tensor lr is read where that is free."""
        if lacking := self.defaults.keys() - group.keys():
            raise ValueError(f"a param group has no {', '.join(sorted(lacking))}: add groups by add_param_group")
        kept.make_plain(group, self.defaults)
        group["decay_every"] = kept.resolved(group["decay_every"])
        lr = group["lr"]
        costly = group["capturable"] or group["differentiable"] or isinstance(lr, Tensor) and not lr.is_cpu
        self._check_group({**group, "lr": 0.0} if costly and isinstance(lr, Tensor) and lr.numel() == 1 else group)

    def _check_tensors(self, group: Group, tensors: StepTensors, settings: StepSettings, last: LastCheck) -> Memory:
        return check_step(tensors, settings, optimizer=type(self).__name__, last=last)

    def _make_states(self) -> None:
        """The state of all trainable parameters, before any step; the first step makes it anew unless it is loaded."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.requires_grad and p.numel() and not p.is_meta and "exp_avg" not in self.state[p]:
                    self._make_state(p, group)
                    self._provisional |= {p}

    def _model_maximum(self) -> Tensor | None:
        """max|m| over all parameters of the groups with ``scope="model"``, before this step; None without such."""
        params = [p for group in self.param_groups if group["scope"] == "model" for p in group["params"]]
        maxima = [self.state[p]["exp_avg_max"] for p in params if "exp_avg_max" in self.state.get(p, {})]
        if not maxima:
            return None
        if not all(isinstance(m, Tensor) and m.dim() == 0 and not m.is_complex() for m in maxima):
            raise RuntimeError("exp_avg_max of a parameter is no 0-dim Tensor: load this optimizer's state")
        return torch.stack([m.detach().to(maxima[0].device, maxima[0].dtype) for m in maxima]).amax()

    def _update(self, group: dict[str, Any], tensors: StepTensors, settings: StepSettings) -> None:
        adarem(tensors, settings)


def adarem(tensors: StepTensors, settings: StepSettings) -> None:
    """Functional API that performs AdaRem algorithm computation, in place. See :class:`AdaRem` for details."""
    if settings.memory is None and not torch.compiler.is_compiling():
        settings = settings._replace(memory=check_step(tensors, settings))
    spread = sharded.any_sharded(tensors.params)
    local = sharded.local_parts(tensors) if spread else tensors
    step = choose(_single_tensor_adarem, _multi_tensor_adarem, _fused_adarem, local, settings)
    step(real_views(local) if settings.has_complex else local, settings)
    if spread:
        sharded.finish_step(tensors.params, tensors.maxima)


def _single_tensor_adarem(tensors: StepTensors, settings: StepSettings, lrs: Scalars | None = None) -> None:
    """One tensor after the other: the readable implementation, and the one that autograd can pass through.

    Args:
        lrs: one learning rate for each parameter, in place of ``settings.lr``.
    """
    differentiable = settings.differentiable
    lrs = rates(settings, len(tensors.params)) if lrs is None else lrs
    lam_t = coefficients(tensors, settings)
    for i, param in enumerate(tensors.params):
        exp_avg, maximum, lr = tensors.exp_avgs[i], tensors.maxima[i], lrs[i]
        grad = tensors.grads[i].to(exp_avg.dtype)
        if settings.maximize:
            grad = -grad
        # Autograd needs the values of before where the state is overwritten below.
        m = exp_avg.clone() if differentiable else exp_avg
        shared = settings.model_maximum
        max_m = maximum if shared is None else shared.to(maximum.device, maximum.dtype)
        if differentiable:
            max_m = max_m.clone()

        if settings.eps == 0:
            # (lam_t b) g = lam_t |g| m / max|m|: exact for every g and m. Where max|m| is 0 so is m, hence b; the
            # clamp to the smallest normal number only keeps lam_t / max|m| finite, and lets NaN through.
            scale = lam_t[i] / max_m.clamp(min=torch.finfo(max_m.dtype).tiny)
            update = torch.mul(m, scale).mul_(grad.abs())
        else:
            update = grad / (grad.abs() * max_m + settings.eps) * m * grad * lam_t[i]
        update.add_(grad)
        if settings.weight_decay != 0:
            update.add_(param, alpha=settings.weight_decay)
        if isinstance(lr, Tensor):
            param.sub_(update.mul_(lr))  # alpha= would read the tensor on the host
        else:
            param.add_(update, alpha=-lr)

        exp_avg.lerp_(grad, 1 - settings.beta)
        maximum.copy_(abs_max(exp_avg.clone() if differentiable else exp_avg))
        tensors.state_steps[i] += 1


def _multi_tensor_adarem(tensors: StepTensors, settings: StepSettings, lrs: Scalars | None = None) -> None:
    """The same on lists of tensors with torch's foreach functions; on the CPU in pieces that fit the cache."""
    if len(tensors.params) == 0:
        return
    if settings.differentiable:
        raise AssertionError("_foreach ops don't support autograd")
    compiling = torch.compiler.is_compiling()
    lam_t = coefficients(tensors, settings)
    lrs = rates(settings, len(tensors.params)) if lrs is None else lrs
    everything = Chunk(tensors.params, tensors.grads, tensors.exp_avgs, tensors.maxima, lam_t, lrs)
    for chunk in [everything] if compiling else chunks(everything):
        update_chunk(chunk, settings, on_host=chunk.params[0].is_cpu and not compiling)
    if not compiling and tensors.state_steps[0].is_cpu:
        # A 0-dim tensor on the CPU as the addend: a number would be wrapped into a tensor again for each step.
        compat.foreach_add_(tensors.state_steps, torch.tensor(1.0, device="cpu"), alpha=1.0)
    else:
        compat.foreach_add_(tensors.state_steps, 1)


def _fused_adarem(tensors: StepTensors, settings: StepSettings, lrs: Scalars | None = None) -> None:
    """One pass over memory by compiled kernels: C++ on the CPU, Triton on CUDA."""
    from adarem.optim.kernels.fused import fused_step  # here: others need neither a compiler nor Triton

    fused_step(tensors, settings, lrs=lrs)
