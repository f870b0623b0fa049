"""Settings and state that a step relies on: plain numbers, the count of λ's powers, which state dicts may be loaded."""

import inspect
import math
import warnings
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import StateDict

from adarem.optim import sharded
from adarem.optim.step import dtype_of

Group = dict[str, Any]  # a parameter group: "params" and the settings by name
State = dict[str, Any]  # of one parameter

_COUNTS = {True: {torch.float32}, False: {torch.float32, torch.float64}}  # by whether the step is fused
_PLAIN = {float, int, bool, str, type(None)}
_NEEDED_SETTINGS = ("lr", "beta", "lam", "weight_decay")  # the others came later, and have a default
_NEEDED = ("step", "exp_avg", "exp_avg_max")
_OF_SPHERE = ("alpha", "radius")
_SETTINGS_OF_SPHERE = ("spherical", "sphere", "slr", "radius")
_REMEDY = "load a state dict that AdaRem or AdaRemS saved for the same parameters, or start without one"


def make_plain(group: Group, own: Iterable[str]) -> None:
    """Turns numpy's scalars and arrays without dimensions in a group into Python's numbers, booleans and strings.

    Tensors without dimensions likewise in the settings ``own`` but ``lr``, which may be a tensor.
    """
    for key, value in group.items():
        if type(value) in _PLAIN or key in ("params", "param_names"):
            continue
        if isinstance(value, Tensor) and (key == "lr" or key not in own):
            continue
        if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
            group[key] = value.item()


def check_settings(group: Group) -> None:
    """Raises ValueError, TypeError or RuntimeError, in torch's words, for settings of AdaRem out of their ranges."""
    lr = group["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if isinstance(lr, Tensor) and (lr.is_complex() or lr.layout != torch.strided):
        raise TypeError(f"Tensor lr must be real and dense, but got {lr.dtype} of layout {lr.layout}")
    for key in ("lr", "beta", "lam", "eps", "weight_decay"):
        if not (key == "lr" and isinstance(lr, Tensor)):
            check_number(key, group[key])
    for key, name in (("lr", "learning rate"), ("weight_decay", "weight_decay value"), ("eps", "epsilon value")):
        if not 0.0 <= group[key] < math.inf:
            raise ValueError(f"Invalid {name}: {group[key]}")
    for key in ("beta", "lam"):
        if not 0.0 <= group[key] <= 1.0:
            raise ValueError(f"Invalid {key} value: {group[key]}")
    for key in ("decay_every", "counted_every"):
        every = group.get(key, 1)
        if isinstance(every, bool) or not isinstance(every, int) or not 1 <= every < 1 << 63:  # kernels have 64 bits
            raise ValueError(f"Invalid {key} value: {every}")
    if group["scope"] not in ("tensor", "model"):
        raise ValueError(f"Invalid scope value: {group['scope']}")
    if group["fused"] and group["differentiable"]:
        raise RuntimeError("`fused` does not support `differentiable`")
    if group["fused"] and group["foreach"]:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")


def check_number(key: str, value: object) -> None:
    """Raises TypeError for what is no number; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{key} must be a float, but got {torch.typename(value)}")


def resolved(decay_every: int | None) -> int:
    """The steps between two multiplications by λ: None is 1, Algorithm 1's."""
    return 1 if decay_every is None else decay_every


def warn_of_every_step(lam: float) -> None:
    """Warns, at the line that builds the optimizer or adds the group, of a ``lam`` without ``decay_every``."""
    steps = math.ceil(math.log(0.5) / math.log(lam))
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").startswith(("torch.", "adarem.optim")):
        frame, level = frame.f_back, level + 1
    warnings.warn(
        f"lam={lam} without decay_every: multiplied at every step, b's coefficient is 0.5 after {steps} "
        f"step{'s' if steps > 1 else ''}; give decay_every, the steps of an epoch as in the paper's experiments, or "
        "decay_every=1 as in Algorithm 1",
        stacklevel=level,
    )


def new_count(value: float, p: Tensor, group: Group) -> Tensor:
    """A 0-dim count: where a graph or a kernel counts, float32 on the parameter's device."""
    if group["capturable"] or group["fused"]:
        return torch.full((), value, dtype=torch.float32, device=p.device)
    return torch.tensor(value, dtype=torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32)


def are_counts(values: Sequence[Tensor | float], group: Group) -> bool:
    """Whether all are tensors of a type that this group counts in."""
    try:
        return set(map(dtype_of, values)) <= _COUNTS[bool(group["fused"])]  # type: ignore[arg-type]
    except AttributeError:  # numbers
        return False


def recounted(key: str, p: Tensor, group: Group, state: State) -> Tensor:
    """The count ``key`` of a parameter, made one of this group's if it is of another type, or a number."""
    count: Tensor = state[key]
    kept = isinstance(count, Tensor) and count.dtype in _COUNTS[bool(group["fused"])]
    if kept and group["fused"]:
        kept = count.device == p.device
    number = isinstance(count, int | float)
    countable = number or (isinstance(count, Tensor) and count.numel() == 1 and not count.is_complex())
    if countable and not kept:
        count = state[key] = new_count(float(count), p, group)
    return count


def continue_decay(group: Group, state: Mapping[Tensor, State]) -> None:
    """Keeps the count of λ's powers, ``decay_offset + step // decay_every``, where ``decay_every`` has changed."""
    every: int = group["decay_every"]
    counted: int = group.get("counted_every", every)
    for p in group["params"]:
        own = state.get(p, {})
        if "step" in own and math.isfinite(float(own["step"])):
            steps = int(own["step"])
            offset = own.setdefault("decay_offset", new_count(0.0, p, group))
            offset += steps // counted - steps // every
    group["counted_every"] = every


def loadable(saved: StateDict, groups: list[Group], state: Mapping[Tensor, State]) -> StateDict:
    """The state dict as it can be loaded into ``groups`` with ``state``; AdaRem's into AdaRemS, and the other way.

    Settings of spheres that the saved groups lack stay those of ``groups``, and so do alpha and radius of parameters
    that were brought to a given radius; a group of AdaRem's takes nothing of a sphere.

    Raises:
        ValueError: the state dict is another optimizer's, or of other parameters.
    """
    _check_groups(saved, groups)
    new_groups: list[Group] = []
    new_state = dict(saved["state"])
    index = 0
    for own, theirs in zip(groups, saved["param_groups"], strict=True):
        merged = {k: v for k, v in theirs.items() if k in own or k not in _SETTINGS_OF_SPHERE}
        merged.update((k, own[k]) for k in _SETTINGS_OF_SPHERE if k in own and k not in theirs)
        new_groups.append(merged)
        names = own.get("param_names") or [None] * len(own["params"])
        on_spheres = all(key in own for key in _SETTINGS_OF_SPHERE)  # a group of AdaRemS
        for i, p, name in zip(theirs["params"], own["params"], names, strict=True):
            of_p = new_state.get(i) or {}
            where = f"parameter {index}" + (f" ({name})" if name else "")
            _check_state(of_p, p, where)
            _check_counts(of_p, merged, where)
            index += 1
            if not on_spheres:
                of_p = {k: v for k, v in of_p.items() if k not in _OF_SPHERE}
            elif merged["spherical"] and own["radius"] is not None and "radius" not in of_p:
                of_p = {**{k: v for k, v in state.get(p, {}).items() if k in _OF_SPHERE}, **of_p}
            if of_p:
                new_state[i] = of_p
            else:
                new_state.pop(i, None)
    return {**saved, "state": new_state, "param_groups": new_groups}


def _check_groups(saved: StateDict, groups: list[Group]) -> None:
    if not isinstance(saved.get("state"), MutableMapping) or not isinstance(saved.get("param_groups"), list):
        raise ValueError(
            f"loaded state dict has the keys {sorted(map(str, saved))} and not a dict 'state' and a list "
            "'param_groups': load what an optimizer's state_dict() returned"
        )
    build = "build the optimizer with the parameter groups that the saved one had"
    theirs = saved["param_groups"]
    for i, group in enumerate(theirs):
        if not isinstance(group, dict) or not isinstance(group.get("params"), list):
            raise ValueError(f"parameter group {i} of the loaded state dict is no dict with a list 'params'; {_REMEDY}")
        if lacking := [key for key in _NEEDED_SETTINGS if key not in group]:
            keys = [key for key in group if key not in ("params", "param_names")]
            raise ValueError(
                f"loaded state dict is another optimizer's: its parameter group {i} has no {', '.join(lacking)} but "
                f"{', '.join(keys) or 'nothing'}; {_REMEDY}"
            )
    if len(groups) != len(theirs):
        raise ValueError(
            f"loaded state dict has a different number of parameter groups: {len(theirs)}, and the optimizer has "
            f"{len(groups)}; {build}"
        )
    for i, (own, group) in enumerate(zip(groups, theirs, strict=True)):
        if len(own["params"]) != len(group["params"]):
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's group: "
                f"group {i} has {len(group['params'])} parameters, the optimizer's {len(own['params'])}; {build}"
            )
    own_names, names = ([n for g in gs for n in g.get("param_names") or ()] for gs in (groups, theirs))
    if own_names != names and sorted(own_names) == sorted(names):
        i = next(i for i, (a, b) in enumerate(zip(own_names, names, strict=True)) if a != b)
        raise ValueError(
            f"loaded state dict has the parameters in another order: parameter {i} is {names[i]}, and the optimizer's "
            f"is {own_names[i]}; build the optimizer with the parameters in the saved order"
        )


def _check_state(saved: State, p: Tensor, where: str) -> None:
    """Raises for what is not the state of ``p``; none at all is right, and alpha and radius alone before a step."""
    if not isinstance(saved, dict):
        raise ValueError(f"loaded state of {where} is not AdaRem's: it is {saved!r:.40}, no dict; {_REMEDY}")
    keys = [key for key in saved if key not in _OF_SPHERE]
    lacking = [key for key in _NEEDED if keys and key not in saved]
    lacking += [key for key in _OF_SPHERE if key not in saved and len(keys) + 1 == len(saved)]
    unknown = [key for key in keys if key not in (*_NEEDED, "decay_offset")]
    if lacking or unknown:
        problem = " and ".join(
            f"{verb} {', '.join(map(str, found))}" for verb, found in (("has", unknown), ("lacks", lacking)) if found
        )
        raise ValueError(f"loaded state of {where} is not AdaRem's: it {problem}; {_REMEDY}")
    for key, value in saved.items():
        shape = p.shape if key == "exp_avg" else torch.Size()
        number = key in ("step", "decay_offset") and isinstance(value, int | float)
        one = isinstance(value, Tensor) and key == "step" and value.numel() == 1
        if number or one:
            continue
        if not isinstance(value, Tensor):
            raise ValueError(f"loaded state of {where} is not AdaRem's: {key} is {value!r:.40}, no Tensor; {_REMEDY}")
        if value.shape != shape:
            raise ValueError(
                f"loaded state of {where} has {key} of shape {tuple(value.shape)}, and needs {tuple(shape)}: it is "
                "of other parameters, or in another order; build the optimizer with the parameters in the saved order"
            )
        if key == "exp_avg" and not sharded.spread_alike(p, value):
            raise ValueError(f"loaded state of {where} is not distributed like the param; {sharded.LOAD_BY}")
        complex_m = key == "exp_avg" and p.is_complex()
        if value.is_complex() != complex_m or not (complex_m or value.is_floating_point()):
            raise ValueError(f"loaded state of {where} has {key} of type {value.dtype}, p is {p.dtype}; {_REMEDY}")
        if value.layout != torch.strided or (value.is_meta and not p.is_meta):
            kind = value.layout if value.layout != torch.strided else "a meta tensor"
            raise ValueError(f"loaded state of {where} has {key} without dense values: it is {kind}; {_REMEDY}")


def _check_counts(saved: State, group: Group, where: str) -> None:
    """Raises for counts that are none, and for a radius or an alpha that is not positive; NaN may be a run's end."""
    every = resolved(group.get("counted_every", group.get("decay_every")))
    numbers = [saved[key] for key in ("step", "decay_offset") if key in saved]
    if any(isinstance(x, Tensor) and (x.is_meta or x.is_complex()) for x in numbers) or not all(
        float(x).is_integer() for x in numbers
    ):
        raise ValueError(f"loaded state of {where} has counts that are no integers: {numbers}; {_REMEDY}")
    step, offset = (int(saved.get(key, 0)) for key in ("step", "decay_offset"))
    if step < 0 or (type(every) is int and every > 0 and offset + step // every < 0):
        raise ValueError(f"loaded state of {where} has a negative count: step {step}, offset {offset}; {_REMEDY}")
    for key in _OF_SPHERE:
        if key in saved and not saved[key].is_meta and saved[key].item() <= 0:
            raise ValueError(f"loaded state of {where} has {key} {saved[key].item()}, not above 0; {_REMEDY}")
