"""Which weights are scale-invariant: found in numbers, by passes through a copy of the network."""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from adarem.optim import compat

# On a scale-invariant parameter the cosine |⟨∇L, θ⟩| / (‖∇L‖ ‖θ‖) is float64 rounding, about 1e-15; on others it is
# that of random directions. Gradients smaller than this share of the largest are rounding themselves (a bias in front
# of a BatchNorm).
_COSINE = 1e-9
_SHARE = 1e-9
# The eps of a normalisation breaks the invariance by eps / variance. Where a module has it as an attribute it is set to
# almost 0. Elsewhere the cosine is a small share of that of random directions, and falls as 1 / _GROWTH² for a weight
# that grows; in a sum in front of a normalisation it falls too, but as 1 / _GROWTH.
_EPS_NAMES = ("eps", "epsilon", "variance_epsilon")
_SMALL = 0.03
_GROWTH = 1e4
_FALL = 1e-4
_ROUNDING = 1e-7  # of normalisations that compute in float32 whatever they are given, and of scripted ones
_PIXELS = 200_000  # values a channel that the example batch aims at; see _batches


def scale_invariant(model: nn.Module, example_input: object) -> list[str]:
    """Names of the trainable weights whose length the network's output does not see while it trains.

    For these ⟨∇L, θ⟩ = 0 for every loss L (property 1 in section 3.4 of the paper). A backward pass in float64 through
    a copy with random weights decides; the model, its gradients, modes, hooks, BatchNorm statistics and torch's random
    state stay as they are. The answer depends only on the architecture, the modes and the input's shape, so all ranks
    agree. What normalises does not count, be it Batch-, Group-, Instance-, Layer- or RMSNorm, weight normalisation or
    weight standardisation; the eps in it counts as 0.

    Modes are those of training. A BatchNorm in eval inside a model in training mode is frozen: it normalises by its
    running statistics, and the weight in front of it is not invariant. A model that is itself in eval mode gets
    ``train()`` first, as every training loop calls it, and so does a module with a ``train`` of its own, which may
    freeze. Dropout is off.

    Parameters of one dimension are left out: the gain of a BatchNorm that only a convolution separates from the next
    one is invariant as well (in MobileNetV2 and ShuffleNetV2), but gains and biases are not what the paper rescales.

    Args:
        model (nn.Module): any network that runs in float64, also compiled, traced, scripted or wrapped in DDP; 16-bit
            and complex parameters are widened. Hooks of the model run in the copy.
        example_input (Tensor, tuple, dict or other): what the network takes; a tuple is ``model(*example_input)``, a
            dict ``model(**example_input)``. Of floating tensors only the shape counts, and where all inputs are
            floating the batch may be of any size. Integers are taken as they are.

    Returns:
        list[str]: in the order of ``model.named_parameters()``; empty for a network without normalisation or without
        trainable parameters.

    Raises:
        ValueError: in one line, if the answer cannot be found: parameters that are sharded (FSDP, DTensor), on the meta
            device or not initialised; a model that cannot be copied; a forward pass in float64 that fails, that is not
            finite, or that depends on no trainable parameter.
    """
    model, prefix = compat.unwrap(model)
    params = {n: p for n, p in model.named_parameters() if p.requires_grad}
    check_initialised(model)
    if not params:
        return []
    _check_plain(model)
    device = next(iter(params.values())).device
    cpu = device.type == "mps"  # has no float64
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type if device.type in ("cpu", "cuda") else "cpu", enabled=False),
    ):
        probe = _copy(model)
        if cpu:
            device = torch.device("cpu")
            probe.to(device)
        _prepare(probe)
        weights: dict[str, Tensor] = {n: p for n, p in probe.named_parameters() if n in params}
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in weights.values():  # a zero or constant initial value would look invariant by chance
                fan_in = max(p[0].numel(), 1) if p.dim() > 1 else 4
                p.copy_(torch.randn(p.shape, generator=draw, dtype=p.dtype, device="cpu") / fan_in**0.5)
        with compat.eager(probe):
            names = _found(probe, _batches(example_input, draw, device), weights)
    return [prefix + n for n in names]


def check_initialised(model: nn.Module) -> None:
    """Raises ValueError for a lazy module that has seen no batch: its parameters have no shape."""
    for name, p in model.named_parameters():
        if is_lazy(p):
            raise ValueError(f"model: lazy parameter '{name}' has no shape yet; run a batch through the model first")


def _check_plain(model: nn.Module) -> None:
    remedy = "find the names before and give them later: param_groups(model, spherical=names)"
    for module in model.modules():
        if any(cls.__name__ == "FullyShardedDataParallel" for cls in type(module).__mro__):
            raise ValueError(f"model: FullyShardedDataParallel has flattened its parameters; {remedy}")
    for name, p in model.named_parameters():
        if compat.is_wrapper_tensor(p):
            raise ValueError(f"model: parameter '{name}' is a {type(p).__name__}, a part of a weight; {remedy}")
        if p.device.type == "meta":
            raise ValueError(
                f"model: parameter '{name}' is on the meta device, without values to compute with; call this on a "
                "model built on a real device and give the names later: param_groups(model, spherical=names)"
            )


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"


_BY_HAND = "name the weights in front of its normalisations yourself: param_groups(model, spherical=names)"


def _copy(model: nn.Module) -> nn.Module:
    # Weights that a hook computes (torch.nn.utils.weight_norm, pruning) are no leaves, which deepcopy refuses.
    computed = {
        id(t): t.detach().clone() for m in model.modules() for t in vars(m).values() if _is_tensor(t) and not t.is_leaf
    }
    try:
        return copy.deepcopy(model, computed)
    except Exception as error:
        raise ValueError(f"model: copy.deepcopy of it fails: {_line(error)}; {_BY_HAND}") from error


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _prepare(probe: nn.Module) -> None:
    """The copy in the modes of training, in float64, with eps of almost 0, without dropout or other processes."""
    if not probe.training:
        probe.train()
    for module in probe.modules():
        if module.training and type(module).train is not nn.Module.train:
            module.train()  # what it freezes, it freezes again whenever a training loop calls train()
    for module in probe.modules():
        if _drops(module):
            module.eval()  # a dropped branch would leave its weights without gradient
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for name in _EPS_NAMES:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 1e-30)
        if isinstance(module, nn.SyncBatchNorm):
            vars(module)["forward"] = partial(compat.BatchNorm.forward, module)  # the statistics of this process
        for name, value in vars(module).items():
            if _is_tensor(value):  # neither parameter nor buffer
                vars(module)[name] = value.to(_wide(value))
    for t in chain(probe.parameters(), probe.buffers()):
        t.data = t.data.to(_wide(t))


def _drops(module: nn.Module) -> bool:
    """Whether a module is Dropout, DropPath, StochasticDepth or the like, and not a network with such a name."""
    named = any("Drop" in cls.__name__ or cls.__name__ == "StochasticDepth" for cls in type(module).__mro__)
    return named and next(module.children(), None) is None and next(module.parameters(), None) is None


def _wide(t: Tensor) -> torch.dtype:
    if t.is_complex():
        return torch.complex128
    return torch.float64 if t.is_floating_point() else t.dtype


class _Pass(NamedTuple):
    """What a backward pass says of some weights."""

    dots: dict[str, float]  # |⟨∇L, θ⟩|
    sizes: dict[str, float]  # ‖∇L‖ ‖θ‖


def _found(probe: nn.Module, batches: Iterator[Any], weights: dict[str, Tensor]) -> list[str]:
    first, batch = _first_pass(probe, batches, weights)
    largest = max(first.sizes.values(), default=0.0)
    found = []
    for name, size in first.sizes.items():
        p = weights[name]
        if p.dim() < 2 or not size > _SHARE * largest:
            continue
        cosine = first.dots[name] / size
        invariant = cosine < _COSINE
        if not invariant and cosine < _SMALL / math.sqrt(p.numel()):  # such an eps, or chance
            value = p.detach().clone()
            with torch.no_grad():
                p.mul_(_GROWTH)
            grown = _pass(probe, batch, {name: p})
            with torch.no_grad():
                p.copy_(value)
            most = _ROUNDING if cosine < 10 * _ROUNDING else min(_ROUNDING, _FALL * cosine)
            invariant = grown.dots[name] < most * grown.sizes[name]
        if invariant:
            found.append(name)
    return found


def _first_pass(probe: nn.Module, batches: Iterator[Any], weights: dict[str, Tensor]) -> tuple[_Pass, Any]:
    """The pass over the first batch that the network takes, and that batch."""
    for batch in batches:
        try:
            return _pass(probe, batch, weights), batch
        except ValueError as refused:
            error = refused
    raise error


def _pass(probe: nn.Module, batch: Any, weights: dict[str, Tensor]) -> _Pass:
    """One forward and backward pass, of a loss with random derivatives."""
    outputs = _forward(probe, batch)
    draw = torch.Generator().manual_seed(1)
    losses = []
    for out in outputs:
        target = torch.randn(out.shape, generator=draw, dtype=out.dtype, device="cpu").to(out.device)
        losses.append(_dot(out, target).cpu())
    grads = torch.autograd.grad(torch.stack(losses).sum(), list(weights.values()), allow_unused=True)
    dots, sizes = {}, {}
    for (name, p), g in zip(weights.items(), grads, strict=True):
        if g is not None and p.numel():
            g = g.to_dense() if g.is_sparse else g
            dots[name] = abs(_dot(g, p.detach()).item())
            sizes[name] = (g.norm() * p.detach().norm()).item()
    return _Pass(dots, sizes)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    product = a * b.conj() if a.is_complex() else a * b
    return product.real.sum() if product.is_complex() else product.sum()


def _forward(probe: nn.Module, batch: Any) -> list[Tensor]:
    """Every floating tensor in the output that depends on a trainable parameter."""
    shapes = ", ".join(str(tuple(t.shape)) for t in _tensors(batch)) or "no tensor"
    try:
        if isinstance(batch, tuple):
            output = probe(*batch)
        elif isinstance(batch, Mapping):
            output = probe(**batch)
        else:
            output = probe(batch)
    except Exception as error:
        raise ValueError(
            f"example_input: the model's forward pass in float64 on input of shape {shapes} fails: {_line(error)}; "
            f"give what the model takes in training, or {_BY_HAND}"
        ) from error
    outputs = [t for t in _tensors(output) if t.requires_grad]
    if not outputs:
        raise ValueError(f"model: no tensor in its output depends on a trainable parameter; {_BY_HAND}")
    if not all(t.isfinite().all() for t in outputs):
        raise ValueError(
            f"example_input: the model's output on random input of shape {shapes} is not finite; {_BY_HAND}"
        )
    return outputs


def _batches(example: Any, draw: torch.Generator, device: torch.device) -> Iterator[Any]:
    """Batches to try in turn: enough samples that BatchNorm over 1 × 1 pixels still has a spread, then as given."""
    tensors = list(_tensors(example))
    floats = all(t.is_floating_point() or t.is_complex() for t in tensors)
    if tensors and floats and all(t.dim() > 0 for t in tensors) and len({t.shape[0] for t in tensors}) == 1:
        values = sum(t.numel() // max(1, t.shape[0]) for t in tensors)
        n = min(16, max(4, _PIXELS // max(1, values)))  # 4 large images, up to 16 small ones
        yield _mapped(example, lambda t: _random(t, (n, *t.shape[1:]), draw, device))
    yield _mapped(example, lambda t: _random(t, t.shape, draw, device))


def _random(t: Tensor, shape: tuple[int, ...], draw: torch.Generator, device: torch.device) -> Tensor:
    if not (t.is_floating_point() or t.is_complex()):
        if t.device.type == "meta":
            raise ValueError("example_input: integers on the meta device have no values; give them on a real device")
        return t.to(device)
    return torch.randn(shape, generator=draw, dtype=_wide(t), device="cpu").to(device)


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in tuples, lists, mappings and dataclasses, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """``value`` with every tensor in it changed; namedtuples and mappings keep their names."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_mapped(item, change) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(_mapped(item, change) for item in value)
    return value
