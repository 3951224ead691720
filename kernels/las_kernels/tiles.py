"""What the Triton kernels share: tanh, location features in a tile, and tile sizes."""

import torch
import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
FRAMES = 16  # memory frames in a tile: the least that a tensor core takes


def power(n: int, least: int = 1) -> int:
    """The power of two that holds n."""
    return max(least, triton.next_power_of_2(n))


def numerics(dtype: torch.dtype) -> dict[str, object]:
    """How to compute for inputs of this dtype: a tanh, and a form of products on tensor cores.

    float32 keeps its accuracy (three TF32 products make one); for the half-precision types the
    errors of the short forms are below those of rounding the inputs.
    """
    half = dtype.itemsize < 4
    return {
        "APPROXIMATE": half and not INTERPRETED.value,  # the interpreter has no inline assembly
        "PRECISION": "tf32" if half else "tf32x3",
    }


def location_tiles(channels: int, taps: int) -> dict[str, int]:
    """Sizes that ``location_features`` needs."""
    return {"C": channels, "W": taps, "BC": power(channels, 16), "BW": min(power(taps, 16), 64)}


NO_LOCATION = {"LOCATION": False, "C": 1, "W": 1, "BC": 16, "BW": 16}


@triton.jit
def tanh(x, APPROXIMATE: tl.constexpr):
    """Exact to 1e-7, or the instruction of the GPU (exact to 5e-4 relative)."""
    if APPROXIMATE:
        return tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=r,r", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:  # noqa: RET505 (a compile-time branch)
        return 1.0 - 2.0 / (tl.exp(2.0 * x) + 1.0)


@triton.jit
def narrow(x, KIND: tl.constexpr):
    """Round float32 to the nearest of KIND; the interpreter's own cast to bfloat16 truncates."""
    if INTERPRETED and KIND == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        x = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).to(tl.float32, bitcast=True)
    return x.to(KIND)


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
):
    """Convolve one alignment [T] with filters [C, W] at frames ``t`` [BT]: [BT, BC]."""
    c = tl.arange(0, BC)
    features = tl.zeros((BT, BC), tl.float32)
    for start in range(0, W, BW):
        tap = start + tl.arange(0, BW)
        source = t[:, None] + tap[None, :] - W // 2
        inside = (source >= 0) & (source < T) & (tap < W)[None, :]
        window = tl.load(previous + source, mask=inside, other=0.0).to(tl.float32)
        known = (tap < W)[:, None] & (c < C)[None, :]
        weight = tl.load(filters + c[None, :] * W + tap[:, None], mask=known, other=0.0)
        features += tl.dot(window, weight.to(tl.float32), input_precision=PRECISION)
    return features


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
