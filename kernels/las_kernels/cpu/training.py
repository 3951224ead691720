"""Attention's backward and the LSTM cell on a CPU: ``csrc/training.cpp``, built on demand.

The functions are those of :mod:`las_kernels.eager`, which they call for other types than float32.
Their results do not depend on the number of threads, to the bit, and padding is never read.
"""

import ctypes
import struct

import torch
from torch import Tensor

from las_kernels import eager
from las_kernels.cpu import native
from las_kernels.eager import ScoreGradients
from las_kernels.jit_build import Library, address
from las_kernels.types import Memory, Score

_PROBLEM = struct.Struct("=8qd6q30q4q")  # the structs of the C++ source
_CELL = struct.Struct("=2q24q")
_NONE = (0, 0, 0)


def _load() -> ctypes.CDLL:
    sizes = {"las_problem_size": _PROBLEM.size, "las_lstm_cell_size": _CELL.size}
    functions = ("las_backward", "las_backward_dkv", "las_lstm_cell", "las_lstm_cell_backward")
    return native.load("training", sizes, functions)


_LIBRARY = Library("the CPU kernels", _load, "training runs in plain PyTorch on this CPU")
available = _LIBRARY.available


def backward(
    dcontext: Tensor,
    dalignment: Tensor | None,
    alignment: Tensor,
    query: Tensor,
    memory: Memory,
    score: Score,
    features: Tensor | None,
    denergy: Tensor,
    dquery: Tensor,
    dfeatures: Tensor | None,
) -> Tensor | None:
    """As :func:`las_kernels.eager.backward`.

    Raises:
        ValueError: a length is not in 1..T.
        RuntimeError: the library cannot be built, or memory is short.
    """
    if query.dtype != torch.float32:
        return eager.backward(
            dcontext,
            dalignment,
            alignment,
            query,
            memory,
            score,
            features,
            denergy,
            dquery,
            dfeatures,
        )
    dprevious = None
    if score.v is not None and score.filters is not None:
        dprevious = torch.empty(alignment.shape)
    given = {"dalignment": dalignment, "features": features, "dfeatures": dfeatures}
    problem = _Problem(
        memory,
        score,
        query.shape[1],
        query=query,
        dcontext=dcontext,
        alignment=alignment,
        denergy=denergy,
        dquery=dquery,
        dprevious=dprevious,
        **given,
    )
    problem.call("las_backward")
    return dprevious


def backward_dkv(
    queries: Tensor,
    denergy: Tensor,
    memory: Memory,
    score: Score,
    previous: Tensor | None,
    features: Tensor | None,
    dfeatures: Tensor | None,
) -> ScoreGradients:
    """As :func:`las_kernels.eager.backward_dkv`.

    Raises:
        ValueError: a length is not in 1..T.
        RuntimeError: the library cannot be built, or memory is short.
    """
    # Without tanh it is one matrix product.
    if score.v is None or queries.dtype != torch.float32:
        return eager.backward_dkv(queries, denergy, memory, score, previous, features, dfeatures)
    dkeys, dv = torch.empty(memory.keys.shape), torch.empty(score.v.shape)
    dfilters = dprojection = None
    if score.filters is not None and score.projection is not None:
        dfilters = torch.empty(score.filters.shape)
        dprojection = torch.empty(score.projection.shape)
    problem = _Problem(
        memory,
        score,
        queries.shape[1],
        query=queries,
        denergy=denergy,
        previous=previous,
        features=features,
        dfeatures=dfeatures,
    )
    problem.call("las_backward_dkv", dkeys, dv, dfilters, dprojection)
    return ScoreGradients(dkeys, dv, dfilters, dprojection)


def lstm_cell(gates: Tensor, before: Tensor | None, cell: Tensor, hidden: Tensor) -> None:
    """As :func:`las_kernels.eager.lstm_cell`."""
    if gates.dtype != torch.float32:
        return eager.lstm_cell(gates, before, cell, hidden)
    views = [*map(_row, (gates, before, cell, hidden)), *[_NONE] * 4]
    _LIBRARY().las_lstm_cell(_pack_cell(cell, views))
    return None


def lstm_cell_backward(
    dhidden: Tensor,
    dcell: Tensor | None,
    gates: Tensor,
    before: Tensor | None,
    cell: Tensor,
    dgates: Tensor,
) -> Tensor:
    """As :func:`las_kernels.eager.lstm_cell_backward`."""
    if gates.dtype != torch.float32:
        return eager.lstm_cell_backward(dhidden, dcell, gates, before, cell, dgates)
    dhidden = dhidden if dhidden.stride(-1) == 1 else dhidden.contiguous()
    dbefore = torch.empty(cell.shape)
    views = [_row(gates), _row(before), _row(cell), _NONE]
    views += [*map(_row, (dhidden, dcell, dgates, dbefore))]
    _LIBRARY().las_lstm_cell_backward(_pack_cell(cell, views))
    return dbefore


def _pack_cell(cell: Tensor, views: list[tuple[int, int, int]]) -> bytes:
    B, S = cell.shape
    return _CELL.pack(B, S, *(number for view in views for number in view))


_VIEWS = (
    "query",
    "dcontext",
    "dalignment",
    "alignment",
    "features",
    "previous",
    "denergy",
    "dquery",
    "dfeatures",
    "dprevious",
)


class _Problem:
    """The arguments of a call, and the tensors that they point into."""

    def __init__(self, memory: Memory, score: Score, steps: int, **views: Tensor | None) -> None:
        keys, values, lengths = memory
        B, T, A = keys.shape
        v, filters, projection, heads, scale = score
        if v is None:
            filters = projection = None
        C, W = (0, 0) if filters is None else filters.shape
        self.lengths, self.frames = lengths.long().contiguous(), T
        self.held = [
            None if x is None else x.contiguous() for x in (keys, values, v, filters, projection)
        ]
        keys_at, values_at, *weights_at = map(address, self.held)
        self.held += views.values()
        head = (B, steps, T, A, values.shape[2], heads, C, W, scale)
        numbers = [number for name in _VIEWS for number in _row(views.get(name))]
        lengths_at = self.lengths.data_ptr()
        self.packed = (*head, keys_at, values_at, lengths_at, *weights_at, *numbers)

    def call(self, function: str, *outputs: Tensor | None) -> None:
        """Call a function of the library that writes these contiguous outputs, 4 at most."""
        addresses = [*map(address, outputs)]
        packed = _PROBLEM.pack(*self.packed, *addresses, *[0] * (4 - len(addresses)))
        status = getattr(_LIBRARY(), function)(packed)
        native.check(status, self.lengths, self.frames, "the backward of attention")


def _row(x: Tensor | None) -> tuple[int, int, int]:
    """Address and strides of the first two dimensions, the others being contiguous."""
    if x is None:
        return _NONE
    assert x.dtype == torch.float32, x.dtype
    assert x[0, 0].is_contiguous() if x.ndim > 2 else x.stride(1) == 1 or x.shape[1] == 1
    return x.data_ptr(), x.stride(0), x.stride(1)
