# Compile-time arguments of kernels are capitals, and the compiler knows their types.
# ruff: noqa: ANN001, ANN201, N803
# mypy: disable-error-code="no-untyped-def"
"""What the Triton kernels share: tanh, rounding, which program has which row."""

import triton
import triton.language as tl
from torch import Tensor

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


def strides(*tensors: Tensor) -> list[int]:
    """Strides of the first two dimensions of each; the others are contiguous."""
    return [stride for x in tensors for stride in x.stride()[:2]]


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
def sigmoid(x):
    """Exact to 1e-7."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def query_of_program(N, H: tl.constexpr):
    """Utterance, query and head of a program; axis 0 counts them, heads quickest."""
    h = tl.program_id(0) % H
    n = tl.program_id(0) // H % N
    b = (tl.program_id(0) // (H * N)).to(tl.int64)
    return b, n, h


@triton.jit
def length_of(lengths, b, T):
    """Frames of utterance ``b``; a wrong length must not make a kernel read what is not there."""
    return tl.minimum(tl.maximum(tl.load(lengths + b), 1), T).to(tl.int32)


@triton.jit
def arrives_last(arrivals, programs):
    """Whether all but this one of so many programs have come here; what they wrote is then seen.

    The one that is last leaves the counter zero, for the next launch.
    """
    tl.debug_barrier()  # the atomic, by one thread, releases what all threads wrote
    last = tl.atomic_add(arrivals, 1, sem="acq_rel", scope="gpu") == programs - 1
    if last:
        tl.store(arrivals, 0)
    return last


@triton.jit
def narrow(x, KIND: tl.constexpr):
    """Round float32 to the nearest of KIND; the interpreter's own cast to bfloat16 truncates."""
    if INTERPRETED and tl.bfloat16 == KIND:
        bits = x.to(tl.uint32, bitcast=True)
        x = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).to(tl.float32, bitcast=True)
    return x.to(KIND)
