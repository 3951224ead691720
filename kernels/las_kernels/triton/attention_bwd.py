# Compile-time arguments of kernels are capitals, and the compiler knows their types.
# ruff: noqa: ANN001, ANN201, N803
# mypy: disable-error-code="no-untyped-def"
"""Fused attention, phase 1 of the backward (Triton): what the step before needs.

Three launches a step: ``attention_bwd_preprocess_kernel``, ``attention_bwd_dq_kernel``,
``attention_bwd_dq_reduce_kernel``. Sums over programs are made by the next launch in a fixed order:
no atomics.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from las_kernels import eager
from las_kernels.triton import configs
from las_kernels.triton.location_conv import add_location
from las_kernels.triton.utils import length_of, narrow, query_of_program, strides, tanh
from las_kernels.types import Memory, Score


@triton.jit(
    do_not_specialize=[
        "T",
        "N",
        "dalignment",
        "alignment",
        "gradient",
        "alignment_b",
        "alignment_n",
        "dalignment_b",
        "dalignment_n",
        "gradient_b",
        "gradient_n",
    ]
)
def attention_bwd_preprocess_kernel(
    dcontext,
    dalignment,
    alignment,
    values,
    lengths,
    gradient,
    sums,
    T,
    N,
    dcontext_b,
    dcontext_n,
    alignment_b,
    alignment_n,
    dalignment_b,
    dalignment_n,
    gradient_b,
    gradient_n,
    H: tl.constexpr,
    DH: tl.constexpr,
    HAS_DALIGNMENT: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
):
    """Phase 1, before the softmax: the gradient of a tile of frames, its share of two sums."""
    b, n, h = query_of_program(N, H)
    tile = tl.program_id(1)
    length = length_of(lengths, b, T)
    t = tile * BT + tl.arange(0, BT)
    live = t < length
    values += b * T * H * DH + h * DH
    dcontext += b * dcontext_b + n * dcontext_n + h * DH
    g = tl.zeros((BT,), tl.float32)
    for d0 in range(0, DH, BD):
        d = d0 + tl.arange(0, BD)
        at = t[:, None] * (H * DH) + d[None, :]
        value = tl.load(values + at, mask=live[:, None] & (d < DH)[None, :], other=0.0)
        dc = tl.load(dcontext + d, mask=d < DH, other=0.0).to(tl.float32)
        g += tl.sum(value.to(tl.float32) * dc[None, :], axis=1)
    if HAS_DALIGNMENT:
        dalignment += b * dalignment_b + n * dalignment_n + h * T
        g += tl.load(dalignment + t, mask=live, other=0.0).to(tl.float32)
    tl.store(gradient + b * gradient_b + n * gradient_n + h * T + t, g, mask=t < T)
    alignment += b * alignment_b + n * alignment_n + h * T
    weight = tl.load(alignment + t, mask=live, other=0.0).to(tl.float32)
    out = sums + (((b * N + n) * H + h) * tl.num_programs(1) + tile) * 2
    tl.store(out, tl.sum(weight * g, axis=0))
    tl.store(out + 1, tl.sum(weight, axis=0))


@triton.jit(
    do_not_specialize=[
        "T",
        "N",
        "alignment",
        "features",
        "denergy",
        "dfeatures",
        "alignment_b",
        "alignment_n",
        "features_b",
        "features_n",
        "denergy_b",
        "denergy_n",
    ]
)
def attention_bwd_dq_kernel(
    alignment,
    query,
    keys,
    lengths,
    v,
    projection,
    features,
    sums,
    denergy,
    dquery_parts,
    dfeatures,
    T,
    N,
    alignment_b,
    alignment_n,
    query_b,
    query_n,
    features_b,
    features_n,
    denergy_b,
    denergy_n,
    H: tl.constexpr,
    AH: tl.constexpr,
    LOCATION: tl.constexpr,
    C: tl.constexpr,
    BC: tl.constexpr,
    BS: tl.constexpr,
    BT: tl.constexpr,
    BA: tl.constexpr,
    APPROXIMATE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Phase 1, softmax and score, for a tile of frames of one query and one head.

    ``denergy`` holds the gradient of the alignment and is overwritten.
    """
    b, n, h = query_of_program(N, H)
    tile = tl.program_id(1)
    tiles = tl.num_programs(1)
    row = (b * N + n) * H + h
    length = length_of(lengths, b, T)
    t = tile * BT + tl.arange(0, BT)
    live = t < length
    keys += b * T * H * AH + h * AH
    query += b * query_b + n * query_n + h * AH
    features += b * features_b + n * features_n + h * C * T
    dfeatures += b * features_b + n * features_n + h * C * T
    along = tl.zeros((BS,), tl.float32)
    mass = tl.zeros((BS,), tl.float32)
    for s0 in range(0, tiles, BS):
        s = s0 + tl.arange(0, BS)
        along += tl.load(sums + (row * tiles + s) * 2, mask=s < tiles, other=0.0)
        mass += tl.load(sums + (row * tiles + s) * 2 + 1, mask=s < tiles, other=0.0)
    # Divided by the mass, a sharp alignment that was rounded to sum to 1 +- 1/512 does no harm.
    delta = tl.sum(along, axis=0) / tl.sum(mass, axis=0)
    alignment += b * alignment_b + n * alignment_n + h * T
    weight = tl.load(alignment + t, mask=live, other=0.0).to(tl.float32)
    denergy += b * denergy_b + n * denergy_n + h * T
    de = weight * (tl.load(denergy + t, mask=live, other=0.0) - delta)
    tl.store(denergy + t, de, mask=t < T)
    c = tl.arange(0, BC)
    if LOCATION:
        inside = (t < T)[:, None] & (c < C)[None, :]
        feature_at = c[None, :] * T + t[:, None]
        located = tl.load(features + feature_at, mask=inside, other=0.0)
        dlocated = tl.zeros((BT, BC), tl.float32)
    parts = dquery_parts + (row * tiles + tile) * AH
    for a0 in range(0, AH, BA):
        a = a0 + tl.arange(0, BA)
        known = a < AH
        at = t[:, None] * (H * AH) + a[None, :]
        k = tl.load(keys + at, mask=live[:, None] & known[None, :], other=0.0).to(tl.float32)
        q = tl.load(query + a, mask=known, other=0.0).to(tl.float32)
        scale = tl.load(v + h * AH + a, mask=known, other=0.0).to(tl.float32)
        hidden = k + q[None, :]
        if LOCATION:
            hidden = add_location(hidden, located, projection + h * AH * C, a, AH, C, BC, PRECISION)
        y = tanh(hidden, APPROXIMATE)
        dhidden = de[:, None] * scale[None, :] * (1.0 - y * y)
        tl.store(parts + a, tl.sum(dhidden, axis=0), mask=known)
        if LOCATION:
            at = (h * AH + a[:, None]) * C + c[None, :]
            weights = tl.load(projection + at, mask=known[:, None] & (c < C)[None, :], other=0.0)
            dlocated = tl.dot(dhidden, weights.to(tl.float32), dlocated, input_precision=PRECISION)
    if LOCATION:
        tl.store(dfeatures + feature_at, dlocated, mask=inside)


@triton.jit(do_not_specialize=["T", "N", "tiles", "dfeatures", "dfeatures_b", "dfeatures_n"])
def attention_bwd_dq_reduce_kernel(
    dquery_parts,
    dfeatures,
    filters,
    dquery,
    dprevious,
    T,
    N,
    tiles,
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
    """Sum the parts of dquery; carry dfeatures through the filters to the alignment before."""
    b, n, h = query_of_program(N, H)
    block = tl.program_id(1)
    row = (b * N + n) * H + h
    a = block * BA + tl.arange(0, BA)
    if block * BA < AH:
        total = tl.zeros((BA,), tl.float32)
        for s0 in range(0, tiles, BS):
            s = s0 + tl.arange(0, BS)
            at = (row * tiles + s[:, None]) * AH + a[None, :]
            known = (s < tiles)[:, None] & (a < AH)[None, :]
            total += tl.sum(tl.load(dquery_parts + at, mask=known, other=0.0), axis=0)
        out = dquery + b * dquery_b + n * dquery_n + h * AH + a
        tl.store(out, narrow(total, dquery.dtype.element_ty), mask=a < AH)
    if LOCATION:
        t = block * BT + tl.arange(0, BT)
        dfeatures += b * dfeatures_b + n * dfeatures_n + h * C * T
        found = tl.zeros((BT,), tl.float32)
        for c in range(C):
            for start in range(0, W, BW):
                tap = start + tl.arange(0, BW)
                source = t[:, None] - tap[None, :] + W // 2
                inside = (source >= 0) & (source < T) & (tap < W)[None, :]
                df = tl.load(dfeatures + c * T + source, mask=inside, other=0.0)
                weight = tl.load(filters + c * W + tap, mask=tap < W, other=0.0)
                found += tl.sum(df * weight.to(tl.float32)[None, :], axis=1)
        tl.store(dprevious + row * T + t, found, mask=t < T)


def backward(
    dcontext: Tensor,
    dalignment: Tensor | None,
    alignment: Tensor,
    query: Tensor,
    memory: Memory,
    score: Score,
    features: Tensor | None,
    denergy: Tensor,
    dquery: Tensor,
    dfeatures: Tensor | None,
) -> Tensor | None:
    """As :func:`las_kernels.eager.backward`; dot scores are matrix products and stay there."""
    if score.v is None:
        given = (dcontext, dalignment, alignment, query, memory, score)
        return eager.backward(*given, features, denergy, dquery, dfeatures)
    B, N, H, T = alignment.shape
    A, D = memory.keys.shape[2], memory.values.shape[2]
    location, dtype, device = score.location, query.dtype, query.device
    dq = configs.attention_bwd_dq_config(H, A // H, location, dtype)
    dq = configs.choose(attention_bwd_dq_kernel, dq, dtype, device)
    preprocess = configs.attention_bwd_preprocess_config(
        H, D // H, location, dalignment is not None, dtype
    )
    preprocess = configs.choose(attention_bwd_preprocess_kernel, preprocess, dtype, device)
    preprocess["BT"] = dq["BT"]  # the kernel of dq adds up its sums, tile by tile
    tiles = triton.cdiv(T, preprocess["BT"])
    parts = torch.empty(B, N, H, tiles, A // H, dtype=torch.float32, device=query.device)
    sums = torch.empty(B, N, H, tiles, 2, dtype=torch.float32, device=query.device)
    external = alignment if dalignment is None else dalignment
    located = query if features is None else features
    dlocated = query if dfeatures is None else dfeatures
    if features is not None and located.stride() != dlocated.stride():
        raise ValueError("features and dfeatures must have the same strides")
    dprevious = None
    if location is not None:
        dprevious = torch.empty(B, N, H, T, dtype=torch.float32, device=query.device)
    with torch.cuda.device_of(query):
        attention_bwd_preprocess_kernel[(B * N * H, tiles)](
            dcontext,
            external,
            alignment,
            memory.values,
            memory.lengths,
            denergy,
            sums,
            T,
            N,
            *strides(dcontext, alignment, external, denergy),
            **preprocess,
        )
        attention_bwd_dq_kernel[(B * N * H, tiles)](
            alignment,
            query,
            memory.keys,
            memory.lengths,
            score.v,
            query if score.projection is None else score.projection,
            located,
            sums,
            denergy,
            parts,
            dlocated,
            T,
            N,
            *strides(alignment, query, located, denergy),
            **dq,
        )
        config = configs.attention_bwd_dq_reduce_config(H, A // H, location)
        config = configs.choose(attention_bwd_dq_reduce_kernel, config, dtype, device)
        blocks = triton.cdiv(A // H, config["BA"])
        if location is not None:
            blocks = max(blocks, triton.cdiv(T, config["BT"]))
        attention_bwd_dq_reduce_kernel[(B * N * H, blocks)](
            parts,
            dlocated,
            query if score.filters is None else score.filters,
            dquery,
            dquery if dprevious is None else dprevious,
            T,
            N,
            tiles,
            *strides(dquery, dlocated),
            **config,
        )
    return dprevious
