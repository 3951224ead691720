# Compile-time arguments of kernels are capitals, and the compiler knows their types.
# ruff: noqa: ANN001, ANN201, N803
# mypy: disable-error-code="no-untyped-def"
"""What the Triton kernels share: tanh, rounding, tile sizes."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
FRAMES = 16  # memory frames in a tile of the forward: the least that a tensor core takes
TILE = 32  # memory frames in a tile of the backward


def power(n: int, least: int = 1) -> int:
    """The power of two that holds n."""
    return max(least, triton.next_power_of_2(n))


def strides(*tensors: Tensor) -> list[int]:
    """Strides of the first two dimensions of each; the others are contiguous."""
    return [stride for x in tensors for stride in x.stride()[:2]]


def numerics(dtype: torch.dtype) -> dict[str, Any]:
    """How to compute for inputs of this dtype: a tanh, and a form of products on tensor cores.

    float32 keeps its accuracy (three TF32 products make one); for the half-precision types the
    errors of the short forms are below those of rounding the inputs.
    """
    half = dtype.itemsize < 4
    return {
        "APPROXIMATE": half and not INTERPRETED.value,  # the interpreter has no inline assembly
        "PRECISION": "tf32" if half else "tf32x3",
    }


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
def length_of(lengths, b, T):
    """Frames of utterance ``b``; a wrong length must not make a kernel read what is not there."""
    return tl.minimum(tl.maximum(tl.load(lengths + b), 1), T).to(tl.int32)


@triton.jit
def narrow(x, KIND: tl.constexpr):
    """Round float32 to the nearest of KIND; the interpreter's own cast to bfloat16 truncates."""
    if INTERPRETED and tl.bfloat16 == KIND:
        bits = x.to(tl.uint32, bitcast=True)
        x = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).to(tl.float32, bitcast=True)
    return x.to(KIND)
