# Compile-time arguments of kernels are capitals, and the compiler knows their types.
# ruff: noqa: ANN001, ANN201, N803
# mypy: disable-error-code="no-untyped-def"
"""Fused attention, forward (Triton): scores, softmax and context in one pass over the memory.

``partial`` gives each program one span of frames of one utterance and one head, for up to eight
queries that share the memory; it keeps a running maximum, so that any finite score is safe.
``combine`` joins the spans in a fixed order: no atomics, the same bits each time. Neither makes
the host wait, so that a step can be captured in a CUDA graph.
"""

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from las_kernels import eager
from las_kernels.triton import configs
from las_kernels.triton.attention_bwd import backward
from las_kernels.triton.attention_bwd_dkv import deferred
from las_kernels.triton.location_conv import (
    NO_LOCATION,
    add_location,
    locate,
    location_features,
    location_tiles,
)
from las_kernels.triton.lstm_cell import cell, cell_backward
from las_kernels.triton.utils import FRAMES, INTERPRETED, length_of, narrow, numerics, power, tanh
from las_kernels.types import Memory, Score

MAX_BEAMS = 8  # queries in one program
MAX_SPANS = 64
FILL = 2  # programs for each multiprocessor


# What follows the number of frames or steps, also where a step's part of a sequence begins, differs
# from batch to batch: Triton would compile again for each of its alignments.
@triton.jit(do_not_specialize=["T", "N", "span", "previous", "previous_b", "previous_n"])
def partial(
    query,
    keys,
    values,
    lengths,
    v,
    previous,
    filters,
    projection,
    energy,
    top,
    total,
    summed,
    T,
    N,
    span,
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
    """Energies of one span, and its maximum, sum of exponentials and unscaled context.

    Axis 2 shares the columns of a wide context; its programs repeat the energies.
    """
    blocks = tl.cdiv(N, NB)
    block = tl.program_id(0) % blocks
    h = tl.program_id(0) // blocks % H
    b = (tl.program_id(0) // (blocks * H)).to(tl.int64)
    s = tl.program_id(1)
    spans = tl.num_programs(1)
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
    end = tl.minimum(s * span + span, length)
    for start in range(s * span, end, BT):
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
    out = ((b * H + h) * spans + s) * N + n
    tl.store(top + out, maximum, mask=writes)
    tl.store(total + out, exponentials, mask=writes)
    known = mine[:, None] & (d < DH)[None, :]
    tl.store(summed + out[:, None] * DH + d[None, :], context, mask=known)


@triton.jit(do_not_specialize=["T", "N", "spans", "alignment", "alignment_b", "alignment_n"])
def combine(
    lengths,
    energy,
    top,
    total,
    summed,
    context,
    alignment,
    T,
    N,
    spans,
    context_b,
    context_n,
    alignment_b,
    alignment_n,
    H: tl.constexpr,
    DH: tl.constexpr,
    SPANS: tl.constexpr,
    BS: tl.constexpr,
    BD: tl.constexpr,
    BT: tl.constexpr,
):
    """Join the spans of one query and one head; programs of axis 1 share the columns."""
    h = tl.program_id(0) % H
    n = tl.program_id(0) // H % N
    b = (tl.program_id(0) // (H * N)).to(tl.int64)
    part = tl.program_id(1)
    length = length_of(lengths, b, T)
    s = tl.arange(0, SPANS)
    at = ((b * H + h) * spans + s) * N + n
    maxima = tl.load(top + at, mask=s < spans, other=float("-inf"))
    exponentials = tl.load(total + at, mask=s < spans, other=0.0)
    maximum = tl.max(maxima, axis=0)
    # The exponential is zero for a span beyond the length.
    scale = 1.0 / tl.sum(tl.exp(maxima - maximum) * exponentials, axis=0)
    d = part * BD + tl.arange(0, BD)
    joined = tl.zeros((BD,), tl.float32)
    for first in range(0, spans, BS):
        some = first + tl.arange(0, BS)
        row = ((b * H + h) * spans + some) * N + n
        share = tl.exp(tl.load(top + row, mask=some < spans, other=float("-inf")) - maximum)
        known = (some < spans)[:, None] & (d < DH)[None, :]
        parts = tl.load(summed + row[:, None] * DH + d[None, :], mask=known, other=0.0)
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


def partial_plan(
    beams: int,
    heads: int,
    widths: tuple[int, int],
    location: tuple[int, int] | None,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Compile-time arguments of ``partial`` for widths (A/H, D/H) and location (C, W)."""
    AH, DH = widths
    NB = min(power(beams), MAX_BEAMS)
    half = dtype.itemsize < 4
    BD = min(power(DH, 16), 2048 if NB == 1 else 1024 if half else 512)  # what registers hold
    # As many columns at once as keep memory busy; many location features take the registers.
    columns = 64 if location is None else 32
    if half and (location is None or location[0] <= 16):
        columns = 128
    product = tl.float32
    if half and not INTERPRETED.value:  # whose bfloat16 products are wrong
        product = tl.bfloat16 if dtype == torch.bfloat16 else tl.float16
    return {
        "H": heads,
        "AH": AH,
        "DH": DH,
        **(NO_LOCATION if location is None else {"LOCATION": True, **location_tiles(*location)}),
        "NB": NB,
        "ROWS": 1 if NB == 1 else 16,
        "BT": FRAMES,
        "BA": min(power(AH, 16), columns),
        "BD": BD,
        **numerics(dtype),
        "PRODUCT": product,
        "num_warps": 4 if BD <= 256 else 8 if BD <= 1024 else 16,
    }


def combine_plan(heads: int, width: int) -> dict[str, Any]:
    """Compile-time arguments of ``combine`` for width D/H; one code for any number of spans."""
    return {
        "H": heads,
        "DH": width,
        "SPANS": MAX_SPANS,
        "BS": 16,
        "BD": min(power(width, 16), 128),
        "BT": 128,
        "num_warps": 4,
    }


@functools.lru_cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count


def spans_for(
    frames: int, programs: int, processors: int, fill: int = FILL, tile: int = FRAMES
) -> tuple[int, int]:
    """How many spans of how many frames fill the device so often, given its other programs."""
    tiles = triton.cdiv(frames, tile)
    wanted = min(max(1, triton.cdiv(fill * processors, programs)), tiles, MAX_SPANS)
    span = triton.cdiv(tiles, wanted) * tile
    return triton.cdiv(frames, span), span


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
    location = None if score.filters is None else (score.filters.shape[0], score.filters.shape[1])
    dtype, device = query.dtype, query.device
    plan = partial_plan(N, H, (A // H, D // H), location, dtype)
    plan = dict(configs.choose("partial", plan, dtype, device))
    programs, fill = B * H * triton.cdiv(N, plan["NB"]), plan.pop("fill", FILL)
    spans, span = spans_for(T, programs, _processors(device), fill, plan["BT"])
    scratch = functools.partial(torch.empty, dtype=torch.float32, device=device)
    energy, top, total = scratch(B, N, H, T), scratch(B, H, spans, N), scratch(B, H, spans, N)
    summed = scratch(B, H, spans, N, D // H)
    before = query if previous is None else previous
    with torch.cuda.device_of(query):
        partial[(programs, spans, triton.cdiv(D // H, plan["BD"]))](
            query,
            memory.keys,
            memory.values,
            memory.lengths,
            score.v,
            before,
            query if score.filters is None else score.filters,
            query if score.projection is None else score.projection,
            energy,
            top,
            total,
            summed,
            T,
            N,
            span,
            *query.stride()[:2],
            *before.stride()[:2],
            **plan,
        )
        plan = configs.choose("combine", combine_plan(H, D // H), dtype, device)
        combine[(B * N * H, triton.cdiv(D // H, plan["BD"]))](
            memory.lengths,
            energy,
            top,
            total,
            summed,
            context,
            alignment,
            T,
            N,
            spans,
            *context.stride()[:2],
            *alignment.stride()[:2],
            **plan,
        )


ENGINE = eager.Engine(forward, locate, backward, deferred, cell, cell_backward)
