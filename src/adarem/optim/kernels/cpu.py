"""The fused CPU step: the arguments of ``cpu_kernel.cpp``, and its call through ctypes."""

import ctypes
from array import array

import torch
from torch import Tensor

from adarem.optim.adarem_s import Sphere
from adarem.optim.kernels.cpu_library import library
from adarem.optim.memory import Pieces, addresses
from adarem.optim.step import Memory, StepSettings, StepTensors


class _Args(ctypes.Structure):
    """The struct of the same fields in cpu_kernel.cpp."""

    _fields_ = [
        ("tensors", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("numel", "params", "grads", "exp_avgs", "maxima", "steps", "offsets")),
        ("shared_maximum", ctypes.c_void_p),
        ("alphas", ctypes.c_void_p),
        ("radii", ctypes.c_void_p),
        ("spheres", ctypes.c_int64),
        ("slr", ctypes.c_int64),
        ("scaled", ctypes.c_int64),
        *((name, ctypes.c_double) for name in ("lr", "beta", "lam", "eps", "weight_decay", "sign", "grad_scale")),
        ("decay_every", ctypes.c_int64),
        ("threads", ctypes.c_int64),
    ]


def fused_step(tensors: StepTensors, settings: StepSettings, sphere: Sphere | None) -> None:
    """One step over CPU tensors of one type and layout; with ``sphere`` a step on it."""
    # Reading a CPU tensor on the host costs nothing.
    if settings.found_inf is not None and settings.found_inf.item() != 0:
        return
    memory = settings.memory
    known = memory is not None and memory.tensors is tensors and len(memory.pointers) > 0
    pointers = memory.pointers if memory and known else [addresses(xs) for xs in tensors]
    numels = memory.numels if memory and known else array("q", map(Tensor.numel, tensors.params))
    params, grads, exp_avgs, maxima, steps, offsets = pointers
    shared = settings.model_maximum
    if shared is not None:
        shared = shared.to("cpu", tensors.maxima[0].dtype)
    arrays = {  # alive until the call returns
        "numel": numels,
        "params": params,
        "exp_avgs": exp_avgs,
        "grads": grads,
        "maxima": maxima,
        "steps": steps,
        "offsets": offsets,
        "alphas": addresses(sphere.alphas if sphere else []),
        "radii": addresses(sphere.radii if sphere else []),
    }
    args = _Args(
        tensors=len(tensors.params),
        shared_maximum=None if shared is None else shared.data_ptr(),
        spheres=len(sphere.radii) if sphere else 0,
        slr=sphere is not None and sphere.slr,
        lr=float(settings.lr),
        beta=settings.beta,
        lam=settings.lam,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        sign=-1.0 if settings.maximize else 1.0,
        scaled=settings.grad_scale is not None,
        grad_scale=1.0 if settings.grad_scale is None else float(settings.grad_scale),
        decay_every=settings.decay_every,
        threads=torch.get_num_threads(),
        **{name: numbers.buffer_info()[0] for name, numbers in arrays.items()},
    )
    name = str(tensors.params[0].dtype).removeprefix("torch.")
    kernel = getattr(library(), f"adarem_{name}")
    kernel.restype = ctypes.c_int64
    _raise_for_count(kernel(ctypes.byref(args)), tensors)


def check_counts(memory: Memory, decay_every: int) -> None:
    """Raises ValueError for a count of steps, or of λ's powers, on the CPU that the step would refuse."""
    steps, offsets = (numbers.buffer_info()[0] for numbers in memory.pointers[-2:])
    args = _Args(tensors=len(memory.numels), steps=steps, offsets=offsets, decay_every=decay_every)
    kernel = library().adarem_refused_count
    kernel.restype = ctypes.c_int64
    _raise_for_count(kernel(ctypes.byref(args)), memory.tensors)


def are_clear(pieces: Pieces, starts: "array[int]", nbytes: "array[int]") -> bool:
    """:meth:`Pieces.are_clear_of` in a tenth of its time."""
    numbers = (starts, nbytes), (pieces.starts, pieces.ends)
    args = [x for a, b in numbers for x in (len(a), a.buffer_info()[0], b.buffer_info()[0])]
    clear = library().adarem_are_clear
    clear.argtypes = [ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p] * 2
    clear.restype = ctypes.c_int64
    return bool(clear(*args))


def _raise_for_count(refused: int, tensors: StepTensors) -> None:
    if refused >= 0:
        step, offset = (xs[refused].item() for xs in (tensors.state_steps, tensors.decay_offsets))
        raise ValueError(f"Invalid step value: {step}, or decay_offset: {offset}")
