"""The Triton kernels of the fused CUDA step; ``triton_step`` launches them.

Their arguments are in one int64 table: eight rows of addresses, one for each tensor, of params, grads, exp_avgs,
maxima, state_steps, decay_offsets, alphas, radii, in this order; then the hyper-parameters as float64 bits. Results do
not depend on scheduling: each chunk writes its maximum and its sum of squares, and one program for each tensor reduces
them in order.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
# Triton ships no types, and its compiler reads annotations as types of its own.

import triton
import triton.language as tl


@triton.jit
def _hparam(table, T, k):
    return tl.load(table + 8 * T + k).to(tl.float64, bitcast=True)


@triton.jit
def _learning_rate(table, lr_ptr, T, LR_TENSOR: tl.constexpr):
    lr = _hparam(table, T, 0)
    if LR_TENSOR:
        lr = tl.load(lr_ptr).to(tl.float64)
    return lr


@triton.jit
def _address(table, row, t, T, TYPE: tl.constexpr):
    return tl.load(table + row * T + t).to(tl.pointer_type(TYPE))


@triton.jit
def _element(p, g, m, scale, lam_t, max_m, lr, wd, weight, eps, PRINTED: tl.constexpr):
    """θ and m after the step."""
    u = g + g / (tl.abs(g) * max_m + eps) * m * g * lam_t if PRINTED else g + tl.abs(g) * (m * scale)
    # As torch.lerp: from the nearer end, so that beta = 0 gives g itself.
    mn = tl.where(weight < 0.5, m + weight * (g - m), g - (g - m) * (1 - weight))
    return p - lr * (u + wd * p), mn


@triton.jit
def update(
    table, chunk_tensor, chunk_offset, numel, chunk_max, chunk_norm2, lr_ptr, shared_max, scale_ptr, found_ptr, T,
    P: tl.constexpr, S: tl.constexpr, BITS: tl.constexpr, LR_TENSOR: tl.constexpr, SHARED: tl.constexpr,
    SCALED: tl.constexpr, FOUND: tl.constexpr, PRINTED: tl.constexpr, SLR: tl.constexpr, NORM: tl.constexpr,
    ALIGNED: tl.constexpr, TINY: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    t = tl.load(chunk_tensor + pid)
    offset = tl.multiple_of(tl.load(chunk_offset + pid), BLOCK)
    n = tl.load(numel + t)
    if FOUND:
        n = tl.where(tl.load(found_ptr) == 0, n, 0)  # an overflow: touch nothing
    p_ptr = _address(table, 0, t, T, P)
    g_ptr = _address(table, 1, t, T, P)
    m_ptr = _address(table, 2, t, T, S)
    if ALIGNED:
        p_ptr = tl.multiple_of(p_ptr, 16)
        g_ptr = tl.multiple_of(g_ptr, 16)
        m_ptr = tl.multiple_of(m_ptr, 16)

    lr64 = _learning_rate(table, lr_ptr, T, LR_TENSOR)
    wd64 = _hparam(table, T, 4)
    if SLR:
        alpha = tl.load(_address(table, 6, t, T, tl.float64))
        lr64 = lr64 / ((1 - lr64 * wd64) * alpha * alpha)
        wd64 = wd64 * 0
    k = tl.floor(tl.load(_address(table, 4, t, T, tl.float32)).to(tl.float64) / _hparam(table, T, 6))
    k += tl.load(_address(table, 5, t, T, tl.float32)).to(tl.float64)
    lam_t = tl.where(k == 0, 1.0, tl.exp2(k * _hparam(table, T, 2))).to(S)
    max_m = tl.load(shared_max) if SHARED else tl.load(_address(table, 3, t, T, S))
    scale = lam_t / tl.where(max_m < TINY, TINY, max_m).to(S)  # NaN is not below: it stays
    lr = lr64.to(S)
    wd = wd64.to(S)
    weight = _hparam(table, T, 1).to(S)
    eps = _hparam(table, T, 3).to(S)
    sign = _hparam(table, T, 5).to(S)
    grad_scale = sign * 0 + 1
    if SCALED:
        grad_scale = tl.load(scale_ptr).to(S)

    lanes = tl.arange(0, BLOCK)
    top = tl.zeros((BLOCK,), BITS)
    squares = tl.zeros((BLOCK,), S)
    if offset + CHUNK <= n:  # no mask: 128-bit loads and stores
        for start in range(0, CHUNK, BLOCK):
            i = offset + start + lanes
            g = tl.load(g_ptr + i).to(S)
            if SCALED:
                g = g / grad_scale
                tl.store(g_ptr + i, g.to(P))
            pn, mn = _element(
                tl.load(p_ptr + i).to(S),
                g * sign,
                tl.load(m_ptr + i),
                scale,
                lam_t,
                max_m,
                lr,
                wd,
                weight,
                eps,
                PRINTED,
            )
            tl.store(p_ptr + i, pn.to(P))
            tl.store(m_ptr + i, mn)
            top = tl.maximum(top, tl.abs(mn).to(BITS, bitcast=True))  # bits order as the numbers do, NaN above all
            if NORM:
                pn = pn.to(P).to(S)
                squares += pn * pn
    else:
        for start in range(0, CHUNK, BLOCK):
            i = offset + start + lanes
            inside = i < n
            g = tl.load(g_ptr + i, mask=inside, other=0.0).to(S)
            if SCALED:
                g = g / grad_scale
                tl.store(g_ptr + i, g.to(P), mask=inside)
            p = tl.load(p_ptr + i, mask=inside, other=0.0).to(S)
            m = tl.load(m_ptr + i, mask=inside, other=0.0)
            pn, mn = _element(p, g * sign, m, scale, lam_t, max_m, lr, wd, weight, eps, PRINTED)
            tl.store(p_ptr + i, pn.to(P), mask=inside)
            tl.store(m_ptr + i, mn, mask=inside)
            top = tl.maximum(top, tl.where(inside, tl.abs(mn).to(BITS, bitcast=True), 0))
            if NORM:
                pn = tl.where(inside, pn.to(P).to(S), 0.0)
                squares += pn * pn
    tl.store(chunk_max + pid, tl.max(top, axis=0))
    if NORM:
        tl.store(chunk_norm2 + pid, tl.sum(squares.to(tl.float64), axis=0))


@triton.jit
def finish(
    table, first_chunk, chunk_max, chunk_norm2, norm2, found_ptr, T,
    S: tl.constexpr, BITS: tl.constexpr, FOUND: tl.constexpr, NORM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A tensor's maximum, sum of squares and step count, by one program."""
    t = tl.program_id(0)
    begin = tl.load(first_chunk + t)
    end = tl.load(first_chunk + t + 1)
    top = tl.zeros((BLOCK,), BITS)
    squares = tl.zeros((BLOCK,), tl.float64)
    for start in range(begin, end, BLOCK):
        i = start + tl.arange(0, BLOCK)
        top = tl.maximum(top, tl.load(chunk_max + i, mask=i < end, other=0))
        if NORM:
            squares += tl.load(chunk_norm2 + i, mask=i < end, other=0.0)
    live = True
    if FOUND:
        live = tl.load(found_ptr) == 0
    tl.store(_address(table, 3, t, T, S), tl.max(top, axis=0).to(S, bitcast=True), mask=live)
    step_ptr = _address(table, 4, t, T, tl.float32)
    tl.store(step_ptr, tl.load(step_ptr) + 1, mask=live)
    if NORM:
        tl.store(norm2 + t, tl.sum(squares, axis=0))


@triton.jit
def rescale(
    table, chunk_tensor, chunk_offset, numel, norm2, lr_ptr, found_ptr, T,
    P: tl.constexpr, S: tl.constexpr, LR_TENSOR: tl.constexpr, FOUND: tl.constexpr, SLR: tl.constexpr,
    ONE_SPHERE: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    t = tl.load(chunk_tensor + pid)
    offset = tl.multiple_of(tl.load(chunk_offset + pid), BLOCK)
    n = tl.load(numel + t)
    live = True
    if FOUND:
        live = tl.load(found_ptr) == 0
        n = tl.where(live, n, 0)
    squares = tl.load(norm2 if ONE_SPHERE else norm2 + t)
    shrink = tl.load(_address(table, 7, t, T, tl.float64)) / tl.sqrt(squares)
    if SLR:
        alpha_ptr = _address(table, 6, t, T, tl.float64)
        decay = 1 - _learning_rate(table, lr_ptr, T, LR_TENSOR) * _hparam(table, T, 4)
        tl.store(alpha_ptr, tl.load(alpha_ptr) * decay / shrink, mask=(offset == 0) & live)
    c = shrink.to(S)
    p_ptr = _address(table, 0, t, T, P)
    if ALIGNED:
        p_ptr = tl.multiple_of(p_ptr, 16)
    for start in range(0, CHUNK, BLOCK):
        i = offset + start + tl.arange(0, BLOCK)
        p = tl.load(p_ptr + i, mask=i < n, other=0.0).to(S)
        tl.store(p_ptr + i, (p * c).to(P), mask=i < n)
