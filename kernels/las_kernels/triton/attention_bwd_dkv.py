# Compile-time arguments of kernels are capitals, and the compiler knows their types.
# ruff: noqa: ANN001, ANN201, N803
# mypy: disable-error-code="no-untyped-def"
"""Fused attention, phase 2 of the backward (Triton): once a sequence, not once a step.

``attention_bwd_dk_kernel`` loops over the steps with the gradient of a tile of keys in registers:
keys are read once, their gradient is written once. The gradient of the values is one matrix product
(:mod:`las_kernels.sequence`). Sums over programs are made by a second pass in a fixed order: no
atomics.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from las_kernels import eager
from las_kernels.eager import ScoreGradients
from las_kernels.triton import configs
from las_kernels.triton.location_conv import add_location
from las_kernels.triton.utils import length_of, narrow, tanh
from las_kernels.types import Memory, Score


@triton.jit(do_not_specialize=["T", "N"])
def attention_bwd_dk_kernel(
    queries,
    keys,
    lengths,
    v,
    projection,
    features,
    denergy,
    dkeys,
    dv_parts,
    dprojection_parts,
    T,
    N,
    H: tl.constexpr,
    AH: tl.constexpr,
    LOCATION: tl.constexpr,
    C: tl.constexpr,
    BC: tl.constexpr,
    BT: tl.constexpr,
    BA: tl.constexpr,
    APPROXIMATE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Phase 2 for a tile of frames and columns: loop over the steps, sums in registers."""
    h = tl.program_id(0) % H
    b = (tl.program_id(0) // H).to(tl.int64)
    tile = tl.program_id(1)
    length = length_of(lengths, b, T)
    t = tile * BT + tl.arange(0, BT)
    live = t < length
    a = tl.program_id(2) * BA + tl.arange(0, BA)
    known = a < AH
    c = tl.arange(0, BC)
    at = (b * T + t[:, None]) * (H * AH) + h * AH + a[None, :]
    k = tl.load(keys + at, mask=live[:, None] & known[None, :], other=0.0).to(tl.float32)
    scale = tl.load(v + h * AH + a, mask=known, other=0.0).to(tl.float32)
    slope = tl.zeros((BT, BA), tl.float32)
    sum_v = tl.zeros((BT, BA), tl.float32)
    sum_projection = tl.zeros((BA, BC), tl.float32)
    queries += b * N * H * AH + h * AH
    features += (b * N * H + h) * C * T
    denergy += (b * N * H + h) * T
    if tile * BT < length:
        for _ in range(N):
            q = tl.load(queries + a, mask=known, other=0.0).to(tl.float32)
            de = tl.load(denergy + t, mask=live, other=0.0)
            hidden = k + q[None, :]
            if LOCATION:
                inside = live[:, None] & (c < C)[None, :]
                feature_at = c[None, :] * T + t[:, None]
                located = tl.load(features + feature_at, mask=inside, other=0.0)
                hidden = add_location(
                    hidden, located, projection + h * AH * C, a, AH, C, BC, PRECISION
                )
            y = tanh(hidden, APPROXIMATE)
            part = de[:, None] * (1.0 - y * y)
            slope += part
            sum_v += de[:, None] * y
            if LOCATION:
                sum_projection = tl.dot(
                    tl.trans(part), located, sum_projection, input_precision=PRECISION
                )
            queries += H * AH
            denergy += H * T
            features += H * C * T
    found = slope * scale[None, :]
    inside = (t < T)[:, None] & known[None, :]
    tl.store(dkeys + at, narrow(found, dkeys.dtype.element_ty), mask=inside)
    part_at = (b * tl.num_programs(1) + tile) * (H * AH) + h * AH + a
    tl.store(dv_parts + part_at, tl.sum(sum_v, axis=0), mask=known)
    if LOCATION:
        out = dprojection_parts + part_at[:, None] * C + c[None, :]
        tl.store(out, sum_projection * scale[:, None], mask=known[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=["rows", "T"])
def attention_bwd_dfilters_kernel(
    previous,
    dfeatures,
    parts,
    rows,
    T,
    C: tl.constexpr,
    W: tl.constexpr,
    BC: tl.constexpr,
    BT: tl.constexpr,
    BW: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradient of the filters from a share of the alignments; axis 1 goes over the taps."""
    c = tl.arange(0, BC)
    tap = tl.program_id(1) * BW + tl.arange(0, BW)
    total = tl.zeros((BC, BW), tl.float32)
    first = tl.program_id(0).to(tl.int64)
    previous += first * T
    dfeatures += first * C * T
    for _ in range(tl.program_id(0), rows, tl.num_programs(0)):
        for t0 in range(0, T, BT):
            t = t0 + tl.arange(0, BT)
            known = (c < C)[:, None] & (t < T)[None, :]
            df_at = c[:, None] * T + t[None, :]
            df = tl.load(dfeatures + df_at, mask=known, other=0.0)
            source = t[:, None] + tap[None, :] - W // 2
            inside = (source >= 0) & (source < T) & (t < T)[:, None]
            window = tl.load(previous + source, mask=inside, other=0.0).to(tl.float32)
            total = tl.dot(df, window, total, input_precision=PRECISION)
        previous += tl.num_programs(0) * T
        dfeatures += tl.num_programs(0) * C * T
    out = parts + (tl.program_id(0) * C + c[:, None]) * W + tap[None, :]
    tl.store(out, total, mask=(c < C)[:, None] & (tap < W)[None, :])


def backward(
    queries: Tensor,
    denergy: Tensor,
    memory: Memory,
    score: Score,
    previous: Tensor | None,
    features: Tensor | None,
    dfeatures: Tensor | None,
) -> ScoreGradients:
    """As :func:`las_kernels.eager.backward_dkv`; dot scores are matrix products and stay there."""
    if score.v is None:
        return eager.backward_dkv(queries, denergy, memory, score, previous, features, dfeatures)
    B, N, H, T = denergy.shape
    A = memory.keys.shape[2]
    location, dtype, device = score.location, queries.dtype, queries.device
    C, W = location or (1, 1)
    config = configs.attention_bwd_dk_config(H, A // H, location, dtype)
    config = configs.choose(attention_bwd_dk_kernel, config, dtype, device)
    tiles = triton.cdiv(T, config["BT"])
    dkeys = torch.empty_like(memory.keys)
    dv_parts = torch.empty(B, tiles, A, dtype=torch.float32, device=queries.device)
    dprojection_parts = dv_parts if location is None else dv_parts.new_empty(B, tiles, A, C)
    with torch.cuda.device_of(queries):
        attention_bwd_dk_kernel[(B * H, tiles, triton.cdiv(A // H, config["BA"]))](
            queries.contiguous(),
            memory.keys,
            memory.lengths,
            score.v,
            queries if score.projection is None else score.projection,
            queries if features is None else features.contiguous(),
            denergy.contiguous(),
            dkeys,
            dv_parts,
            dprojection_parts,
            T,
            N,
            **config,
        )
    dv = dv_parts.sum((0, 1)).to(queries.dtype)
    if location is None or previous is None or dfeatures is None:
        return ScoreGradients(dkeys, dv, None, None)
    dprojection = dprojection_parts.sum((0, 1)).to(queries.dtype)
    rows = B * N * H
    config = configs.attention_bwd_dfilters_config(location, dtype)
    config = configs.choose(attention_bwd_dfilters_kernel, config, dtype, device)
    parts = dv_parts.new_empty(min(rows, configs.FILTER_PROGRAMS), C, W)
    with torch.cuda.device_of(queries):
        attention_bwd_dfilters_kernel[(parts.shape[0], triton.cdiv(W, config["BW"]))](
            previous.contiguous(), dfeatures.contiguous(), parts, rows, T, **config
        )
    return ScoreGradients(dkeys, dv, parts.sum(0).to(queries.dtype), dprojection)
