"""The recurrence on a CPU, all steps in one call: ``csrc/sequence.cpp``, built on demand.

For additive scores, with or without location features, in float32. Neither the number of threads
nor the other utterances of a batch change a bit of an utterance's results; padding is not read.
"""

import ctypes
import functools
import logging
import struct

import torch
from torch import Tensor

from las_kernels import jit_build, sequence
from las_kernels.eager import ScoreGradients
from las_kernels.types import Decoder, Masks, Memory, Score

log = logging.getLogger(__name__)

_SEQUENCE = struct.Struct("=39q")  # the struct Sequence of the C++ source


def available() -> str | None:
    """None where the functions can run, else the reason in one line; the first call may build."""
    result = _library()
    return result if isinstance(result, str) else None


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
    library = _library()
    if isinstance(library, str):
        raise RuntimeError(f"the CPU kernels cannot run: {library}")
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
    addresses = [0 if x is None else x.data_ptr() for x in (*held, *saved, *rest)]
    addresses[10:10] = [ctypes.addressof(own) for own in pointers]
    packed = _SEQUENCE.pack(*sizes, *addresses, *[0] * (29 - len(addresses)))
    status = getattr(library, function)(packed)
    if status > 0:
        length = int(lengths[status - 1])
        raise ValueError(f"lengths[{status - 1}] is {length}, not in 1..{keys.shape[1]}")
    if status < 0:
        raise RuntimeError("not enough memory for the decoder's sequence")


@functools.cache
def _library() -> ctypes.CDLL | str:
    try:
        step = jit_build.cpu_step(jit_build.CPU_SOURCES / "sequence.cpp")
        sizes = {"las_sequence_size": _SEQUENCE.size}
        library = jit_build.load("cpu_sequence", [step], jit_build.torch_link(), sizes)
    except jit_build.BuildError as error:
        log.warning("the decoder's steps are called one by one on this CPU: %s", error)
        return str(error)
    for name in ("las_sequence_forward", "las_sequence_backward"):
        function = getattr(library, name)
        function.argtypes = [ctypes.c_char_p]
        function.restype = ctypes.c_int64
    return library
