# Compile-time arguments of kernels are capitals, and the compiler knows their types.
# ruff: noqa: ANN001, ANN201, N803
# mypy: disable-error-code="no-untyped-def"
"""Location features (Triton): the alignment of the step before, convolved and projected.

Two stages inside a kernel: to C channels in a tile of frames, then to the columns of the score.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from las_kernels.triton import configs
from las_kernels.triton.utils import query_of_program, strides


@triton.jit
def location_features(
    previous,
    filters,
    t,
    T,
    C: tl.constexpr,
    W: tl.constexpr,
    BC: tl.constexpr,
    BW: tl.constexpr,
    BT: tl.constexpr,
    PRECISION: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """Convolve one alignment [T] with filters [C, W] at frames ``t`` [BT]: [BT, BC]."""
    features = tl.zeros((BT, BC), tl.float32)
    if UNROLL:
        for start in tl.static_range(0, W, BW):
            features = add_taps(features, previous, filters, t, T, start, C, W, BC, BW, PRECISION)
    else:
        for start in range(0, W, BW):
            features = add_taps(features, previous, filters, t, T, start, C, W, BC, BW, PRECISION)
    return features


@triton.jit
def add_taps(
    features,
    previous,
    filters,
    t,
    T,
    start,
    C: tl.constexpr,
    W: tl.constexpr,
    BC: tl.constexpr,
    BW: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Features [BT, BC] with what the taps from ``start`` on add."""
    c = tl.arange(0, BC)
    tap = start + tl.arange(0, BW)
    source = t[:, None] + tap[None, :] - W // 2
    inside = (source >= 0) & (source < T) & (tap < W)[None, :]
    window = tl.load(previous + source, mask=inside, other=0.0).to(tl.float32)
    known = (tap < W)[:, None] & (c < C)[None, :]
    weight = tl.load(filters + c[None, :] * W + tap[:, None], mask=known, other=0.0)
    return tl.dot(window, weight.to(tl.float32), features, input_precision=PRECISION)


@triton.jit
def add_location(
    hidden,
    features,
    projection,
    a,
    AH: tl.constexpr,
    C: tl.constexpr,
    BC: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add the projected features [BT, BC] to ``hidden`` [BT, BA] at columns ``a`` [BA]."""
    c = tl.arange(0, BC)
    known = (c < C)[:, None] & (a < AH)[None, :]
    weight = tl.load(projection + a[None, :] * C + c[:, None], mask=known, other=0.0)
    return tl.dot(features, weight.to(tl.float32), hidden, input_precision=PRECISION)


@triton.jit(do_not_specialize=["T", "N", "previous_b", "previous_n"])
def location_conv_kernel(
    previous,
    filters,
    features,
    T,
    N,
    previous_b,
    previous_n,
    H: tl.constexpr,
    C: tl.constexpr,
    W: tl.constexpr,
    BC: tl.constexpr,
    BW: tl.constexpr,
    BT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Location features of a tile of frames of one alignment."""
    b, n, h = query_of_program(N, H)
    t = tl.program_id(1) * BT + tl.arange(0, BT)
    previous += b * previous_b + n * previous_n + h * T
    found = location_features(previous, filters, t, T, C, W, BC, BW, BT, PRECISION, False)
    c = tl.arange(0, BC)
    features += ((b * N + n) * H + h) * C * T
    known = (t < T)[:, None] & (c < C)[None, :]
    out = c[None, :] * T + t[:, None]
    tl.store(features + out, found, mask=known)


def forward(previous: Tensor, filters: Tensor) -> Tensor:
    """As :func:`las_kernels.eager.location_conv`; float32, for every gradient feels rounding."""
    B, N, H, T = previous.shape
    C, W = filters.shape
    features = torch.empty(B, N, H, C, T, dtype=torch.float32, device=previous.device)
    config = configs.location_conv_config(H, (C, W), previous.dtype)
    with torch.cuda.device_of(previous):
        location_conv_kernel[(B * N * H, triton.cdiv(T, config["BT"]))](
            previous, filters, features, T, N, *strides(previous), **config
        )
    return features
