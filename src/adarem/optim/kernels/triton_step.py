"""The fused CUDA step: Triton kernels over a list of tensors, one pass over memory, no read by the host.

The kernels' table (see ``triton_kernels``) is made here and uploaded asynchronously.
"""

import functools
import math
import struct

import torch
import triton.language as tl
from torch import Tensor

from adarem.optim.adarem_s import Sphere
from adarem.optim.kernels.triton_kernels import finish, rescale, update
from adarem.optim.step import StepSettings, StepTensors

_BLOCK = 1024  # 8 elements a thread at 4 warps; more costs occupancy
_CHUNK = 8 * _BLOCK  # of one program: pays for its look-ups in the table
_TYPES = {
    torch.float64: tl.float64,
    torch.float32: tl.float32,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
}


@functools.lru_cache(maxsize=64)
def _plan(numels: tuple[int, ...], device: torch.device) -> list[Tensor]:
    """For each chunk its tensor and offset; for each tensor its size and first chunk. All int64."""
    tensors: list[int] = []
    offsets: list[int] = []
    first: list[int] = []
    for t, n in enumerate(numels):
        first.append(len(tensors))
        starts = range(0, n, _CHUNK)
        tensors.extend([t] * len(starts))
        offsets.extend(starts)
    first.append(len(tensors))
    return [torch.tensor(x, dtype=torch.int64, device=device) for x in (tensors, offsets, list(numels), first)]


_captured: list[Tensor] = []  # tables on the host that CUDA graphs copy from at every replay


def _upload(rows: list[list[int]], hparams: list[float], device: torch.device) -> Tensor:
    bits = struct.unpack(f"{len(hparams)}q", struct.pack(f"{len(hparams)}d", *hparams))
    values = [address for row in rows for address in row] + list(bits)
    if device.type != "cuda":  # Triton's interpreter
        return torch.tensor(values, dtype=torch.int64, device=device)
    host = torch.tensor(values, dtype=torch.int64, pin_memory=True)
    if torch.cuda.is_current_stream_capturing():
        _captured.append(host)
    return host.to(device, non_blocking=True)


def fused_step(tensors: StepTensors, settings: StepSettings, sphere: Sphere | None) -> None:
    """One step over tensors of one device, type and layout; with ``sphere`` a step on it."""
    device, n = tensors.params[0].device, len(tensors.params)
    state_type = tensors.exp_avgs[0].dtype
    rows = [[t.data_ptr() for t in ts] for ts in tensors]
    rows.append([a.data_ptr() for a in sphere.alphas] if sphere else [0] * n)
    radii = [r.to(device, torch.float64) for r in sphere.radii] if sphere else []  # alive until the launches
    rows.append([r.data_ptr() for r in (radii if len(radii) == n else radii * n)] if sphere else [0] * n)
    lr, lam = settings.lr, settings.lam
    hparams = [
        0.0 if isinstance(lr, Tensor) else lr,
        1 - settings.beta,
        math.log2(lam) if lam > 0 else -1e30,  # exp2 of it is 0, times 0 steps it is still 0
        settings.eps,
        settings.weight_decay,
        -1.0 if settings.maximize else 1.0,
        float(settings.decay_every),
    ]
    table = _upload(rows, hparams, device)
    chunk_tensor, chunk_offset, numel, first_chunk = _plan(tuple(p.numel() for p in tensors.params), device)
    chunks = chunk_tensor.numel()
    bits_type = torch.int64 if state_type == torch.float64 else torch.int32
    chunk_max = torch.empty(chunks, dtype=bits_type, device=device)
    on_sphere = sphere is not None
    chunk_norm2 = torch.empty(chunks if on_sphere else 1, dtype=torch.float64, device=device)
    norm2 = torch.empty(n if on_sphere else 1, dtype=torch.float64, device=device)

    def on_device(scalar: Tensor | None, dtype: torch.dtype) -> Tensor:
        return table if scalar is None else scalar.to(device, dtype, non_blocking=True)

    lr_ptr = on_device(lr if isinstance(lr, Tensor) else None, torch.float64)
    shared_max = on_device(settings.model_maximum, state_type)
    grad_scale = on_device(settings.grad_scale, torch.float32)
    found = on_device(settings.found_inf, torch.float32)
    found_given = settings.found_inf is not None
    types = {"P": _TYPES[tensors.params[0].dtype], "S": _TYPES[state_type]}
    int_type = tl.int64 if bits_type == torch.int64 else tl.int32
    common = {
        "LR_TENSOR": isinstance(lr, Tensor),
        "FOUND": found_given,
        "SLR": sphere is not None and sphere.slr,
        "ALIGNED": all(a % 16 == 0 for row in rows[:3] for a in row),
        "BLOCK": _BLOCK,
        "CHUNK": _CHUNK,
    }
    update[(chunks,)](
        table, chunk_tensor, chunk_offset, numel, chunk_max, chunk_norm2, lr_ptr, shared_max, grad_scale, found, n,
        BITS=int_type, SHARED=settings.model_maximum is not None, SCALED=settings.grad_scale is not None,
        PRINTED=settings.eps > 0, NORM=on_sphere, TINY=torch.finfo(state_type).tiny, **types, **common,
    )  # fmt: skip
    finish[(n,)](
        table, first_chunk, chunk_max, chunk_norm2, norm2, found, n, S=types["S"], BITS=int_type, FOUND=found_given,
        NORM=on_sphere, BLOCK=256,
    )  # fmt: skip
    if on_sphere:
        one = len(radii) == 1 and n > 1
        rescale[(chunks,)](
            table, chunk_tensor, chunk_offset, numel, norm2.sum().reshape(1) if one else norm2, lr_ptr, found, n,
            ONE_SPHERE=one, **types, **common,
        )  # fmt: skip


def try_out(device: torch.device) -> None:
    """Takes a step of one small tensor, so that what cannot be compiled or launched raises before a real one."""
    p, g, m = (torch.ones(4, device=device) for _ in range(3))
    maximum, (steps, offset) = torch.ones((), device=device), torch.zeros(2, device=device).unbind()
    settings = StepSettings(lr=0.1, beta=0.9, lam=1.0, decay_every=1, eps=0.0, weight_decay=0.0)
    fused_step(StepTensors([p], [g], [m], [maximum], [steps], [offset]), settings, None)
