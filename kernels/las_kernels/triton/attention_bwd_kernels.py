# Compile-time arguments of kernels are capitals, and the compiler knows their types.
# ruff: noqa: ANN001, ANN201, N803
# mypy: disable-error-code="no-untyped-def"
"""The kernels of :mod:`las_kernels.triton.attention_bwd`."""

import triton
import triton.language as tl

from las_kernels.triton.location_conv import add_location
from las_kernels.triton.utils import (
    arrives_last,
    length_of,
    narrow,
    query_of_program,
    tanh,
)


@triton.jit
def delta_of(sums, tiles, BS: tl.constexpr):
    """The mean of the alignment's gradient under the alignment, from those of the tiles."""
    along = tl.zeros((BS,), tl.float32)
    mass = tl.zeros((BS,), tl.float32)
    for s0 in range(0, tiles, BS):
        s = s0 + tl.arange(0, BS)
        here = tl.load(sums + 2 * s + 1, mask=s < tiles, other=0.0)
        along += here * tl.load(sums + 2 * s, mask=s < tiles, other=0.0)
        mass += here
    # Divided by the mass, a sharp alignment that was rounded to sum to 1 +- 1/512 does no harm.
    return tl.sum(along, axis=0) / tl.sum(mass, axis=0)


@triton.jit
def join_dq(
    v, sums, slopes, dquery, delta, tiles, part, parts, AH: tl.constexpr, BS: tl.constexpr,
    BA: tl.constexpr,
):  # fmt: skip
    """The gradient of a query from those of its tiles, in their order.

    A tile knows only its own mean of the alignment's gradient: what it lacks is the difference to
    delta times the sum of its slopes.
    """
    for a0 in range(part * BA, AH, parts * BA):
        a = a0 + tl.arange(0, BA)
        total = tl.zeros((BA,), tl.float32)
        for s0 in range(0, tiles, BS):
            s = s0 + tl.arange(0, BS)
            lacks = tl.load(sums + 2 * s, mask=s < tiles, other=0.0) - delta
            at = slopes + 2 * s[:, None] * AH + a[None, :]
            known = (s < tiles)[:, None] & (a < AH)[None, :]
            found = tl.load(at, mask=known, other=0.0)
            found += lacks[:, None] * tl.load(at + AH, mask=known, other=0.0)
            total += tl.sum(found, axis=0)
        scale = tl.load(v + a, mask=a < AH, other=0.0).to(tl.float32)
        tl.store(dquery + a, narrow(total * scale, dquery.dtype.element_ty), mask=a < AH)


@triton.jit(
    do_not_specialize=[
        "T",
        "N",
        "dalignment",
        "alignment",
        "features",
        "denergy",
        "dalignment_b",
        "dalignment_n",
        "alignment_b",
        "alignment_n",
        "features_b",
        "features_n",
        "denergy_b",
        "denergy_n",
    ]
)
def attention_bwd_dq_kernel(
    dcontext,
    dalignment,
    alignment,
    query,
    keys,
    values,
    lengths,
    v,
    projection,
    features,
    gradient,
    sums,
    slopes,
    located_slopes,
    arrivals,
    denergy,
    dquery,
    T,
    N,
    dcontext_b,
    dcontext_n,
    dalignment_b,
    dalignment_n,
    alignment_b,
    alignment_n,
    query_b,
    query_n,
    features_b,
    features_n,
    denergy_b,
    denergy_n,
    dquery_b,
    dquery_n,
    H: tl.constexpr,
    AH: tl.constexpr,
    DH: tl.constexpr,
    HAS_DALIGNMENT: tl.constexpr,
    LOCATION: tl.constexpr,
    C: tl.constexpr,
    BC: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    BA: tl.constexpr,
    APPROXIMATE: tl.constexpr,
    PRECISION: tl.constexpr,
    STAGES: tl.constexpr,
    JOIN: tl.constexpr,
):
    """Phase 1 for a tile of frames of one query and one head, in one pass over the memory.

    The gradient of the softmax needs the mean of the alignment's gradient over all tiles (delta),
    but is linear in it: each tile takes its own mean, and keeps the slopes of the score summed with
    and without its gradient, so that the join can put the difference right. With JOIN the program
    that arrives last joins; then ``arrivals`` is zero before and after.
    """
    b, n, h = query_of_program(N, H)
    tile = tl.program_id(1)
    tiles = tl.num_programs(1)
    row = (b * N + n) * H + h
    length = length_of(lengths, b, T)
    t = tile * BT + tl.arange(0, BT)
    live = t < length
    keys += b * T * H * AH + h * AH
    values += b * T * H * DH + h * DH
    query += b * query_b + n * query_n + h * AH
    dcontext += b * dcontext_b + n * dcontext_n + h * DH
    alignment += b * alignment_b + n * alignment_n + h * T
    v += h * AH
    projection += h * AH * C
    sums += row * tiles * 2
    slopes += row * tiles * 2 * AH
    gradient += row * T

    products = tl.zeros((BT, BD), tl.float32)
    for d0 in tl.range(0, DH, BD, num_stages=STAGES):
        d = d0 + tl.arange(0, BD)
        at = t[:, None] * (H * DH) + d[None, :]
        value = tl.load(values + at, mask=live[:, None] & (d < DH)[None, :], other=0.0)
        dc = tl.load(dcontext + d, mask=d < DH, other=0.0).to(tl.float32)
        products += value.to(tl.float32) * dc[None, :]
    g = tl.sum(products, axis=1)
    if HAS_DALIGNMENT:
        dalignment += b * dalignment_b + n * dalignment_n + h * T
        g += tl.load(dalignment + t, mask=live, other=0.0).to(tl.float32)
    tl.store(gradient + t, g, mask=t < T)
    weight = tl.load(alignment + t, mask=live, other=0.0).to(tl.float32)
    mass = tl.sum(weight, axis=0)
    mean = tl.sum(weight * g, axis=0) / tl.maximum(mass, 1e-30)
    tl.store(sums + 2 * tile, mean)
    tl.store(sums + 2 * tile + 1, mass)
    de = weight * (g - mean)

    c = tl.arange(0, BC)
    if LOCATION:
        features += b * features_b + n * features_n + h * C * T
        inside = (t < T)[:, None] & (c < C)[None, :]
        feature_at = c[None, :] * T + t[:, None]
        located = tl.load(features + feature_at, mask=inside, other=0.0)
        dlocated = tl.zeros((BT, BC), tl.float32)
    out = slopes + 2 * tile * AH
    for a0 in tl.range(0, AH, BA, num_stages=STAGES):
        a = a0 + tl.arange(0, BA)
        known = a < AH
        at = t[:, None] * (H * AH) + a[None, :]
        k = tl.load(keys + at, mask=live[:, None] & known[None, :], other=0.0).to(tl.float32)
        q = tl.load(query + a, mask=known, other=0.0).to(tl.float32)
        hidden = k + q[None, :]
        if LOCATION:
            hidden = add_location(hidden, located, projection, a, AH, C, BC, PRECISION)
        y = tanh(hidden, APPROXIMATE)
        slope = 1.0 - y * y
        tl.store(out + a, tl.sum(de[:, None] * slope, axis=0), mask=known)
        tl.store(out + AH + a, tl.sum(weight[:, None] * slope, axis=0), mask=known)
        if LOCATION:
            scale = tl.load(v + a, mask=known, other=0.0).to(tl.float32)
            at = a[:, None] * C + c[None, :]
            weights = tl.load(projection + at, mask=known[:, None] & (c < C)[None, :], other=0.0)
            dlocated = tl.dot(
                slope * scale[None, :], weights.to(tl.float32), dlocated, input_precision=PRECISION
            )
    if LOCATION:
        tl.store(located_slopes + row * C * T + feature_at, dlocated, mask=inside)
    if JOIN:
        last = arrives_last(arrivals + tl.program_id(0), tiles)
        if last:
            delta = delta_of(sums, tiles, 64)
            join_dq(
                v, sums, slopes, dquery + b * dquery_b + n * dquery_n + h * AH, delta, tiles, 0, 1,
                AH, 8, BA,
            )  # fmt: skip
            denergy += b * denergy_b + n * denergy_n + h * T
            for start in range(0, T, 256):
                t_ = start + tl.arange(0, 256)
                w = tl.load(alignment + t_, mask=t_ < length, other=0.0).to(tl.float32)
                of_t = tl.load(gradient + t_, mask=t_ < length, other=0.0)
                tl.store(denergy + t_, w * (of_t - delta), mask=t_ < T)


@triton.jit(
    do_not_specialize=[
        "T",
        "N",
        "tiles",
        "alignment",
        "denergy",
        "dfeatures",
        "alignment_b",
        "alignment_n",
        "denergy_b",
        "denergy_n",
        "dfeatures_b",
        "dfeatures_n",
    ]
)
def attention_bwd_dq_reduce_kernel(
    alignment,
    lengths,
    v,
    filters,
    gradient,
    sums,
    slopes,
    located_slopes,
    denergy,
    dquery,
    dfeatures,
    dprevious,
    T,
    N,
    tiles,
    alignment_b,
    alignment_n,
    denergy_b,
    denergy_n,
    dquery_b,
    dquery_n,
    dfeatures_b,
    dfeatures_n,
    H: tl.constexpr,
    AH: tl.constexpr,
    LOCATION: tl.constexpr,
    C: tl.constexpr,
    W: tl.constexpr,
    BS: tl.constexpr,
    BA: tl.constexpr,
    BT: tl.constexpr,
    BW: tl.constexpr,
):
    """Join the tiles; carry dfeatures through the filters to the alignment before.

    Programs of axis 1 share the columns of the query, and the frames.
    """
    b, n, h = query_of_program(N, H)
    block = tl.program_id(1)
    row = (b * N + n) * H + h
    length = length_of(lengths, b, T)
    sums += row * tiles * 2
    delta = delta_of(sums, tiles, 64)
    join_dq(
        v + h * AH, sums, slopes + row * tiles * 2 * AH,
        dquery + b * dquery_b + n * dquery_n + h * AH, delta, tiles, block, tl.num_programs(1), AH,
        BS, BA,
    )  # fmt: skip
    alignment += b * alignment_b + n * alignment_n + h * T
    gradient += row * T
    denergy += b * denergy_b + n * denergy_n + h * T
    t = block * BT + tl.arange(0, BT)
    weight = tl.load(alignment + t, mask=t < length, other=0.0).to(tl.float32)
    de = weight * (tl.load(gradient + t, mask=t < length, other=0.0) - delta)
    tl.store(denergy + t, de, mask=t < T)
    if LOCATION:
        located_slopes += row * C * T
        dfeatures += b * dfeatures_b + n * dfeatures_n + h * C * T
        for c in range(C):
            of_c = tl.load(located_slopes + c * T + t, mask=t < length, other=0.0)
            tl.store(dfeatures + c * T + t, of_c * de, mask=t < T)
        found = tl.zeros((BT, BW), tl.float32)
        for start in range(0, W, BW):
            tap = start + tl.arange(0, BW)
            source = t[:, None] - tap[None, :] + W // 2
            inside = (source >= 0) & (source < length) & (tap < W)[None, :]
            weights = tl.load(alignment + source, mask=inside, other=0.0).to(tl.float32)
            des = weights * (tl.load(gradient + source, mask=inside, other=0.0) - delta)
            for c in range(C):
                of_c = tl.load(located_slopes + c * T + source, mask=inside, other=0.0)
                taps = tl.load(filters + c * W + tap, mask=tap < W, other=0.0).to(tl.float32)
                found += des * of_c * taps[None, :]
        tl.store(dprevious + row * T + t, tl.sum(found, axis=1), mask=t < T)
