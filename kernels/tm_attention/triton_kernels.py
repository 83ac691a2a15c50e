"""The Triton kernels of tm_attention: lists of groups, and three kernels that walk them.

Scores are in units of log2, for exp2: SCALE2 = log2(e) / sqrt(d).
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from .._gpu._triton import cast, dot

_LOG2_E = tl.constexpr(math.log2(math.e))


@triton.jit
def links_kernel(adjacency, valid, links, query_stride, key_stride, G, BLOCK_G: tl.constexpr):
    """A list of one group of one sample: how many, then which. 0: groups seen; 1: that see it."""
    b, group, seers = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2)
    others = tl.arange(0, BLOCK_G).to(tl.int64)
    inside = others < G
    forth = group * query_stride + others * key_stride
    back = others * query_stride + group * key_stride
    allowed = tl.load(adjacency + tl.where(seers == 0, forth, back), mask=inside, other=0) != 0
    allowed &= tl.load(valid + b * G + others, mask=inside, other=0) != 0
    allowed &= tl.load(valid + b * G + group) != 0
    number = allowed.to(tl.int32)
    row = links + ((seers * tl.num_programs(0) + b) * G + group) * (G + 1)
    tl.store(row, tl.sum(number, 0))
    tl.store(row + tl.cumsum(number, 0), others, mask=allowed)


@triton.jit
def _load(places, rows, count, cols, WIDTH: tl.constexpr, EVEN: tl.constexpr, FULL: tl.constexpr):
    """A tile of rows < count and columns < WIDTH, zeros elsewhere."""
    if EVEN and FULL:
        tile = tl.load(places)
    elif EVEN:
        tile = tl.load(places, mask=cols[None, :] < WIDTH, other=0.0)
    elif FULL:
        tile = tl.load(places, mask=rows[:, None] < count, other=0.0)
    else:
        inside = (rows[:, None] < count) & (cols[None, :] < WIDTH)
        tile = tl.load(places, mask=inside, other=0.0)
    return tile


@triton.jit
def _place(rows, cols, stride_row, stride_col):
    return rows.to(tl.int64)[:, None] * stride_row + cols.to(tl.int64)[None, :] * stride_col


@triton.jit
def _split(program, blocks, G, H):
    """Block, group, head and sample of a program: programs that share keys run side by side."""
    block = program % blocks
    group = program // blocks % G
    head = program // (blocks * G) % H
    return block, group, head.to(tl.int64), (program // (blocks * G * H)).to(tl.int64)


@triton.jit
def _group(group, M, stride_t, stride_m):
    return (group // M).to(tl.int64) * stride_t + (group % M).to(tl.int64) * stride_m


@triton.jit
def _next(links, step, steps, blocks):
    """The group of the next step: read one step ahead, loads of its tokens need not wait for it."""
    return tl.load(links + 1 + (step + 1) // blocks, mask=step + 1 < steps, other=0)


@triton.jit
def forward_kernel(
    q, k, v, seen, out, lse,
    q_b, q_t, q_m, q_k, q_h, q_d,
    k_b, k_t, k_m, k_k, k_h, k_d,
    v_b, v_t, v_m, v_k, v_h, v_d,
    M, G, H, K, KEYS, KEY_BLOCKS,
    SCALE2: tl.constexpr, WIDTH: tl.constexpr, BLOCK_D: tl.constexpr, EVEN: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_QUERIES: tl.constexpr, BLOCK_KEYS: tl.constexpr,
):  # fmt: skip
    """Attention of a block of queries to the groups they see; log of the sum of exponentials."""
    FULL: tl.constexpr = WIDTH == BLOCK_D
    block, group, h, b = _split(tl.program_id(0), tl.cdiv(K, BLOCK_QUERIES), G, H)
    rows = block * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    cols = tl.arange(0, BLOCK_D)
    q += b * q_b + h * q_h + _group(group, M, q_t, q_m)
    k += b * k_b + h * k_h
    v += b * v_b + h * v_h
    query = _load(q + _place(rows, cols, q_k, q_d), rows, K, cols, WIDTH, False, FULL)
    top = tl.full([BLOCK_QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_QUERIES], tl.float32)
    acc = tl.zeros([BLOCK_QUERIES, BLOCK_D], tl.float32)
    zeros = tl.zeros([BLOCK_QUERIES, BLOCK_KEYS], tl.float32)

    seen += (b * G + group) * (G + 1)
    steps = tl.load(seen) * KEY_BLOCKS
    other = tl.load(seen + 1, mask=steps > 0, other=0)
    for step in range(steps):
        key_rows = step % KEY_BLOCKS * BLOCK_KEYS + tl.arange(0, BLOCK_KEYS)
        k_places = k + _group(other, M, k_t, k_m) + _place(key_rows, cols, k_k, k_d)
        v_places = v + _group(other, M, v_t, v_m) + _place(key_rows, cols, v_k, v_d)
        key = _load(k_places, key_rows, KEYS, cols, WIDTH, EVEN, FULL)
        scores = dot(query, tl.trans(key), zeros, PRECISION) * SCALE2
        if not EVEN:
            scores = tl.where(key_rows[None, :] < KEYS, scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))
        p = tl.exp2(scores - new_top[:, None])
        decay = tl.exp2(top - new_top)
        total = total * decay + tl.sum(p, 1)
        value = _load(v_places, key_rows, KEYS, cols, WIDTH, EVEN, FULL)
        acc = dot(cast(p, value.dtype), value, acc * decay[:, None], PRECISION)
        top = new_top
        other = _next(seen, step, steps, KEY_BLOCKS)

    none = total == 0
    total = tl.where(none, 1.0, total)
    acc /= total[:, None]
    sums = tl.where(none, float("inf"), (top + tl.log2(total)) / _LOG2_E)
    out += ((b * G + group) * K * H + h) * WIDTH
    inside = (rows[:, None] < K) & (cols[None, :] < WIDTH)
    tl.store(out + _place(rows, cols, H * WIDTH, 1), cast(acc, out.dtype.element_ty), mask=inside)
    tl.store(lse + ((b * G + group) * H + h) * K + rows, sums, mask=rows < K)


@triton.jit
def query_grad_kernel(
    grad, q, k, v, out, lse, seen, delta, q_grad,
    g_b, g_t, g_m, g_k, g_h, g_d,
    q_b, q_t, q_m, q_k, q_h, q_d,
    k_b, k_t, k_m, k_k, k_h, k_d,
    v_b, v_t, v_m, v_k, v_h, v_d,
    M, G, H, K, KEYS, KEY_BLOCKS,
    SCALE2: tl.constexpr, WIDTH: tl.constexpr, BLOCK_D: tl.constexpr, EVEN: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_QUERIES: tl.constexpr, BLOCK_KEYS: tl.constexpr,
):  # fmt: skip
    """Gradient of a block of queries, and delta = sum(grad * out) of each."""
    FULL: tl.constexpr = WIDTH == BLOCK_D
    block, group, h, b = _split(tl.program_id(0), tl.cdiv(K, BLOCK_QUERIES), G, H)
    rows = block * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
    cols = tl.arange(0, BLOCK_D)
    grad += b * g_b + h * g_h + _group(group, M, g_t, g_m)
    q += b * q_b + h * q_h + _group(group, M, q_t, q_m)
    k += b * k_b + h * k_h
    v += b * v_b + h * v_h
    own = ((b * G + group) * K * H + h) * WIDTH + _place(rows, cols, H * WIDTH, 1)
    row_place = ((b * G + group) * H + h) * K + rows
    seen += (b * G + group) * (G + 1)
    steps = tl.load(seen) * KEY_BLOCKS
    other = tl.load(seen + 1, mask=steps > 0, other=0)

    query = _load(q + _place(rows, cols, q_k, q_d), rows, K, cols, WIDTH, False, FULL)
    slope = _load(grad + _place(rows, cols, g_k, g_d), rows, K, cols, WIDTH, False, FULL)
    result = _load(out + own, rows, K, cols, WIDTH, False, FULL)
    shift = tl.sum(slope.to(tl.float32) * result.to(tl.float32), 1)
    tl.store(delta + row_place, shift, mask=rows < K)
    sums = tl.load(lse + row_place, mask=rows < K, other=float("inf")) * _LOG2_E
    acc = tl.zeros([BLOCK_QUERIES, BLOCK_D], tl.float32)
    zeros = tl.zeros([BLOCK_QUERIES, BLOCK_KEYS], tl.float32)

    for step in range(steps):
        key_rows = step % KEY_BLOCKS * BLOCK_KEYS + tl.arange(0, BLOCK_KEYS)
        k_places = k + _group(other, M, k_t, k_m) + _place(key_rows, cols, k_k, k_d)
        v_places = v + _group(other, M, v_t, v_m) + _place(key_rows, cols, v_k, v_d)
        key = _load(k_places, key_rows, KEYS, cols, WIDTH, EVEN, FULL)
        value = _load(v_places, key_rows, KEYS, cols, WIDTH, EVEN, FULL)
        scores = dot(query, tl.trans(key), zeros, PRECISION) * SCALE2
        p = tl.exp2(scores - sums[:, None])
        p_grad = dot(slope, tl.trans(value), zeros, PRECISION)
        score_grad = p * (p_grad - shift[:, None])
        if not EVEN:
            score_grad = tl.where(key_rows[None, :] < KEYS, score_grad, 0.0)
        acc = dot(cast(score_grad, key.dtype), key, acc, PRECISION)
        other = _next(seen, step, steps, KEY_BLOCKS)

    acc *= SCALE2 / _LOG2_E
    inside = (rows[:, None] < K) & (cols[None, :] < WIDTH)
    tl.store(q_grad + own, cast(acc, q_grad.dtype.element_ty), mask=inside)


@triton.jit
def key_grad_kernel(
    grad, q, k, v, lse, delta, seers, k_grad, v_grad,
    g_b, g_t, g_m, g_k, g_h, g_d,
    q_b, q_t, q_m, q_k, q_h, q_d,
    k_b, k_t, k_m, k_k, k_h, k_d,
    v_b, v_t, v_m, v_k, v_h, v_d,
    M, G, H, K, KEYS, QUERY_BLOCKS,
    SCALE2: tl.constexpr, WIDTH: tl.constexpr, BLOCK_D: tl.constexpr, EVEN: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_QUERIES: tl.constexpr, BLOCK_KEYS: tl.constexpr,
):  # fmt: skip
    """Gradients of a block of keys and values, from all groups that see them."""
    FULL: tl.constexpr = WIDTH == BLOCK_D
    block, group, h, b = _split(tl.program_id(0), tl.cdiv(KEYS, BLOCK_KEYS), G, H)
    rows = block * BLOCK_KEYS + tl.arange(0, BLOCK_KEYS)
    cols = tl.arange(0, BLOCK_D)
    grad += b * g_b + h * g_h
    q += b * q_b + h * q_h
    k += b * k_b + h * k_h + _group(group, M, k_t, k_m)
    v += b * v_b + h * v_h + _group(group, M, v_t, v_m)
    lse += (b * G * H + h) * K
    delta += (b * G * H + h) * K
    seers += (b * G + group) * (G + 1)
    steps = tl.load(seers) * QUERY_BLOCKS
    other = tl.load(seers + 1, mask=steps > 0, other=0)

    key = _load(k + _place(rows, cols, k_k, k_d), rows, KEYS, cols, WIDTH, False, FULL)
    value = _load(v + _place(rows, cols, v_k, v_d), rows, KEYS, cols, WIDTH, False, FULL)
    k_acc = tl.zeros([BLOCK_KEYS, BLOCK_D], tl.float32)
    v_acc = tl.zeros([BLOCK_KEYS, BLOCK_D], tl.float32)
    zeros = tl.zeros([BLOCK_KEYS, BLOCK_QUERIES], tl.float32)

    for step in range(steps):
        query_rows = step % QUERY_BLOCKS * BLOCK_QUERIES + tl.arange(0, BLOCK_QUERIES)
        q_places = q + _group(other, M, q_t, q_m) + _place(query_rows, cols, q_k, q_d)
        g_places = grad + _group(other, M, g_t, g_m) + _place(query_rows, cols, g_k, g_d)
        query = _load(q_places, query_rows, K, cols, WIDTH, EVEN, FULL)
        slope = _load(g_places, query_rows, K, cols, WIDTH, EVEN, FULL)
        row_place = other.to(tl.int64) * H * K + query_rows
        if EVEN:
            sums = tl.load(lse + row_place) * _LOG2_E
            shift = tl.load(delta + row_place)
        else:
            sums = tl.load(lse + row_place, mask=query_rows < K, other=float("inf")) * _LOG2_E
            shift = tl.load(delta + row_place, mask=query_rows < K, other=0.0)
        scores = dot(key, tl.trans(query), zeros, PRECISION) * SCALE2
        p = tl.exp2(scores - sums[None, :])
        v_acc = dot(cast(p, slope.dtype), slope, v_acc, PRECISION)
        p_grad = dot(value, tl.trans(slope), zeros, PRECISION)
        score_grad = p * (p_grad - shift[None, :])
        k_acc = dot(cast(score_grad, query.dtype), query, k_acc, PRECISION)
        other = _next(seers, step, steps, QUERY_BLOCKS)

    k_acc *= SCALE2 / _LOG2_E
    own = ((b * G + group) * KEYS * H + h) * WIDTH + _place(rows, cols, H * WIDTH, 1)
    inside = (rows[:, None] < KEYS) & (cols[None, :] < WIDTH)
    tl.store(k_grad + own, cast(k_acc, k_grad.dtype.element_ty), mask=inside)
    tl.store(v_grad + own, cast(v_acc, v_grad.dtype.element_ty), mask=inside)
