"""The recurrence on a CPU, all steps in one call: ``csrc/sequence.cpp``, built on demand.

For additive scores, with or without location features, in float32. Neither the number of threads
nor the other utterances of a batch change a bit of an utterance's results; padding is not read.
"""

import ctypes
import struct

import torch
from torch import Tensor

from las_kernels import sequence
from las_kernels.cpu import native
from las_kernels.eager import ScoreGradients
from las_kernels.jit_build import Library, address
from las_kernels.types import Decoder, Masks, Memory, Score

_SEQUENCE = struct.Struct("=39q")  # the struct Sequence of the C++ source


def _load() -> ctypes.CDLL:
    functions = ("las_sequence_forward", "las_sequence_backward")
    return native.load("sequence", {"las_sequence_size": _SEQUENCE.size}, functions)


_LIBRARY = Library(
    "the CPU kernels", _load, "the decoder's steps are called one by one on this CPU"
)
available = _LIBRARY.available


def usable(x: Tensor, score: Score) -> bool:
    """Whether the functions can run for this score and the type of ``x``."""
    return score.v is not None and x.dtype == torch.float32 and available() is None


def forward(
    projected: Tensor, memory: Memory, decoder: Decoder, score: Score, masks: Masks
) -> sequence.SavedActivations:
    """As :func:`las_kernels.sequence.forward`.

    Raises:
        ValueError: a length is not in 1..T.
        RuntimeError: the library cannot be built, or memory is short.
    """
    B, U = projected.shape[:2]
    T, D = memory.values.shape[1:]
    L, S = len(decoder.recurrent_weights), decoder.recurrent_weights[0].shape[1]
    new = projected.new_empty
    saved = sequence.SavedActivations(
        new(B, U, L, S),
        new(B, U, D),
        new(B, U, score.heads, T),
        new(B, U, L, S),
        new(B, U, L, 4 * S),
    )
    _call("las_sequence_forward", projected, saved, memory, decoder, score, masks, [])
    return saved


def backward(
    dhidden: Tensor | None,
    dcontexts: Tensor | None,
    dalignments: Tensor | None,
    saved: sequence.SavedActivations,
    memory: Memory,
    decoder: Decoder,
    score: Score,
    masks: Masks,
) -> sequence.Steps:
    """Phases 1 and 2 of :func:`las_kernels.sequence.backward`; raises as :func:`forward`."""
    new = saved.gates.new_empty
    B, U = saved.contexts.shape[:2]
    dgates, dfed = torch.empty_like(saved.gates), torch.empty_like(saved.contexts)
    dqueries, dkeys = new(B, U, memory.keys.shape[2]), new(memory.keys.shape)
    of_score = [None if x is None else new(x.shape) for x in score[:3]]
    v, filters, projection = of_score
    outer = [None if x is None else x.contiguous() for x in (dhidden, dcontexts, dalignments)]
    rest = [*outer, dgates, dqueries, dfed, dkeys, v, filters, projection]
    _call("las_sequence_backward", None, saved, memory, decoder, score, masks, rest)
    return sequence.Steps(dgates, dqueries, dfed, ScoreGradients(dkeys, v, filters, projection))


def _call(
    function: str,
    projected: Tensor | None,
    saved: sequence.SavedActivations,
    memory: Memory,
    decoder: Decoder,
    score: Score,
    masks: Masks,
    rest: list[Tensor | None],
) -> None:
    keys, values, lengths = memory
    lists = [decoder.recurrent_weights, decoder.input_weights, decoder.biases[1:]]
    # These lists keep their tensors until the function has returned.
    solid = [[x.contiguous() for x in weights] for weights in lists]
    pointers = [(ctypes.c_void_p * len(own))(*[x.data_ptr() for x in own]) for own in solid]
    before = [keys, values, lengths.long(), score.v, score.filters, score.projection, *masks]
    before += [decoder.context_weight, decoder.query_weight]
    held = [None if x is None else x.contiguous() for x in (*before, projected)]
    C, W = (0, 0) if score.filters is None else score.filters.shape
    L, S = saved.hidden.shape[2:]
    sizes = (*saved.contexts.shape[:2], *keys.shape[1:], values.shape[2], score.heads, C, W, L, S)
    addresses = [*map(address, (*held, *saved, *rest))]
    addresses[10:10] = [ctypes.addressof(own) for own in pointers]
    packed = _SEQUENCE.pack(*sizes, *addresses, *[0] * (29 - len(addresses)))
    status = getattr(_LIBRARY(), function)(packed)
    native.check(status, lengths, keys.shape[1], "the decoder's sequence")
