"""What one step of AdaRem or AdaRem-S reads, and what its implementations have in common."""

from array import array
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from adarem.optim import compat

Step = TypeVar("Step", bound=Callable[..., None])

dtype_of: Callable[[Tensor], torch.dtype] = attrgetter("dtype")  # to map over a list, at C's speed

MOST_STEPS = 9e18  # kernels count in 64 bits

Scalars = list[Any]  # one number for each parameter: all floats, or all 0-dim tensors that the host never reads


class StepTensors(NamedTuple):
    """What a step reads and writes; the k-th entries belong to one parameter. Everything but ``grads`` is updated."""

    params: list[Tensor]
    grads: list[Tensor]
    exp_avgs: list[Tensor]  # m, of the parameter's shape
    maxima: list[Tensor]  # max|m|, 0-dim
    state_steps: list[Tensor]  # steps done, 0-dim
    decay_offsets: list[Tensor]  # 0-dim, not updated; see ``coefficients``


class Memory(NamedTuple):
    """What the check of a step's tensors finds out about their memory, for the kernels."""

    tensors: StepTensors  # those that it is true of
    groups: Sequence[list[int]] = ()  # indices of the parameters of one device and dtype each
    alike: bool = False  # whether params, grads and exp_avgs have one dense layout for each parameter
    numels: "array[int]" = array("q")
    pointers: Sequence["array[int]"] = ()  # in the order of StepTensors; empty where not all have plain memory


class StepSettings(NamedTuple):
    """The settings of one group for one step; the first twelve are documented at :class:`AdaRem`."""

    lr: float | Tensor
    beta: float
    lam: float
    decay_every: int
    eps: float
    weight_decay: float
    maximize: bool = False
    foreach: bool | None = None
    capturable: bool = False
    differentiable: bool = False
    fused: bool | None = None
    has_complex: bool = False  # whether any parameter is complex
    model_maximum: Tensor | None = None  # 0-dim; divides every tensor's m in place of its own maximum
    grad_scale: Tensor | None = None  # GradScaler's, for fused: gradients are divided by it
    found_inf: Tensor | None = None  # GradScaler's, for fused: not 0 leaves everything as it is
    memory: Memory | None = None  # None where the tensors are not checked yet


def choose(single: Step, multi: Step, fused: Step, tensors: StepTensors, settings: StepSettings) -> Step:
    """The implementation that the flags ask for; where they leave it open, foreach on CUDA and single elsewhere."""
    if settings.fused:
        return fused
    foreach = settings.foreach
    if foreach is None and settings.fused is None:
        foreach = compat.default_to_foreach(tensors.params, settings.differentiable)
    return multi if foreach else single


def real_views(tensors: StepTensors) -> StepTensors:
    """The tensors with complex ones seen as their real and imaginary parts."""
    params, grads, exp_avgs = (
        [torch.view_as_real(x) if torch.is_complex(x) else x for x in xs]
        for xs in (tensors.params, tensors.grads, tensors.exp_avgs)
    )
    return tensors._replace(params=params, grads=grads, exp_avgs=exp_avgs)


def average_dtype(dtype: torch.dtype) -> torch.dtype:
    """Of m: float32 for 16-bit parameters, for in bfloat16 a moving average with beta = 0.999 stops moving."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def wide_dtype(device: torch.device) -> torch.dtype:
    """Of the few scalars that multiply up over a training: float64, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def coefficients(tensors: StepTensors, settings: StepSettings) -> Scalars:
    """lam ** (decay offset + steps done // decay_every) for each parameter."""
    lam, every = settings.lam, settings.decay_every
    counts = zip(tensors.state_steps, tensors.decay_offsets, strict=True)
    if settings.capturable or torch.compiler.is_compiling():
        return [lam ** (offset + torch.div(step, every, rounding_mode="floor")) for step, offset in counts]
    numbers = [(step.item(), offset.item()) for step, offset in counts]
    for number in set(numbers):
        if not (0 <= number[0] < MOST_STEPS and abs(number[1]) < MOST_STEPS):
            raise ValueError(f"Invalid step value: {number[0]}, or decay_offset: {number[1]}")
    powers = {n: lam ** (int(n[1]) + int(n[0]) // every) for n in set(numbers)}  # mostly one for all
    return [powers[n] for n in numbers]


def rates(settings: StepSettings, n: int) -> Scalars:
    """The learning rate, once for each of ``n`` parameters: a float, or a 0-dim tensor of 32 bits at least."""
    lr = settings.lr
    if isinstance(lr, Tensor):
        lr = lr.squeeze() if lr.dim() else lr
        lr = lr.float() if lr.element_size() < 4 else lr
    return [lr] * n


def abs_max(m: Tensor) -> Tensor:
    """max|m| without a temporary of m's size; 0-dim, NaN if any element is."""
    low, high = torch.aminmax(m)
    return torch.maximum(high, -low)
