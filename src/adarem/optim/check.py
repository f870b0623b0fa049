"""What a step needs of its tensors, checked before anything is changed, for all implementations alike.

A glance with operations on whole lists accepts the usual step. What it does not accept is looked at tensor by tensor,
which raises in one line, or finds a mixture that works too.
"""

import math
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from adarem.optim import compat, sharded
from adarem.optim.memory import Pieces, addresses, extent, fits, sizes
from adarem.optim.recall import LastCheck, Purpose
from adarem.optim.step import MOST_STEPS, Memory, StepSettings, StepTensors, average_dtype, dtype_of, wide_dtype

FUSED_DEVICES = ("cpu", "cuda")
_FUSED_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_DTYPES = (*_FUSED_DTYPES, torch.complex64, torch.complex128)
_COUNTS = {torch.float32, torch.float64}
_FLOAT32_MAX = torch.finfo(torch.float32).max


class _Named(NamedTuple):
    name: str
    tensor: Tensor
    written: bool


def check_step(
    tensors: StepTensors,
    settings: StepSettings,
    alphas: Sequence[Tensor] = (),
    radii: Sequence[Tensor] = (),
    one_sphere: bool = False,
    optimizer: str = "AdaRem",
    last: LastCheck | None = None,
) -> Memory:
    """What the kernels need to know of the tensors' memory; changes nothing.

    Args:
        alphas, radii: 0-dim, one for each parameter on a sphere, or one radius for all.
        one_sphere: whether all parameters lie on one sphere together.
        optimizer: its name in messages.
        last: what the check of the same group found at the last step, which spares one of tensors like those.

    Raises:
        RuntimeError: a tensor is not what the step needs: its type, shape, device or layout, or memory that it lacks or
            shares with another one.
        ValueError: a count of steps on the CPU that is none.
        AssertionError: as torch's optimizers, ``capturable`` on a device without graphs; ``grad_scale`` without fused.
    """
    _check_settings(settings, tensors.params)
    if settings.capturable:
        compat.check_capturable(tensors.params, tensors.state_steps)
    if not tensors.params:
        return Memory(tensors)
    radii = radii if len(radii) != 1 else [radii[0]] * len(tensors.params)
    memory = _look(tensors, settings, alphas, radii, optimizer)
    if settings.fused and one_sphere and len(memory.groups) > 1:
        raise _unlike_on_one_sphere()
    _check_counts(tensors.state_steps, tensors.decay_offsets, settings, memory)
    if last:
        last.remember(memory, (alphas, radii), _purpose(settings, one_sphere))
    return memory


def recall_step(
    lists: Sequence[Sequence[Tensor]], settings: StepSettings, one_sphere: bool, last: LastCheck
) -> Memory | None:
    """What :func:`check_step` finds, where the tensors are like those of the last step of their group; else None.

    Args:
        lists: those of :class:`StepTensors`, then alphas and radii of parameters on a sphere.

    Raises:
        RuntimeError, ValueError, AssertionError: as :func:`check_step`.
    """
    _check_settings(settings, lists[0])
    memory = last.recall(lists, _purpose(settings, one_sphere))
    if memory is not None:
        _check_counts(memory.tensors.state_steps, memory.tensors.decay_offsets, settings, memory)
    return memory


def _purpose(settings: StepSettings, one_sphere: bool) -> Purpose:
    scaled = settings.grad_scale is not None
    return Purpose(bool(settings.fused), scaled, settings.capturable, settings.differentiable, one_sphere)


def _look(
    tensors: StepTensors, settings: StepSettings, alphas: Sequence[Tensor], radii: Sequence[Tensor], optimizer: str
) -> Memory:
    try:
        memory = _glance(tensors, settings, alphas, radii)
    except (AttributeError, NotImplementedError, RuntimeError):  # a tensor without memory raises on being asked
        memory = None
    if memory is None:
        _look_at_each(tensors, settings, alphas, radii, optimizer)
        memory = Memory(tensors, groups=compat.indices_by_device_and_dtype(tensors.params))
    return memory


# ---- at a glance -----------------------------------------------------------------------------------------------------


def _glance(
    tensors: StepTensors, settings: StepSettings, alphas: Sequence[Tensor], radii: Sequence[Tensor]
) -> Memory | None:
    """What the kernels need, if all is as usual; else None, or an error of torch's."""
    everything = (*tensors, alphas, radii)
    if not all(map(_is_plain, set(map(type, chain.from_iterable(everything))))):
        return None
    groups = compat.indices_by_device_and_dtype(tensors.params)
    for chosen in groups:
        part, scalars = tensors, [alphas, radii]
        if len(groups) > 1:
            part = StepTensors._make([xs[i] for i in chosen] for xs in tensors)
            scalars = [[xs[i] for i in chosen] for xs in scalars if xs]
        if not _is_usual(settings.fused, part, scalars):
            return None
    params, grads, exp_avgs = tensors.params, tensors.grads, tensors.exp_avgs
    sizes = list(map(Tensor.size, params))
    if sizes != list(map(Tensor.size, grads)) or sizes != list(map(Tensor.size, exp_avgs)):
        return None
    numels = array("q", map(Tensor.numel, params))
    alike = all(map(Tensor.is_contiguous, chain(params, grads, exp_avgs)))
    reaches = [numels] * 3
    if not alike:
        strides = [list(map(Tensor.stride, xs)) for xs in (params, grads, exp_avgs)]
        reaches = [array("q", map(extent, sizes, own)) for own in strides]
        if min(reaches[0]) < 0 or min(reaches[2]) < 0 or (settings.grad_scale is not None and min(reaches[1]) < 0):
            return None
        reaches[1] = array("q", map(abs, reaches[1]))  # a gradient that is only read may refer to an element twice
        alike = strides[0] == strides[1] == strides[2] and reaches[0] == numels
    if len(groups) == 1 and len(radii) > 1 and radii[0] is radii[1]:
        radii = radii[:1]  # of all
    held = (*tensors, alphas, radii)
    starts = [addresses(xs) for xs in held]
    if not _lie_apart(held, starts, reaches):
        return None
    return Memory(tensors, groups, alike, numels, starts[: len(tensors)])


def _is_plain(kind: type[Tensor]) -> bool:
    """Whether tensors of that type hold their elements themselves."""
    return kind.__torch_dispatch__ is Tensor.__torch_dispatch__


def _is_usual(fused: bool | None, tensors: StepTensors, scalars: Sequence[Sequence[Tensor]]) -> bool:
    """Types and devices of tensors of parameters that have one of each."""
    params, grads, exp_avgs, maxima, *counts = tensors
    first = params[0]
    average = average_dtype(first.dtype)
    count_dtypes = {torch.float32} if fused else _COUNTS
    wide = {wide_dtype(first.device)}
    places = set(map(Tensor.get_device, chain(params, grads, exp_avgs, maxima, *scalars)))
    return (
        (first.device.type in FUSED_DEVICES or not fused)
        and first.dtype in (_FUSED_DTYPES if fused else _DTYPES)
        and places == {first.get_device()}
        and set(map(Tensor.get_device, chain(*counts))) <= (places if fused else {*places, -1})
        and set(map(dtype_of, grads)) == {first.dtype}
        and set(map(dtype_of, exp_avgs)) == {average}
        and set(map(dtype_of, maxima)) == {average.to_real()}
        and set(map(dtype_of, chain(*counts))) <= count_dtypes
        and set(map(dtype_of, chain(*scalars))) <= wide
        and not any(map(Tensor.dim, chain(maxima, *counts, *scalars)))
        and not any(map(Tensor.is_neg, chain(params, grads, exp_avgs)))
        and not any(map(Tensor.is_inference, chain(params, exp_avgs)))
    )


def _lie_apart(
    lists: Sequence[Sequence[Tensor]], starts: Sequence["array[int]"], reaches: Sequence["array[int]"]
) -> bool:
    """Whether each tensor's storage has its elements, and no two tensors have one in common."""
    nbytes: list[int] = []
    for i, (xs, own) in enumerate(zip(lists, starts, strict=True)):
        reach = reaches[i] if i < len(reaches) else [1] * len(xs)
        if not all(own) or not all(map(fits, xs, reach)):
            return False
        nbytes += sizes(reach, xs)
    return Pieces.of([*chain(*starts)], nbytes) is not None


# ---- one by one ------------------------------------------------------------------------------------------------------


def _look_at_each(
    tensors: StepTensors,
    settings: StepSettings,
    alphas: Sequence[Tensor],
    radii: Sequence[Tensor],
    optimizer: str,
) -> None:
    """Raises for the first tensor that is not as it must be."""
    held: list[_Named] = []
    for i, p in enumerate(tensors.params):
        scalars = {"exp_avg_max": tensors.maxima[i], "step": tensors.state_steps[i]}
        scalars["decay_offset"] = tensors.decay_offsets[i]
        scalars |= {key: xs[i] for key, xs in (("alpha", alphas), ("radius", radii)) if xs}
        held += _look_at(i, p, tensors.grads[i], {"exp_avg": tensors.exp_avgs[i], **scalars}, settings, optimizer)
    _refuse_shared_memory(held)


def check_parameters(
    entries: Sequence[tuple[Tensor, Tensor, dict[str, Tensor]]],
    settings: StepSettings,
    one_sphere: bool,
    optimizer: str,
) -> None:
    """:func:`check_step` before there is any state, or where there is some: parameters, gradients and what they have.

    Raises:
        RuntimeError: as :func:`check_step`.
    """
    _check_settings(settings, [p for p, _, _ in entries])
    if settings.fused and one_sphere and len({(p.device, p.dtype) for p, _, _ in entries}) > 1:
        raise _unlike_on_one_sphere()
    held: list[_Named] = []
    for i, (p, grad, state) in enumerate(entries):
        held += _look_at(i, p, grad, state, settings, optimizer)
    _refuse_shared_memory(held)
    steps, offsets = ([state[key] for _, _, state in entries if key in state] for key in ("step", "decay_offset"))
    _check_counts(steps, offsets, settings)


def _look_at(
    i: int, p: Tensor, grad: Tensor, state: dict[str, Tensor], settings: StepSettings, optimizer: str
) -> list[_Named]:
    """Those of a parameter's tensors that have memory."""
    name = f"parameter {i} of the group"
    spread = sharded.is_sharded(p)  # its gradient and m then are, too; each process checks its parts later
    _check_kind(name, p, settings, spread)
    average = average_dtype(p.dtype)
    if grad.layout != torch.strided:
        raise RuntimeError(f"{optimizer} does not support sparse gradients")
    _check_kind(f"the gradient of {name}", grad, settings, spread, written=False)
    if grad.shape != p.shape or grad.device != p.device:
        raise RuntimeError(
            f"the gradient of {name} is {_words(grad)}, but the parameter is {_words(p)}: "
            "compute it anew, with zero_grad() and backward()"
        )
    if grad.dtype != p.dtype and (settings.fused or grad.dtype not in _DTYPES or grad.is_complex() != p.is_complex()):
        remedy = "use foreach, or convert the gradient" if settings.fused else "convert the gradient"
        raise RuntimeError(f"the gradient of {name} is {grad.dtype}, but the parameter is {p.dtype}: {remedy}")
    expected = {
        "exp_avg": (p.shape, {average}),
        "exp_avg_max": ((), {average.to_real()}),
        "step": ((), {torch.float32} if settings.fused else _COUNTS),
        "decay_offset": ((), {torch.float32} if settings.fused else _COUNTS),
        "alpha": ((), {wide_dtype(p.device)}),
        "radius": ((), {wide_dtype(p.device)}),
    }
    state = {key: state[key] for key in expected if key in state}
    for key, x in state.items():
        shape, dtypes = expected[key]
        if not isinstance(x, Tensor):
            raise RuntimeError(
                f"{key} of {name} is {x!r}, where a Tensor is needed: load a state dict of this optimizer"
            )
        if x.shape != shape:
            raise RuntimeError(
                f"{key} of {name} has shape {tuple(x.shape)}, where {tuple(shape)} is needed: "
                "the state belongs to other parameters, or to another order of them"
            )
        elsewhere = x.device != p.device and (
            settings.fused or key not in ("step", "decay_offset") or x.device.type != "cpu"
        )
        if x.dtype not in dtypes or elsewhere:
            raise RuntimeError(
                f"{key} of {name} is {x.dtype} on {x.device}, but the parameter is {p.dtype} on {p.device}: after "
                "converting parameters call optimizer.load_state_dict(optimizer.state_dict())"
            )
        if key == "exp_avg":
            _check_kind(f"exp_avg of {name}", x, settings, spread)
        elif x.layout != torch.strided:
            raise RuntimeError(
                f"{key} of {name} is {x.layout}, where a dense tensor is needed: convert it with to_dense()"
            )
    held = [_Named(name, p, True), _Named(f"the gradient of {name}", grad, settings.grad_scale is not None)]
    held += [_Named(f"{key} of {name}", x, key != "radius") for key, x in state.items()]
    return [x for x in held if _in_memory(x, settings)]


def _check_kind(name: str, x: Tensor, settings: StepSettings, spread: bool, written: bool = True) -> None:
    """Refuses what no implementation can work on, and for ``fused`` what has no memory of its own."""
    if x.layout != torch.strided or x.is_nested or x.is_quantized:
        kind = "nested" if x.is_nested else "quantized" if x.is_quantized else x.layout
        raise RuntimeError(f"{name} is {kind}, where a dense tensor is needed: convert it with to_dense()")
    if settings.fused and not (x.device.type in FUSED_DEVICES and x.dtype in _FUSED_DTYPES):
        raise RuntimeError(
            "`fused=True` requires all the params to be floating point Tensors of supported devices: "
            f"{list(FUSED_DEVICES)} but {name} is {x.dtype} and {x.device.type}"
        )
    if x.dtype not in _DTYPES:
        raise RuntimeError(f"{name} is {x.dtype}, where one of {_list(_DTYPES)} is needed: convert it")
    if settings.fused and not _is_plain(type(x)) and not (spread and sharded.is_sharded(x)):
        raise RuntimeError(f"`fused=True` does not support {type(x).__name__} params: use foreach")
    if written and x.is_inference() and not torch.is_inference_mode_enabled():
        raise RuntimeError(f"{name} is an inference tensor, which cannot be updated outside InferenceMode: clone() it")


def _in_memory(x: _Named, settings: StepSettings) -> bool:
    """Whether it has memory, which it then must have to the full extent, with one place for each element if written."""
    tensor = x.tensor
    if not _is_plain(type(tensor)) or tensor.device.type == "meta":
        return False
    try:
        address = tensor.data_ptr()
        reach = extent(tensor.size(), tensor.stride())
        complete = fits(tensor, abs(reach))
    except (NotImplementedError, RuntimeError):  # functorch's tensors
        address, complete = 0, not settings.fused
    if not complete and not compat.is_zero_tensor(tensor) or settings.fused and not address:
        raise RuntimeError(f"{x.name} has no memory of its own, or less than its shape {tuple(tensor.shape)} needs")
    if not address:
        return False
    if x.written and reach < 0:
        raise RuntimeError(
            f"unsupported operation: more than one element of {x.name} refers to a single memory location. "
            "Please clone() the tensor before performing the operation."
        )
    return True


def _refuse_shared_memory(held: Sequence[_Named]) -> None:
    """Raises if an element of a tensor that is written is an element of another tensor too."""
    cluster: list[_Named] = []
    end = 0
    for x in sorted(held, key=lambda x: x.tensor.data_ptr()):
        if x.tensor.data_ptr() >= end:
            _refuse_shared_elements(cluster)
            cluster = []
        cluster.append(x)
        reach = abs(extent(x.tensor.size(), x.tensor.stride()))
        end = max(end, x.tensor.data_ptr() + reach * x.tensor.element_size())
    _refuse_shared_elements(cluster)


def _refuse_shared_elements(cluster: Sequence[_Named]) -> None:
    """The same of tensors whose pieces of memory overlap: their elements may still alternate."""
    if len(cluster) < 2 or not any(x.written for x in cluster):
        return
    base = min(x.tensor.data_ptr() for x in cluster)
    unit = math.gcd(*(x.tensor.element_size() for x in cluster), *(x.tensor.data_ptr() - base for x in cluster))
    offsets = [(x.tensor.data_ptr() - base) // unit for x in cluster]
    widths = [x.tensor.element_size() // unit for x in cluster]
    extents = [abs(extent(x.tensor.size(), x.tensor.stride())) for x in cluster]
    units = max(o + n * w for o, n, w in zip(offsets, extents, widths, strict=True))
    owners = torch.zeros(units, dtype=torch.int32, device="cpu")  # of each unit of memory: 1 + index in the cluster
    for written in (True, False):
        for i, x in enumerate(cluster):
            if x.written != written:
                continue
            size, stride = (*x.tensor.shape, widths[i]), (*(s * widths[i] for s in x.tensor.stride()), 1)
            own = owners.as_strided(size, stride, offsets[i])
            other = int(own.max())
            if other:
                raise RuntimeError(f"{x.name} and {cluster[other - 1].name} share memory: clone() one of them")
            if written:
                own.fill_(i + 1)


def _unlike_on_one_sphere() -> RuntimeError:
    return RuntimeError(
        "`fused=True` with sphere='model' requires all spherical params of a group on one device, of one dtype: "
        "use foreach, or sphere='tensor'"
    )


def _check_counts(
    steps: Sequence[Tensor], offsets: Sequence[Tensor], settings: StepSettings, memory: Memory | None = None
) -> None:
    """Raises for a count that is none, where reading it costs nothing."""
    if settings.capturable:
        return
    if settings.fused and memory and memory.pointers and all(steps[chosen[0]].is_cpu for chosen in memory.groups):
        from adarem.optim.kernels import cpu, fused  # here: others need no compiler

        if fused.available("cpu"):
            cpu.check_counts(memory, settings.decay_every)
            return
    for name, counts, lowest in (("step", steps, 0), ("decay_offset", offsets, -MOST_STEPS)):
        on_host = [x for x in counts if x.is_cpu]
        if not on_host or not all(map(_is_plain, set(map(type, on_host)))):
            continue
        low, high = (x.item() for x in torch.aminmax(torch.stack(on_host)))
        if not (low >= lowest and high < MOST_STEPS):
            raise ValueError(f"Invalid {name} value: {high if low >= lowest else low}")
        if name == "decay_offset" and low < 0 and len(steps) == len(offsets):  # else a step makes what is missing
            _refuse_negative_powers(steps, offsets, settings.decay_every)


def _refuse_negative_powers(steps: Sequence[Tensor], offsets: Sequence[Tensor], every: int) -> None:
    """Raises for a decay_offset below what the steps done have added, as after a reset of ``step`` alone."""
    for step, offset in zip(steps, offsets, strict=True):
        if step.is_cpu and _is_plain(type(step)) and offset.is_cpu and int(offset) + int(step) // every < 0:
            raise ValueError(f"Invalid step value: {step.item()}, or decay_offset: {offset.item()}")


def _check_settings(settings: StepSettings, params: Sequence[Tensor]) -> None:
    """What settings ask of parameters, or a GradScaler of settings."""
    _check_scaling(settings)
    for name, value in (("lr", settings.lr), ("weight_decay", settings.weight_decay)):
        if not isinstance(value, Tensor) and value > _FLOAT32_MAX:
            narrow = {p.dtype for p in params} - {torch.float64, torch.complex128}
            if narrow:
                raise RuntimeError(f"{name} of {value} is beyond the range of {_list(narrow)}: give a smaller one")
    _check_fakes(settings, params)


def _check_fakes(settings: StepSettings, params: Sequence[Tensor]) -> None:
    """FakeTensors are stepped in their mode, by an implementation that needs none of their values."""
    active, fakes = compat.fake_mode_is_active(), any(map(compat.is_fake, set(map(type, params))))
    if settings.fused and fakes:
        raise RuntimeError("`fused=True` does not support FakeTensor params: use foreach=False")
    if settings.fused and active:
        raise RuntimeError("`fused=True` writes to memory, which a FakeTensorMode cannot see: step outside of it")
    if fakes and not active:
        raise RuntimeError("FakeTensor params have no values: step in their FakeTensorMode")
    if active and not all(map(compat.is_fake, set(map(type, params)))):
        raise RuntimeError("a FakeTensorMode does not support params with values: step outside of it")
    if active and settings.foreach:
        raise RuntimeError("`foreach=True` reads values, which FakeTensor params do not have: use foreach=False")


def _check_scaling(settings: StepSettings) -> None:
    if not settings.fused and (settings.grad_scale is not None or settings.found_inf is not None):
        raise AssertionError("Expected grad_scale and found_inf to be None")
    for name, x in (("grad_scale", settings.grad_scale), ("found_inf", settings.found_inf)):
        if x is None:
            continue
        if not (isinstance(x, Tensor) and _is_plain(type(x)) and x.numel() == 1 and x.is_floating_point()):
            kind = _words(x) if isinstance(x, Tensor) else repr(x)
            raise RuntimeError(f"`{name}` must be a 1-element floating point Tensor, a GradScaler's, but got {kind}")
        if x.device.type not in FUSED_DEVICES or x.layout != torch.strided:
            raise RuntimeError(f"`{name}` must be a dense Tensor on one of {list(FUSED_DEVICES)}, but got {_words(x)}")


def _words(x: Tensor) -> str:
    return f"{x.dtype} of shape {tuple(x.shape)} on {x.device}"


def _list(dtypes: Iterable[torch.dtype]) -> str:
    return ", ".join(map(str, dtypes))
