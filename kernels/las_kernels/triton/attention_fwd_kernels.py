# Compile-time arguments of kernels are capitals, and the compiler knows their types.
# ruff: noqa: ANN001, ANN201, N803
# mypy: disable-error-code="no-untyped-def"
"""The kernels of :mod:`las_kernels.triton.attention_fwd`."""

import triton
import triton.language as tl

from las_kernels.triton.location_conv import add_location, location_features
from las_kernels.triton.utils import (
    arrives_last,
    length_of,
    narrow,
    query_of_program,
    tanh,
)


@triton.jit
def weighted_tanh(
    query,
    keys,
    v,
    features,
    projection,
    t,
    live,
    a,
    H: tl.constexpr,
    AH: tl.constexpr,
    LOCATION: tl.constexpr,
    C: tl.constexpr,
    BC: tl.constexpr,
    APPROXIMATE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The score's terms of columns ``a`` [BA] at frames ``t`` [BT]: [BT, BA]."""
    known = a < AH
    at = t[:, None] * (H * AH) + a[None, :]
    k = tl.load(keys + at, mask=live[:, None] & known[None, :], other=0.0)
    q = tl.load(query + a, mask=known, other=0.0).to(tl.float32)
    weight = tl.load(v + a, mask=known, other=0.0).to(tl.float32)
    hidden = k.to(tl.float32) + q[None, :]
    if LOCATION:
        hidden = add_location(hidden, features, projection, a, AH, C, BC, PRECISION)
    return tanh(hidden, APPROXIMATE) * weight[None, :]


@triton.jit
def score_of(
    query,
    keys,
    v,
    previous,
    filters,
    projection,
    t,
    live,
    T,
    H: tl.constexpr,
    AH: tl.constexpr,
    LOCATION: tl.constexpr,
    C: tl.constexpr,
    W: tl.constexpr,
    BT: tl.constexpr,
    BA: tl.constexpr,
    BC: tl.constexpr,
    BW: tl.constexpr,
    APPROXIMATE: tl.constexpr,
    PRECISION: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """Energies [BT] of one query and one head at frames ``t``.

    Unrolled, a loop over tiles around it holds the loads itself and can be pipelined.
    """
    features = t
    if LOCATION:
        features = location_features(previous, filters, t, T, C, W, BC, BW, BT, PRECISION, UNROLL)
    weighted = tl.zeros((BT, BA), tl.float32)
    if UNROLL:
        for a0 in tl.static_range(0, AH, BA):
            weighted += weighted_tanh(
                query, keys, v, features, projection, t, live, a0 + tl.arange(0, BA), H, AH,
                LOCATION, C, BC, APPROXIMATE, PRECISION,
            )  # fmt: skip
    else:
        for a0 in range(0, AH, BA):
            weighted += weighted_tanh(
                query, keys, v, features, projection, t, live, a0 + tl.arange(0, BA), H, AH,
                LOCATION, C, BC, APPROXIMATE, PRECISION,
            )  # fmt: skip
    return tl.sum(weighted, axis=1)


@triton.jit
def join_splits(
    energy,
    split_max,
    split_sum,
    split_context,
    context,
    alignment,
    mask,
    fed,
    rows,
    length,
    T,
    N,
    num_splits,
    part,
    parts,
    DH: tl.constexpr,
    HAS_MASK: tl.constexpr,
    SPLITS: tl.constexpr,
    BS: tl.constexpr,
    BD: tl.constexpr,
    BT: tl.constexpr,
):
    """Context and alignment of one query and one head from its splits, in their order.

    ``rows`` is the first split's; those of the others follow after N each. Of ``parts`` that
    share the columns and frames this is ``part``. With a mask, ``fed`` is the context times it.
    """
    s = tl.arange(0, SPLITS)
    maxima = tl.load(split_max + rows + s * N, mask=s < num_splits, other=float("-inf"))
    exponentials = tl.load(split_sum + rows + s * N, mask=s < num_splits, other=0.0)
    maximum = tl.max(maxima, axis=0)
    # The exponential is zero for a split beyond the length.
    scale = 1.0 / tl.sum(tl.exp(maxima - maximum) * exponentials, axis=0)
    for d0 in range(part * BD, DH, parts * BD):
        d = d0 + tl.arange(0, BD)
        joined = tl.zeros((BD,), tl.float32)
        for first in range(0, num_splits, BS):
            some = first + tl.arange(0, BS)
            row = rows + some * N
            other = tl.load(split_max + row, mask=some < num_splits, other=float("-inf"))
            known = (some < num_splits)[:, None] & (d < DH)[None, :]
            parts_ = tl.load(split_context + row[:, None] * DH + d[None, :], mask=known, other=0.0)
            joined += tl.sum(parts_ * tl.exp(other - maximum)[:, None], axis=0)
        found = narrow(joined * scale, context.dtype.element_ty)
        tl.store(context + d, found, mask=d < DH)
        if HAS_MASK:
            found = found.to(tl.float32) * tl.load(mask + d, mask=d < DH, other=0.0).to(tl.float32)
            tl.store(fed + d, narrow(found, fed.dtype.element_ty), mask=d < DH)
    for start in range(part * BT, T, BT * parts):
        t = start + tl.arange(0, BT)
        e = tl.load(energy + t, mask=t < length, other=float("-inf"))
        a = tl.exp(e - maximum) * scale
        tl.store(alignment + t, narrow(a, alignment.dtype.element_ty), mask=t < T)


# What follows the number of frames or steps, also where a step's part of a sequence begins, differs
# from batch to batch: Triton would compile again for each of its alignments.
@triton.jit(
    do_not_specialize=[
        "T",
        "N",
        "split_len",
        "previous",
        "previous_b",
        "previous_n",
        "alignment",
        "alignment_b",
        "alignment_n",
    ]
)
def attention_fwd_split_kernel(
    query,
    keys,
    values,
    lengths,
    v,
    previous,
    filters,
    projection,
    energy,
    split_max,
    split_sum,
    split_context,
    arrivals,
    context,
    alignment,
    mask,
    fed,
    T,
    N,
    split_len,
    query_b,
    query_n,
    previous_b,
    previous_n,
    context_b,
    alignment_b,
    mask_b,
    fed_b,
    H: tl.constexpr,
    AH: tl.constexpr,
    DH: tl.constexpr,
    LOCATION: tl.constexpr,
    C: tl.constexpr,
    W: tl.constexpr,
    NB: tl.constexpr,
    ROWS: tl.constexpr,
    BT: tl.constexpr,
    BA: tl.constexpr,
    BD: tl.constexpr,
    BC: tl.constexpr,
    BW: tl.constexpr,
    APPROXIMATE: tl.constexpr,
    PRECISION: tl.constexpr,
    PRODUCT: tl.constexpr,
    HAS_MASK: tl.constexpr,
    STAGES: tl.constexpr,
    JOIN: tl.constexpr,
):
    """Energies of one split, and its maximum, sum of exponentials and unscaled context.

    Axis 2 shares the columns of a wide context; its programs repeat the energies. With JOIN, the
    most splits that there may be, the program that arrives last joins them, of one query; then
    ``arrivals`` is zero before and after.
    """
    blocks = tl.cdiv(N, NB)
    block = tl.program_id(0) % blocks
    h = tl.program_id(0) // blocks % H
    b = (tl.program_id(0) // (blocks * H)).to(tl.int64)
    s = tl.program_id(1)
    num_splits = tl.num_programs(1)
    length = length_of(lengths, b, T)
    first = block * NB
    n = first + tl.arange(0, ROWS)
    mine = (tl.arange(0, ROWS) < NB) & (n < N)
    writes = mine & (tl.program_id(2) == 0)
    d = tl.program_id(2) * BD + tl.arange(0, BD)
    keys += b * T * H * AH + h * AH
    values += b * T * H * DH + h * DH
    query += b * query_b + h * AH
    previous += b * previous_b + h * T
    v += h * AH
    projection += h * AH * C
    maximum = tl.full((ROWS,), float("-inf"), tl.float32)
    exponentials = tl.zeros((ROWS,), tl.float32)
    unscaled = tl.zeros((ROWS, BD), tl.float32)
    end = tl.minimum(s * split_len + split_len, length)
    for start in tl.range(s * split_len, end, BT, num_stages=STAGES):
        t = start + tl.arange(0, BT)
        live = t < end
        if NB == 1:
            one = score_of(
                query + first * query_n, keys, v, previous + first * previous_n, filters,
                projection, t, live, T, H, AH, LOCATION, C, W, BT, BA, BC, BW, APPROXIMATE,
                PRECISION, STAGES > 1,
            )  # fmt: skip
            e = one[None, :]
        else:
            e = tl.zeros((ROWS, BT), tl.float32)
            for i in range(NB):
                row = tl.minimum(first + i, N - 1)
                one = score_of(
                    query + row * query_n, keys, v, previous + row * previous_n, filters,
                    projection, t, live, T, H, AH, LOCATION, C, W, BT, BA, BC, BW, APPROXIMATE,
                    PRECISION, False,
                )  # fmt: skip
                e = tl.where((tl.arange(0, ROWS) == i)[:, None], one[None, :], e)
        out = ((b * N + n[:, None]) * H + h) * T + t[None, :]
        tl.store(energy + out, e, mask=writes[:, None] & live[None, :])
        e = tl.where(live[None, :], e, float("-inf"))
        higher = tl.maximum(maximum, tl.max(e, axis=1))
        p = tl.exp(e - higher[:, None])
        shrink = tl.exp(maximum - higher)
        at = t[:, None] * (H * DH) + d[None, :]
        value = tl.load(values + at, mask=live[:, None] & (d < DH)[None, :], other=0.0)
        unscaled *= shrink[:, None]
        if ROWS == 1:
            unscaled += tl.sum(tl.trans(p) * value.to(tl.float32), axis=0)[None, :]
        else:
            unscaled = tl.dot(p.to(PRODUCT), value.to(PRODUCT), unscaled, input_precision=PRECISION)
        exponentials = exponentials * shrink + tl.sum(p, axis=1)
        maximum = higher
    rows = (b * H + h) * num_splits * N
    out = rows + s * N + n
    tl.store(split_max + out, maximum, mask=writes)
    tl.store(split_sum + out, exponentials, mask=writes)
    known = mine[:, None] & (d < DH)[None, :]
    tl.store(split_context + out[:, None] * DH + d[None, :], unscaled, mask=known)
    if JOIN:
        last = arrives_last(arrivals + tl.program_id(0), num_splits * tl.num_programs(2))
        if last:
            join_splits(
                energy + (b * H + h) * T, split_max, split_sum, split_context,
                context + b * context_b + h * DH, alignment + b * alignment_b + h * T,
                mask + b * mask_b + h * DH, fed + b * fed_b + h * DH, rows, length, T, N,
                num_splits, 0, 1, DH, HAS_MASK, JOIN, 4, BD, 128,
            )  # fmt: skip


@triton.jit(do_not_specialize=["T", "N", "num_splits", "alignment", "alignment_b", "alignment_n"])
def attention_fwd_combine_kernel(
    lengths,
    energy,
    split_max,
    split_sum,
    split_context,
    context,
    alignment,
    mask,
    fed,
    T,
    N,
    num_splits,
    context_b,
    context_n,
    alignment_b,
    alignment_n,
    mask_b,
    fed_b,
    H: tl.constexpr,
    DH: tl.constexpr,
    HAS_MASK: tl.constexpr,
    SPLITS: tl.constexpr,
    BS: tl.constexpr,
    BD: tl.constexpr,
    BT: tl.constexpr,
):
    """Join the splits of one query and one head; programs of axis 1 share the columns."""
    b, n, h = query_of_program(N, H)
    join_splits(
        energy + ((b * N + n) * H + h) * T, split_max, split_sum, split_context,
        context + b * context_b + n * context_n + h * DH,
        alignment + b * alignment_b + n * alignment_n + h * T, mask + b * mask_b + h * DH,
        fed + b * fed_b + h * DH, (b * H + h) * num_splits * N + n, length_of(lengths, b, T), T, N,
        num_splits, tl.program_id(1), tl.num_programs(1), DH, HAS_MASK, SPLITS, BS, BD, BT,
    )  # fmt: skip
