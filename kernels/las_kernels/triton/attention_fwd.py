# Compile-time arguments of kernels are capitals, and the compiler knows their types.
# ruff: noqa: ANN001, ANN201, N803
# mypy: disable-error-code="no-untyped-def"
"""Fused attention, forward (Triton): scores, softmax and context in one pass over the memory.

Split-KV, as flash-decoding: ``attention_fwd_split_kernel`` gives each program one split of the
frames of one utterance and one head, for up to eight queries that share the memory; it keeps a
running maximum, so that any finite score is safe. ``attention_fwd_combine_kernel`` joins the splits
in a fixed order: no atomics, the same bits each time. Neither makes the host wait, so that a step
can be captured in a CUDA graph.
"""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from las_kernels import eager
from las_kernels.triton import configs
from las_kernels.triton.location_conv import add_location, location_features
from las_kernels.triton.utils import length_of, narrow, query_of_program, tanh
from las_kernels.types import Memory, Score


# What follows the number of frames or steps, also where a step's part of a sequence begins, differs
# from batch to batch: Triton would compile again for each of its alignments.
@triton.jit(do_not_specialize=["T", "N", "split_len", "previous", "previous_b", "previous_n"])
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
    T,
    N,
    split_len,
    query_b,
    query_n,
    previous_b,
    previous_n,
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
):
    """Energies of one split_len, and its maximum, sum of exponentials and unscaled context.

    Axis 2 shares the columns of a wide context; its programs repeat the energies.
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
    maximum = tl.full((ROWS,), float("-inf"), tl.float32)
    exponentials = tl.zeros((ROWS,), tl.float32)
    context = tl.zeros((ROWS, BD), tl.float32)
    end = tl.minimum(s * split_len + split_len, length)
    for start in range(s * split_len, end, BT):
        t = start + tl.arange(0, BT)
        live = t < end
        e = tl.zeros((ROWS, BT), tl.float32)
        for i in range(NB):
            row = tl.minimum(first + i, N - 1)
            if LOCATION:
                features = location_features(
                    previous + row * previous_n, filters, t, T, C, W, BC, BW, BT, PRECISION
                )
            one = tl.zeros((BT,), tl.float32)
            for a0 in range(0, AH, BA):
                a = a0 + tl.arange(0, BA)
                known = a < AH
                at = t[:, None] * (H * AH) + a[None, :]
                k = tl.load(keys + at, mask=live[:, None] & known[None, :], other=0.0)
                q = tl.load(query + row * query_n + a, mask=known, other=0.0).to(tl.float32)
                weight = tl.load(v + h * AH + a, mask=known, other=0.0).to(tl.float32)
                hidden = k.to(tl.float32) + q[None, :]
                if LOCATION:
                    hidden = add_location(
                        hidden, features, projection + h * AH * C, a, AH, C, BC, PRECISION
                    )
                one += tl.sum(tanh(hidden, APPROXIMATE) * weight[None, :], axis=1)
            e = tl.where((tl.arange(0, ROWS) == i)[:, None], one[None, :], e)
        out = ((b * N + n[:, None]) * H + h) * T + t[None, :]
        tl.store(energy + out, e, mask=writes[:, None] & live[None, :])
        e = tl.where(live[None, :], e, float("-inf"))
        higher = tl.maximum(maximum, tl.max(e, axis=1))
        p = tl.exp(e - higher[:, None])
        shrink = tl.exp(maximum - higher)
        at = t[:, None] * (H * DH) + d[None, :]
        value = tl.load(values + at, mask=live[:, None] & (d < DH)[None, :], other=0.0)
        context *= shrink[:, None]
        if ROWS == 1:
            context += tl.sum(tl.trans(p) * value.to(tl.float32), axis=0)[None, :]
        else:
            context = tl.dot(p.to(PRODUCT), value.to(PRODUCT), context, input_precision=PRECISION)
        exponentials = exponentials * shrink + tl.sum(p, axis=1)
        maximum = higher
    out = ((b * H + h) * num_splits + s) * N + n
    tl.store(split_max + out, maximum, mask=writes)
    tl.store(split_sum + out, exponentials, mask=writes)
    known = mine[:, None] & (d < DH)[None, :]
    tl.store(split_context + out[:, None] * DH + d[None, :], context, mask=known)


@triton.jit(do_not_specialize=["T", "N", "num_splits", "alignment", "alignment_b", "alignment_n"])
def attention_fwd_combine_kernel(
    lengths,
    energy,
    split_max,
    split_sum,
    split_context,
    context,
    alignment,
    T,
    N,
    num_splits,
    context_b,
    context_n,
    alignment_b,
    alignment_n,
    H: tl.constexpr,
    DH: tl.constexpr,
    SPLITS: tl.constexpr,
    BS: tl.constexpr,
    BD: tl.constexpr,
    BT: tl.constexpr,
):
    """Join the splits of one query and one head; programs of axis 1 share the columns."""
    b, n, h = query_of_program(N, H)
    part = tl.program_id(1)
    length = length_of(lengths, b, T)
    s = tl.arange(0, SPLITS)
    at = ((b * H + h) * num_splits + s) * N + n
    maxima = tl.load(split_max + at, mask=s < num_splits, other=float("-inf"))
    exponentials = tl.load(split_sum + at, mask=s < num_splits, other=0.0)
    maximum = tl.max(maxima, axis=0)
    # The exponential is zero for a split beyond the length.
    scale = 1.0 / tl.sum(tl.exp(maxima - maximum) * exponentials, axis=0)
    d = part * BD + tl.arange(0, BD)
    joined = tl.zeros((BD,), tl.float32)
    for first in range(0, num_splits, BS):
        some = first + tl.arange(0, BS)
        row = ((b * H + h) * num_splits + some) * N + n
        share = tl.exp(
            tl.load(split_max + row, mask=some < num_splits, other=float("-inf")) - maximum
        )
        known = (some < num_splits)[:, None] & (d < DH)[None, :]
        parts = tl.load(split_context + row[:, None] * DH + d[None, :], mask=known, other=0.0)
        joined += tl.sum(parts * share[:, None], axis=0)
    out = context + b * context_b + n * context_n + h * DH
    tl.store(out + d, narrow(joined * scale, context.dtype.element_ty), mask=d < DH)
    energy += ((b * N + n) * H + h) * T
    alignment += b * alignment_b + n * alignment_n + h * T
    for start in range(part * BT, T, BT * tl.num_programs(1)):
        t = start + tl.arange(0, BT)
        e = tl.load(energy + t, mask=t < length, other=float("-inf"))
        a = tl.exp(e - maximum) * scale
        tl.store(alignment + t, narrow(a, alignment.dtype.element_ty), mask=t < T)


def forward(
    query: Tensor,
    memory: Memory,
    score: Score,
    previous: Tensor | None,
    context: Tensor,
    alignment: Tensor,
) -> None:
    """As :func:`las_kernels.eager.forward`; dot scores are matrix products and stay there."""
    if score.v is None:
        eager.forward(query, memory, score, previous, context, alignment)
        return
    B, N, A = query.shape
    T, D = memory.values.shape[1:]
    H = score.heads
    dtype, device = query.dtype, query.device
    config = configs.attention_fwd_split_config(N, H, (A // H, D // H), score.location, dtype)
    config = configs.choose(attention_fwd_split_kernel, config, dtype, device)
    fill = config.pop("fill", configs.FILL)
    programs = B * H * triton.cdiv(N, config["NB"])
    num_splits, split_len = configs.splits_for(
        T, programs, configs.processors(device), fill, config["BT"]
    )
    scratch = functools.partial(torch.empty, dtype=torch.float32, device=device)
    energy, split_max = scratch(B, N, H, T), scratch(B, H, num_splits, N)
    split_sum, split_context = torch.empty_like(split_max), scratch(B, H, num_splits, N, D // H)
    before = query if previous is None else previous
    with torch.cuda.device_of(query):
        attention_fwd_split_kernel[(programs, num_splits, triton.cdiv(D // H, config["BD"]))](
            query,
            memory.keys,
            memory.values,
            memory.lengths,
            score.v,
            before,
            query if score.filters is None else score.filters,
            query if score.projection is None else score.projection,
            energy,
            split_max,
            split_sum,
            split_context,
            T,
            N,
            split_len,
            *query.stride()[:2],
            *before.stride()[:2],
            **config,
        )
        config = configs.attention_fwd_combine_config(H, D // H)
        config = configs.choose(attention_fwd_combine_kernel, config, dtype, device)
        attention_fwd_combine_kernel[(B * N * H, triton.cdiv(D // H, config["BD"]))](
            memory.lengths,
            energy,
            split_max,
            split_sum,
            split_context,
            context,
            alignment,
            T,
            N,
            num_splits,
            *context.stride()[:2],
            *alignment.stride()[:2],
            **config,
        )
