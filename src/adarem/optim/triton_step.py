"""The fused CUDA step: Triton kernels over a list of tensors, one pass over memory, no read by the host.

The kernels' table (see ``triton_kernels``) is made here and uploaded asynchronously.
"""

import functools
import math
import struct

import torch
import triton.language as tl
from torch import Tensor

from adarem.optim.triton_kernels import finish, rescale, update

_BLOCK = 1024  # 8 elements a thread at 4 warps; more costs occupancy
_CHUNK = 8 * _BLOCK  # of one program: pays for its look-ups in the table
_TYPES = {
    torch.float64: tl.float64,
    torch.float32: tl.float32,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
}


@functools.lru_cache(maxsize=64)
def _plan(numels: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each chunk its tensor and offset; for each tensor its size and first chunk."""
    tensors, offsets, first = [], [], []
    for t, n in enumerate(numels):
        first.append(len(tensors))
        starts = range(0, n, _CHUNK)
        tensors.extend([t] * len(starts))
        offsets.extend(starts)
    first.append(len(tensors))
    return tuple(torch.tensor(x, dtype=torch.int64, device=device) for x in (tensors, offsets, list(numels), first))


_captured: list[Tensor] = []  # tables on the host that CUDA graphs copy from at every replay


def _upload(rows: list[list[int]], hyper: list[float], device: torch.device) -> Tensor:
    bits = struct.unpack(f"{len(hyper)}q", struct.pack(f"{len(hyper)}d", *hyper))
    values = [address for row in rows for address in row] + list(bits)
    if device.type != "cuda":  # Triton's interpreter
        return torch.tensor(values, dtype=torch.int64, device=device)
    host = torch.tensor(values, dtype=torch.int64, pin_memory=True)
    if torch.cuda.is_current_stream_capturing():
        _captured.append(host)
    return host.to(device, non_blocking=True)


def fused_step(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    maxima: list[Tensor],
    state_steps: list[Tensor],
    model_maximum: Tensor | None,
    *,
    alphas: list[Tensor] | None,
    radii: list[Tensor],
    slr: bool,
    lr: float | Tensor,
    beta: float,
    lam: float,
    decay_every: int,
    eps: float,
    weight_decay: float,
    maximize: bool,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
) -> None:
    """One step over tensors of one device, dtype and layout; with ``radii`` a step on the sphere."""
    device, n = params[0].device, len(params)
    state_type = exp_avgs[0].dtype
    rows = [[t.data_ptr() for t in ts] for ts in (params, grads, exp_avgs, maxima, state_steps)]
    rows.append([a.data_ptr() for a in alphas] if alphas else [0] * n)
    if radii:
        radii = [r.to(device, torch.float64) for r in radii]
    rows.append([r.data_ptr() for r in (radii if len(radii) == n else radii * n)] if radii else [0] * n)
    lr_tensor = isinstance(lr, Tensor)
    hyper = [
        0.0 if lr_tensor else lr,
        1 - beta,
        math.log2(lam) if lam > 0 else -1e30,  # exp2 of it is 0, times 0 steps it is still 0
        eps,
        weight_decay,
        -1.0 if maximize else 1.0,
        float(decay_every),
    ]
    table = _upload(rows, hyper, device)
    chunk_tensor, chunk_offset, numel, first_chunk = _plan(tuple(p.numel() for p in params), device)
    chunks = chunk_tensor.numel()
    bits_type = torch.int64 if state_type == torch.float64 else torch.int32
    chunk_max = torch.empty(chunks, dtype=bits_type, device=device)
    sphere = len(radii) > 0
    chunk_norm2 = torch.empty(chunks if sphere else 1, dtype=torch.float64, device=device)
    norm2 = torch.empty(n if sphere else 1, dtype=torch.float64, device=device)

    def on_device(scalar: Tensor | None, dtype: torch.dtype) -> Tensor:
        return table if scalar is None else scalar.to(device, dtype, non_blocking=True)

    lr_ptr = on_device(lr if lr_tensor else None, torch.float64)
    found = on_device(found_inf, torch.float32)
    types = {"P": _TYPES[params[0].dtype], "S": _TYPES[state_type]}
    int_type = tl.int64 if bits_type == torch.int64 else tl.int32
    common = {"LR_TENSOR": lr_tensor, "FOUND": found_inf is not None, "SLR": sphere and slr}
    shape = {
        "ALIGNED": all(a % 16 == 0 for row in rows[:3] for a in row),
        "BLOCK": _BLOCK,
        "CHUNK": _CHUNK,
    }
    update[(chunks,)](
        table, chunk_tensor, chunk_offset, numel, chunk_max, chunk_norm2, lr_ptr, on_device(model_maximum, state_type),
        on_device(grad_scale, torch.float32), found, n, BITS=int_type, SHARED=model_maximum is not None,
        SCALED=grad_scale is not None, PRINTED=eps > 0, NORM=sphere, TINY=torch.finfo(state_type).tiny,
        **types, **common, **shape,
    )  # fmt: skip
    finish[(n,)](
        table, first_chunk, chunk_max, chunk_norm2, norm2, found, n, S=types["S"], BITS=int_type, FOUND=common["FOUND"],
        NORM=sphere, BLOCK=256,
    )  # fmt: skip
    if sphere:
        one = len(radii) == 1 and n > 1
        rescale[(chunks,)](
            table, chunk_tensor, chunk_offset, numel, norm2.sum().reshape(1) if one else norm2, lr_ptr, found, n,
            ONE_SPHERE=one, **types, **common, **shape,
        )  # fmt: skip
