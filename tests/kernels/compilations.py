# ruff: noqa: N803 (letters as in las_kernels.reference)
"""Counts what Triton would compile in a training and a search: no GPU and no compiler needed.

    python tests/kernels/compilations.py

Prints one line a kernel: its name, and how many times it would be compiled. A kernel is compiled
for each type, alignment and special value of its arguments that Triton has not seen yet.
``TRITON_INTERPRET`` must not be set.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from las_kernels import sequence
from las_kernels.backends import BACKENDS
from las_kernels.types import Decoder, Masks, Memory, Score

OPS = BACKENDS["triton"].ops()
A, D, S, C, W = 64, 96, 64, 4, 15


class Driver:
    """Says that it is an H100's, which is all that is asked of it before a compilation."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


class Launched:
    """In the place of a compiled kernel; its launch does nothing."""

    function = packed_metadata = None

    def launch_metadata(self, *_: object) -> None:
        pass

    def run(self, *_: object) -> None:
        pass

    def __getitem__(self, grid: object) -> Callable[..., None]:
        return lambda *_: None


def drawn(location: bool, B: int, T: int, dtype: torch.dtype) -> tuple[Memory, Score]:
    def draw(*size: int) -> Tensor:
        return torch.randn(size).to(dtype)

    memory = Memory(draw(B, T, A), draw(B, T, D), torch.full((B,), T))
    filters, projection = (draw(C, W), draw(A, C)) if location else (None, None)
    return memory, Score(draw(A), filters, projection)


def train(location: bool, B: int, T: int, U: int, dtype: torch.dtype) -> None:
    """The forward and the backward of one batch."""

    def draw(*size: int) -> Tensor:
        return torch.randn(size).to(dtype)

    memory, score = drawn(location, B, T, dtype)
    empty = draw(0)
    recurrent, query = [draw(4 * S, S)], draw(A, S)
    decoder = Decoder(empty, draw(4 * S, D), [], recurrent, [empty], query)
    given = (memory, decoder, score, Masks())
    kept = sequence.forward(OPS, draw(B, U, 4 * S), *given)
    outer = [torch.randn_like(x) for x in kept[:3]]
    sequence.backward(OPS, *outer, kept, *given)


def search(location: bool, B: int, N: int, T: int, dtype: torch.dtype) -> None:
    """One step of N beams."""
    memory, score = drawn(location, B, T, dtype)
    query = torch.randn(B, N, A).to(dtype)
    context, alignment = query.new_empty(B, N, D), query.new_empty(B, N, 1, T)
    OPS.forward(query, memory, score, torch.rand_like(alignment), context, alignment)


def counted() -> Iterator[tuple[str, int]]:
    """Names of the kernels, and how often they were compiled since the last call."""
    driver.set_active(Driver())
    keys = defaultdict(set)

    def compile_nothing(self: JITFunction[Any], key: Any, *_: object) -> Launched:
        keys[self._fn_name].add(key)
        self.device_caches[0][0][key] = launched = Launched()
        return launched

    JITFunction._do_compile = compile_nothing
    for location in (False, True):
        for B, T, U in ((3, 250, 5), (4, 249, 3), (2, 256, 2), (16, 97, 16), (1, 1000, 1)):
            train(location, B, T, U, torch.bfloat16)
        for B, T in ((1, 80), (1, 81), (5, 250), (16, 100)):
            search(location, B, 8, T, torch.bfloat16)
    for name, found in keys.items():
        yield name.rsplit(".", 1)[-1], len(found)


if __name__ == "__main__":
    for name, count in counted():
        print(name, count)
