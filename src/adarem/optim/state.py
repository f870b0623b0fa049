"""What AdaRem and AdaRem-S keep per parameter: types, devices, first values and how they are loaded."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, _get_scalar_dtype
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

FUSED_DEVICES = ("cpu", "cuda")


def state_dtype(p: Tensor) -> torch.dtype:
    """m of a 16-bit parameter is kept in float32: in bfloat16 a moving average with beta = 0.999 stops moving."""
    return torch.float32 if p.dtype in (torch.float16, torch.bfloat16) else p.dtype


def wide_dtype(device: torch.device) -> torch.dtype:
    """For the few scalars that multiply up over a whole training: float64, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def init_state(state: dict, p: Tensor, group: dict) -> None:
    on_device = group["capturable"] or group["fused"]
    dtype = state_dtype(p)
    state["step"] = (
        torch.zeros((), dtype=_get_scalar_dtype(is_fused=True), device=p.device)
        if on_device
        else torch.tensor(0.0, dtype=_get_scalar_dtype())
    )
    state["exp_avg"] = torch.zeros_like(p, dtype=dtype, memory_format=torch.preserve_format)
    state["exp_avg_max"] = torch.zeros((), dtype=dtype.to_real(), device=p.device)


def model_maximum(optimizer: Optimizer) -> Tensor | None:
    """max|m| over all parameters of the groups with ``scope="model"``, before this step; None without such."""
    maxima = [
        optimizer.state[p]["exp_avg_max"]
        for group in optimizer.param_groups
        if group["scope"] == "model"
        for p in group["params"]
        if "exp_avg_max" in optimizer.state.get(p, {})
    ]
    if not maxima:
        return None
    return torch.stack([m.detach().to(maxima[0].device, maxima[0].dtype) for m in maxima]).amax()


def step_to_tensor(state: dict, p: Tensor, group: dict) -> None:
    """Older or hand-made states may hold the step count as a number."""
    if "step" in state and not isinstance(state["step"], Tensor):
        on_device = group["capturable"] or group["fused"]
        state["step"] = torch.tensor(
            float(state["step"]),
            dtype=_get_scalar_dtype(is_fused=on_device),
            device=p.device if on_device else None,
        )


@contextmanager
def restore_state_dtypes(optimizer: Optimizer) -> Iterator[None]:
    """While open, load_state_dict on ``optimizer`` keeps each state's own type.

    The base class casts all of a parameter's state to the parameter's type, which would round m to 16 bits and the
    float64 scalars of the sphere to 32.
    """
    saved: dict = {}

    def remember(_, state_dict):  # runs after the user's own pre hooks, so it sees what is loaded
        saved.update(state_dict)

    def restore(_):  # runs before the user's own post hooks
        ids = [i for group in saved["param_groups"] for i in group["params"]]
        params = [p for group in optimizer.param_groups for p in group["params"]]
        for i, p in zip(ids, params, strict=True):
            for key, value in saved["state"].get(i, {}).items():
                if key == "step" or not isinstance(value, Tensor):
                    continue
                dtype = wide_dtype(p.device) if key in ("alpha", "radius") else state_dtype(p)
                if key == "exp_avg_max":
                    dtype = dtype.to_real()
                if optimizer.state[p][key].dtype != dtype:
                    # a clone: the loaded tensor must not be the one in the caller's dict
                    optimizer.state[p][key] = value.detach().clone().to(device=p.device, dtype=dtype)

    hooks = [
        optimizer.register_load_state_dict_pre_hook(remember),
        optimizer.register_load_state_dict_post_hook(restore, prepend=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_settings(group: dict) -> None:
    """Refuses what AdaRem cannot take, in torch's wording."""
    lr = group["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    for key, name in (("lr", "learning rate"), ("weight_decay", "weight_decay value"), ("eps", "epsilon value")):
        if not 0.0 <= group[key] < math.inf:
            raise ValueError(f"Invalid {name}: {group[key]}")
    for key in ("beta", "lam"):
        if not 0.0 <= group[key] <= 1.0:
            raise ValueError(f"Invalid {key} value: {group[key]}")
    every = group["decay_every"]
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"Invalid decay_every value: {every}")
    if group["scope"] not in ("tensor", "model"):
        raise ValueError(f"Invalid scope value: {group['scope']}")
    if group["fused"] and group["differentiable"]:
        raise RuntimeError("`fused` does not support `differentiable`")
    if group["fused"] and group["foreach"]:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")


def check_fused(p: Tensor) -> None:
    if not (p.device.type in FUSED_DEVICES and torch.is_floating_point(p)):
        raise RuntimeError(
            "`fused=True` requires all the params to be floating point Tensors of "
            f"supported devices: {list(FUSED_DEVICES)} but {p.dtype} and {p.device.type}"
        )
    if is_traceable_wrapper_subclass(p):  # a DTensor has no memory of its own for a kernel to write to
        raise RuntimeError(f"`fused=True` does not support {type(p).__name__} params: use foreach")


def coefficients(
    state_steps: list[Tensor], lam: float, decay_every: int, as_tensor: bool
) -> list[float] | list[Tensor]:
    """lam ** (steps done // decay_every), one for each parameter: floats, or 0-dim tensors without host reads."""
    if as_tensor:
        return [lam ** torch.div(step, decay_every, rounding_mode="floor") for step in state_steps]
    known: dict[float, float] = {}  # mostly one value for all
    return [
        known[s] if s in known else known.setdefault(s, lam ** (int(s) // decay_every))
        for s in (step.item() for step in state_steps)
    ]


def abs_max(m: Tensor) -> Tensor:
    """max|m| without a temporary of m's size; 0-dim, NaN if any element is."""
    low, high = torch.aminmax(m)
    return torch.maximum(high, -low)


def rates(lr: float | Tensor | list, n: int) -> list[float] | list[Tensor]:
    """One learning rate a parameter: floats, or 0-dim tensors."""
    if isinstance(lr, list):
        return lr
    return [lr.squeeze() if isinstance(lr, Tensor) and lr.dim() else lr] * n
