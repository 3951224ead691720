"""A bidirectional LSTM layer on a CPU in float32: ``csrc/lstm.cpp``, built on demand.

The functions are those of :mod:`las_kernels.lstm_eager`. Neither the number of threads nor the
other utterances of a batch or its padding change a bit of an utterance's output or of the gradient
of its input; padding is never read.
"""

import ctypes
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from las_kernels import lstm_eager
from las_kernels.cpu import native
from las_kernels.jit_build import Library, address
from las_kernels.lstm_eager import Gradients, OpTable, SavedActivations

_LAYER = struct.Struct("=23q")  # the struct Layer of the C++ source


def load(name: str = "lstm", flags: Sequence[str] = ()) -> ctypes.CDLL:
    """The library, built with these flags if need be; raises ``jit_build.BuildError``."""
    functions = ("las_lstm_forward", "las_lstm_backward")
    return native.load("lstm", {"las_lstm_size": _LAYER.size}, functions, name, flags)


_LIBRARY = Library("the CPU kernels", load, "the LSTM layers are PyTorch's on this CPU")
available = _LIBRARY.available


def forward(x: Tensor, lengths: Tensor, weights: list[Tensor]) -> SavedActivations:
    """As :func:`las_kernels.lstm_eager.forward`.

    Raises:
        ValueError: a length is not in 0..T.
        RuntimeError: the library cannot be built, or memory is short.
    """
    return forward_with(_LIBRARY(), x, lengths, weights)


def backward(
    dout: Tensor,
    x: Tensor,
    lengths: Tensor,
    weights: list[Tensor],
    saved: SavedActivations,
    wanted: bool,
) -> Gradients:
    """As :func:`las_kernels.lstm_eager.backward`; raises as :func:`forward`."""
    return backward_with(_LIBRARY(), dout, x, lengths, weights, saved, wanted)


OPS = OpTable(forward, backward)


def forward_with(
    library: ctypes.CDLL, x: Tensor, lengths: Tensor, weights: list[Tensor]
) -> SavedActivations:
    """:func:`forward` by a library of :func:`load`."""
    saved = lstm_eager.empty(x, weights[1].shape[1])
    _call(library, "las_lstm_forward", x, lengths, weights, saved, [])
    return saved


def backward_with(
    library: ctypes.CDLL,
    dout: Tensor,
    x: Tensor,
    lengths: Tensor,
    weights: list[Tensor],
    saved: SavedActivations,
    wanted: bool,
) -> Gradients:
    """:func:`backward` likewise."""
    S = weights[1].shape[1]
    dout = dout.contiguous()
    dgates = torch.empty_like(saved.gates)
    dx = x.new_empty(x.shape) if wanted else None
    dinput = [x.new_empty(4 * S, x.shape[2]) for _ in range(2)]
    dhidden = [x.new_empty(4 * S, S) for _ in range(2)]
    dbias = x.new_empty(2, 4 * S)
    written = [dout, dgates, dx, *dinput, *dhidden, dbias]
    _call(library, "las_lstm_backward", x, lengths, weights, saved, written)
    found: list[Tensor] = []
    for d in range(2):
        found += [dinput[d], dhidden[d], dbias[d].clone(), dbias[d].clone()]
    return Gradients(dx, found)


def _call(
    library: ctypes.CDLL,
    function: str,
    x: Tensor,
    lengths: Tensor,
    weights: list[Tensor],
    saved: SavedActivations,
    rest: list[Tensor | None],
) -> None:
    S = weights[1].shape[1]
    ahead, back = lstm_eager.directions(weights)
    # The list keeps its tensors until the function has returned.
    held = [x, lengths.long(), ahead.input, back.input, ahead.hidden, back.hidden]
    held += [way.input_bias + way.hidden_bias for way in (ahead, back)]
    solid = [tensor.contiguous() for tensor in held]
    given: list[Tensor | None] = [*solid, saved.gates, saved.cells, saved.out, *rest]
    addresses = [*map(address, given)]
    packed = _LAYER.pack(*x.shape, S, *addresses, *[0] * (19 - len(addresses)))
    status = getattr(library, function)(packed)
    native.check(status, lengths, x.shape[1], "the LSTM layer", least=0)
