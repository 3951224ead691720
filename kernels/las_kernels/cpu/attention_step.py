"""Attention for search on a CPU: ``csrc/attention_step.cpp``, built on demand.

For inference: it has no backward. Its results do not depend on the number of threads, nor on the
other utterances of a batch or its padding, to the bit.
"""

import contextlib
import ctypes
import mmap
import struct
from typing import NamedTuple

import torch
from torch import Tensor

from las_kernels import reference
from las_kernels.cpu import native
from las_kernels.jit_build import Library, address
from las_kernels.types import Memory, Score

_HUGE = 1 << 21  # bytes of a huge page
_PROBLEM = struct.Struct("=8qd10q")  # the struct Problem of the C++ source


def _load() -> ctypes.CDLL:
    library = native.load("attention_step", {"las_problem_size": _PROBLEM.size}, ["las_attend"])
    library.las_lstm_cell.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 3
    library.las_lstm_cell.restype = None
    library.las_product.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 5
    library.las_product.restype = None
    library.las_panel.restype = ctypes.c_int64
    return library


_LIBRARY = Library("the CPU kernel", _load, "attention runs in plain PyTorch on this CPU")
available = _LIBRARY.available


def attend(
    query: Tensor, memory: Memory, score: Score, previous: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One step of attention; the contract of ``reference.attend``.

    Runs the reference itself where a gradient is wanted and for dtypes other than float32. Tensors
    that are not contiguous are copied first. Padding frames are never read (save in ``previous``),
    so that what lies there, NaN included, has no effect.

    Args:
        query: [B, N, A].
        memory: keys [B, T, A], values [B, T, D], lengths [B], each 1..T.
        score: the score function.
        previous: [B, N, H, T]; location-aware scores need it.

    Returns:
        context [B, N, D] and alignment [B, N, H, T], zero on padding.

    Raises:
        ValueError: a shape, device or length is wrong; the message names the argument.
        RuntimeError: the kernel is not `available`, or memory is short.
    """
    v, filters, projection, heads, scale = score
    if v is None:
        filters = None
    if filters is None:
        projection = previous = None
    elif projection is None or previous is None:
        raise ValueError("location-aware attention needs `previous` and `projection`")
    keys, values, lengths = memory
    given = [query, keys, values]
    given += [tensor for tensor in (v, filters, projection, previous) if tensor is not None]
    for tensor in given:
        if tensor.dtype != torch.float32:
            return reference.attend(query, memory, score, previous)
    if torch.is_grad_enabled():
        for tensor in given:
            if tensor.requires_grad:
                return reference.attend(query, memory, score, previous)
    library = _LIBRARY()

    B, N, A, T, D, C, W = _sizes(query, memory, score, previous)
    if not lengths.is_cpu or any(not tensor.is_cpu for tensor in given):
        raise ValueError("the CPU kernel needs every tensor on the CPU")
    if lengths.dtype != torch.int64:
        lengths = lengths.long()
    # Each name keeps its tensor alive until the kernel has returned.
    query, keys, values = query.contiguous(), keys.contiguous(), values.contiguous()
    lengths = lengths.contiguous()
    v = None if v is None else v.contiguous()
    filters = None if filters is None else filters.contiguous()
    projection = None if projection is None else projection.contiguous()
    previous = None if previous is None else previous.contiguous()
    context = query.new_empty(B, N, D)
    alignment = query.new_empty(B, N, heads, T)
    problem = _PROBLEM.pack(
        *(B, N, T, A, D, heads, C, W, scale),
        *map(address, (query, keys, values, lengths, v, filters, projection, previous)),
        *map(address, (context, alignment)),
    )
    status = library.las_attend(problem)
    native.check(status, lengths, T, "the attention step")
    return context, alignment


@torch.no_grad()
def forward(
    query: Tensor,
    memory: Memory,
    score: Score,
    previous: Tensor | None,
    context: Tensor,
    alignment: Tensor,
) -> None:
    """As :func:`las_kernels.eager.forward`: into ``context`` and ``alignment``."""
    found = attend(query, memory, score, previous)
    context.copy_(found[0])
    alignment.copy_(found[1])


def lstm_cell(gates: Tensor, before: Tensor, cell: Tensor, hidden: Tensor) -> None:
    """LSTM cell for search: as :func:`las_kernels.eager.lstm_cell`, but the gates stay as they are.

    Args:
        gates: pre-activations [M, 4S], contiguous float32.
        before: cell of the step before [M, S]; each row contiguous, as in the next two.
        cell: [M, S], written; its rows lie as those of ``before``.
        hidden: [M, S], written; likewise.

    Raises:
        ValueError: a shape, dtype or layout is another.
        RuntimeError: the kernel is not `available`.
    """
    library = _LIBRARY()
    M, S = before.shape
    stride = before.stride(0)
    right = gates.is_contiguous() and gates.shape == (M, 4 * S)
    for tensor in (before, cell, hidden):
        right = right and tensor.shape == (M, S) and tensor.stride() == (stride, 1)
    for tensor in (gates, before, cell, hidden):
        right = right and tensor.dtype == torch.float32 and tensor.is_cpu
    if not right:
        raise ValueError("the cell needs float32 gates [M, 4S] and three [M, S] laid out alike")
    pointers = (gates.data_ptr(), before.data_ptr(), cell.data_ptr(), hidden.data_ptr())
    library.las_lstm_cell(*pointers, M, S, stride)


class Panels(NamedTuple):
    """A weight [N, K] as :func:`product` reads it; of :func:`panels`."""

    data: Tensor  # [ceil(N/width), K, width], the width the processor's
    outputs: int  # N


def panels(weight: Tensor) -> Panels:
    """Rearrange a weight [N, K] without gradient.

    Raises:
        RuntimeError: the kernel is not `available`.
    """
    library = _LIBRARY()
    width = library.las_panel()
    N, K = weight.shape
    padded = torch.nn.functional.pad(weight.detach(), (0, 0, 0, -N % width))
    data = _floats(padded.numel()).view(-1, K, width)
    data.copy_(padded.view(-1, width, K).transpose(1, 2))
    return Panels(data, N)


def _floats(count: int) -> Tensor:
    """Memory for floats, in huge pages where they are many and the system has such pages.

    All of a weight is read in every step; with pages of 4 KiB a busy processor then spends up to
    half of the time on finding them.
    """
    if 4 * count < _HUGE // 2 or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(count)
    size = (-(-4 * count // _HUGE) + 1) * _HUGE  # whole pages, wherever the first begins
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    floats = torch.frombuffer(memory, dtype=torch.float32)
    begin = -floats.data_ptr() % _HUGE // 4
    return floats[begin : begin + count]


def product(x: Tensor, weight: Panels, start: Tensor) -> Tensor:
    """``start + x weight^T``; what other rows there are changes no bit of a row.

    Args:
        x: [M, K] float32, each row contiguous.
        weight: [N, K].
        start: a bias [N], or [M, N], contiguous.

    Returns:
        [M, N].

    Raises:
        ValueError: a shape, dtype or layout is another.
        RuntimeError: the kernel is not `available`.
    """
    library = _LIBRARY()
    M, K = x.shape
    N = weight.outputs
    shared = start.ndim == 1
    right = weight.data.shape[1] == K and (x.stride(1) == 1 or K == 1)
    right = right and start.is_contiguous() and start.shape == ((N,) if shared else (M, N))
    for tensor in (x, weight.data, start):
        right = right and tensor.dtype == torch.float32 and tensor.is_cpu
    if not right:
        raise ValueError("a product needs float32 x [M, K] and a start of [N] or [M, N]")
    out = x.new_empty(M, N)
    pointers = (x.data_ptr(), weight.data.data_ptr(), start.data_ptr(), out.data_ptr())
    library.las_product(*pointers, M, K, N, x.stride(0), 0 if shared else N)
    return out


def _sizes(
    query: Tensor, memory: Memory, score: Score, previous: Tensor | None
) -> tuple[int, int, int, int, int, int, int]:
    """B, N, A, T, D, C, W after checking them: the kernel trusts them."""
    keys, values, lengths = memory
    for name, tensor in (("query", query), ("keys", keys), ("values", values)):
        if tensor.ndim != 3:
            raise ValueError(f"{name} has {tensor.ndim} dimensions, not 3")
    B, N, A = query.shape
    T, D = values.shape[1:]
    heads = score.heads
    if heads < 1 or A % heads or D % heads or not A or not D:
        raise ValueError(f"heads: {heads} does not divide the widths {A} and {D}")
    C = W = 0
    expected = [
        ("keys", keys, (B, T, A)),
        ("values", values, (B, T, D)),
        ("lengths", lengths, (B,)),
    ]
    if score.v is not None:
        expected.append(("v", score.v, (A,)))
    if previous is not None and score.filters is not None and score.projection is not None:
        if score.filters.ndim != 2 or score.filters.shape[1] % 2 == 0:
            raise ValueError("filters: not [C, W] with an odd W")
        C, W = score.filters.shape
        expected.append(("projection", score.projection, (A, C)))
        expected.append(("previous", previous, (B, N, heads, T)))
    for name, tensor, shape in expected:
        if tensor.shape != shape:
            raise ValueError(f"{name} has the shape {list(tensor.shape)}, not {list(shape)}")
    return B, N, A, T, D, C, W
