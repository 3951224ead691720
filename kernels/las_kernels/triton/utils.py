# Compile-time arguments of kernels are capitals, and the compiler knows their types.
# ruff: noqa: ANN001, ANN201, N803
# mypy: disable-error-code="no-untyped-def"
"""What the Triton kernels share: tanh, rounding, which program has which row."""

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


def strides(*tensors: Any) -> list[int]:
    """Strides of the first two dimensions of each tensor; the others are contiguous."""
    return [stride for x in tensors for stride in x.stride()[:2]]


def positions(kernel: Any, *names: str) -> list[int]:
    """Where these arguments of a kernel stand."""
    return [kernel.arg_names.index(name) for name in names]


class Launcher:
    """A kernel that is launched again and again, with what compiled the first time.

    Triton looks at every argument of every launch, which takes most of a launch's time on the host.
    Here only those that differ are looked at: all others must stay as they are.

    Args:
        kernel: as decorated by ``triton.jit``.
        grid: programs.
        config: compile-time arguments, and options of the launch.
        varying: :func:`positions` of the tensors that differ from launch to launch.
    """

    def __init__(
        self, kernel: Any, grid: tuple[int, ...], config: dict[str, Any], varying: Sequence[int]
    ) -> None:
        self.kernel, self.config, self.varying = kernel, config, varying
        self.grid = (*grid, 1, 1)[:3]
        self.constants: list[Any] = []
        self.compiled: dict[Any, Any] = {}

    def __call__(self, *arguments: Any) -> None:
        """Launch with all arguments but the compile-time ones."""
        compiled = self.compiled.get(key := self._key(arguments))
        if compiled is None:
            self.compiled[key] = self.kernel[self.grid](*arguments, **self.config)
            return
        if not self.constants:  # the last arguments, also of what is compiled
            names = self.kernel.arg_names[len(arguments) :]
            self.constants = [self.config[name] for name in names]
        compiled[self.grid](*arguments, *self.constants)

    def compile(self, *arguments: Any) -> Any:
        """What Triton compiles for such arguments, or has compiled; nothing is launched."""
        compiled = self.compiled.get(key := self._key(arguments))
        if compiled is None:
            compiled = self.kernel.warmup(*arguments, grid=self.grid, **self.config)
            self.compiled[key] = compiled
        return compiled

    def _key(self, arguments: Sequence[Any]) -> Any:
        return tuple([(arguments[i].dtype, arguments[i].data_ptr() % 16) for i in self.varying])


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
