"""A whole sequence of the decoder in one launch on an NVIDIA GPU: ``csrc/persistent_decoder.cu``.

The teacher-forced recurrence, with all that the three-phase backward wants, and greedy search to
the end of every utterance. Weights stay in shared memory over the steps, as far as they fit; all
blocks of the GPU wait for each other a few times a step (a cooperative launch). One LSTM layer.
"""

import ctypes
import struct
from typing import NamedTuple

import torch
from torch import Tensor

from las_kernels import jit_build
from las_kernels.cuda import attention_step as cuda_step
from las_kernels.cuda.attention_step import (
    BATCH_TILE,
    BATCH_TILES,
    ROW_TILES,
    THREADS,
    WARP_ROWS,
)
from las_kernels.jit_build import address
from las_kernels.reference import initial_alignment
from las_kernels.sequence import SavedActivations
from las_kernels.types import Decoder, Masks, Memory, Score

_NUMBERS = struct.Struct("=16q")  # the members of DecoderParams before its matrices, and after them
_SLICE = struct.Struct("=q5q")
PARAMS_BYTES = 2 * _NUMBERS.size + 4 * _SLICE.size + cuda_step.PARAMS.size
# Bytes of the sums of all warps on tensor cores.
_PARTS = 4 * (THREADS // 32) * (16 * ROW_TILES) * (BATCH_TILE * BATCH_TILES)
_CHUNK = 1024  # most columns of the inputs in shared memory at once


_LIBRARY = jit_build.Library(
    "the CUDA decoder",
    lambda: cuda_step.built("persistent_decoder", PARAMS_BYTES),
    "persistent_decoder does not run on this GPU",
)
available = _LIBRARY.available


class Readout(NamedTuple):
    """What search does with a step's output and context, as ``las.model.speller.Speller``."""

    embedded: Tensor  # [V, 4S] what each character adds to the gates, the bias with it
    weight: Tensor  # [S, S + D], then tanh
    bias: Tensor  # [S]
    output: Tensor  # [V, S]
    output_bias: Tensor  # [V]


class Found(NamedTuple):
    """Greedy search: what was written until all utterances had ended, n steps."""

    ids: Tensor  # [B, n]
    log_probs: Tensor  # [B, n]
    alignments: Tensor  # [B, n, H, T]


class Plan(NamedTuple):
    """How the sequence is shared by the blocks."""

    blocks: int
    groups: tuple[int, int, int, int]  # of four rows a block: gates, query, readout, output
    at: tuple[int, int, int, int]  # elements before its rows in shared memory; -1: not there
    strides: tuple[int, int, int, int]  # elements from one of these rows to the next
    resident: int  # bytes of weights in shared memory
    chunk: int
    shared: int  # bytes in all


def launch_plan(
    sizes: tuple[int, int, int, int],
    itemsize: int,
    processors: int,
    limit: int,
    attention_bytes: int,
    tensor_cores: bool = False,
) -> Plan:
    """Share rows out and keep as many of the matrices in shared memory as fit.

    Args:
        sizes: D, S, A, V; V is 0 for teacher forcing.
        itemsize: of the weights.
        processors: blocks that can be resident at once, one a multiprocessor.
        limit: bytes of shared memory a block can have.
        attention_bytes: what the stages of attention need of it.
        tensor_cores: whether products are made on tensor cores.
    """
    D, S, A, V = sizes
    matrices = [(4 * S, D + S), (A, S), (S if V else 0, S + D), (V, S)]
    groups = [-(-rows // (WARP_ROWS * processors)) for rows, _ in matrices]
    widest = max(columns for _, columns in matrices)
    chunk = min(-(-widest // 4) * 4, _CHUNK)
    # Neighbouring rows half a turn of the banks apart: a warp reads eight rows at once.
    strides = [columns for _, columns in matrices]
    if tensor_cores:
        strides = [n + (64 - n * itemsize) % 128 // itemsize for n in strides]
    scratch = max(_PARTS if tensor_cores else 4 * BATCH_TILE * chunk, attention_bytes)
    room = limit - scratch
    at, used = [-1] * len(matrices), 0
    for i, (count, stride) in enumerate(zip(groups, strides, strict=True)):
        size = count * WARP_ROWS * stride * itemsize
        if 0 < size <= room - used:
            at[i] = used // itemsize
            used += -(-size // 128) * 128
    shares = (tuple(groups), tuple(at), tuple(strides))
    return Plan(processors, *shares, used, chunk, used + scratch)  # type: ignore[arg-type]


class LaunchContext(NamedTuple):
    """Where it runs."""

    library: ctypes.CDLL
    processors: int
    limit: int  # bytes of shared memory a block can have
    stream: int


def _launch_context(device: torch.device) -> LaunchContext:
    properties = torch.cuda.get_device_properties(device)
    return LaunchContext(
        _LIBRARY(),
        properties.multi_processor_count,
        getattr(properties, "shared_memory_per_block_optin", 49152),
        torch.cuda.current_stream(device).cuda_stream,
    )


def forward(
    projected: Tensor,
    memory: Memory,
    decoder: Decoder,
    score: Score,
    masks: Masks,
    launch_context: LaunchContext | None = None,
) -> SavedActivations:
    """As :func:`las_kernels.sequence.forward`; the arguments are trusted.

    Raises:
        RuntimeError: the kernel is not :func:`available`, or CUDA refuses the launch.
    """
    launch_context = launch_context or _launch_context(projected.device)
    B, U = projected.shape[:2]
    T, D = memory.values.shape[1:]
    S = decoder.recurrent_weights[0].shape[1]
    new = projected.new_empty
    saved = SavedActivations(
        new(B, U, 1, S),
        new(B, U, D),
        new(B, U, score.heads, T),
        new(B, U, 1, S, dtype=torch.float32),
        new(B, U, 1, 4 * S),
    )
    hidden_mask = None if masks.hidden is None else masks.hidden[:, 0].contiguous()
    context_mask = None if masks.context is None else masks.context.contiguous()
    written = (saved.hidden, saved.cells, saved.contexts, saved.alignments)
    _launch(
        launch_context, memory, decoder, score, (U, U, 0, 0, 0), *written, gates=saved.gates,
        projected=projected.contiguous(), hidden_mask=hidden_mask, context_mask=context_mask,
    )  # fmt: skip
    return saved


def greedy(
    memory: Memory,
    decoder: Decoder,
    score: Score,
    readout: Readout,
    limits: Tensor,
    *,
    blank: int,
    end: int,
    launch_context: LaunchContext | None = None,
) -> Found:
    """The likeliest character at every step until every utterance has ended.

    Args:
        memory: what is attended to, B utterances.
        decoder: recurrent weights; the embedding's are in ``readout``.
        score: the score function.
        readout: embedding and output.
        limits: [B] steps after which an utterance ends.
        blank: id that is never written, of those that there are.
        end: id that comes first, and ends an utterance.
        launch_context: where; by default the memory's device.

    Raises:
        RuntimeError: the kernel is not :func:`available`, or CUDA refuses the launch.
    """
    launch_context = launch_context or _launch_context(memory.keys.device)
    B, T, D = memory.values.shape
    S = decoder.recurrent_weights[0].shape[1]
    V, U = readout.output.shape[0], int(limits.max())
    new = memory.values.new_empty
    ids = torch.empty(B, U, dtype=torch.int64, device=limits.device)
    log_probs = new(B, U, dtype=torch.float32)
    alignments = new(B, U, score.heads, T)
    counters = _launch(
        launch_context, memory, decoder, score, (U, 2, V, blank, end), new(B, 2, S),
        new(B, 2, S, dtype=torch.float32), new(B, 2, D), alignments,
        projected=readout.embedded.contiguous(), readout=readout,
        limits=limits.to(torch.int64).contiguous(), ids=ids, log_probs=log_probs,
    )  # fmt: skip
    steps = int(counters[2])
    return Found(ids[:, :steps], log_probs[:, :steps], alignments[:, :steps])


def _launch(
    launch_context: LaunchContext,
    memory: Memory,
    decoder: Decoder,
    score: Score,
    steps: tuple[int, int, int, int, int],
    hidden: Tensor,
    cells: Tensor,
    contexts: Tensor,
    alignments: Tensor,
    *,
    projected: Tensor,
    gates: Tensor | None = None,
    readout: Readout | None = None,
    hidden_mask: Tensor | None = None,
    context_mask: Tensor | None = None,
    limits: Tensor | None = None,
    ids: Tensor | None = None,
    log_probs: Tensor | None = None,
) -> Tensor:
    """Pack everything for the kernel and start it; returns its counters [3]."""
    U, history, V, blank, end = steps  # as in the source
    B, T, D = memory.values.shape
    A = memory.keys.shape[2]
    S = decoder.recurrent_weights[0].shape[1]
    H = score.heads
    dtype, device = projected.dtype, projected.device
    given = cuda_step.inputs_of(memory, score)
    C, W = (0, 0) if given.filters is None else given.filters.shape
    both = torch.cat([decoder.context_weight, decoder.recurrent_weights[0]], 1)
    gate_weight = both.view(4, S, D + S).transpose(0, 1).contiguous()
    query_weight = decoder.query_weight.contiguous()
    read: list[Tensor | None] = [None] * 4
    if readout is not None:
        read = [x.contiguous() for x in readout[1:]]
    start = initial_alignment(memory.lengths, T, 1, H, dtype).contiguous()
    matrices = [x for x in (gate_weight, query_weight, read[0], read[2]) if x is not None]
    size = dtype.itemsize
    aligned = all(x.data_ptr() % (4 * size) == 0 for x in (*given[:2], *matrices))
    aligned = aligned and not (D % 4 or S % 4)
    read_whole = (*given[:2], *matrices, hidden, contexts, hidden_mask, context_mask)
    tensor_cores = size == 2 and not any(n % 8 for n in (A // H, D // H, S))
    tensor_cores = tensor_cores and all(x is None or x.data_ptr() % 16 == 0 for x in read_whole)
    processors = launch_context.processors
    attention_plan = cuda_step.launch_plan(
        (B, 1, T, A, D), H, (C, W), processors, aligned, 8 if tensor_cores else 4
    )
    vector = attention_plan.vector and aligned
    joined = 4 * (attention_plan.num_splits + 1 + THREADS)
    attention_bytes = max(attention_plan.shared, joined)
    room = (processors, launch_context.limit, attention_bytes)
    plan = launch_plan((D, S, A, V), size, *room, tensor_cores)
    parts = max(1, min(attention_plan.parts, processors // (B * H)))
    rows = B * H * attention_plan.num_splits
    scratch_parts = (rows * (D // H), B * H * T, rows, rows, B * V)
    scratch = torch.empty(sum(scratch_parts), dtype=torch.float32, device=device)
    split_context, energy, split_max, split_sum, logits = scratch.split(scratch_parts)
    queries = torch.empty(B, A, dtype=dtype, device=device)
    reads = torch.empty(B, S if V else 0, dtype=dtype, device=device)
    counters = torch.zeros(3, dtype=torch.int32, device=device)

    def matrix(i: int, weights: Tensor | None, count: int, columns: int) -> bytes:
        own = (plan.groups[i], plan.at[i], plan.strides[i])
        return _SLICE.pack(address(weights), count, columns, *own)

    attention = cuda_step.PARAMS.pack(
        *(B, 1, T, A, D, H, C, W),
        *attention_plan._replace(vector=vector),
        *(A, A),  # strides of the query and, to be set at each step, of the alignment before
        *(alignments.stride(0), alignments.stride(1)),
        *(contexts.stride(0), contexts.stride(1)),
        *(alignments.stride(0), alignments.stride(1)),
        score.scale,
        *map(address, (queries, *given, None)),
        *map(address, (contexts, alignments, energy, split_max, split_sum, split_context)),
    )
    numbers = [B, U, D, S, A, V, blank, end, history, int(vector), int(tensor_cores)]
    numbers += [plan.resident, plan.chunk, plan.shared, plan.blocks, parts]
    arrays = [read[1], read[3], projected, hidden_mask, context_mask, start, limits]
    arrays += [hidden, cells, gates, queries, reads, logits, ids, log_probs, counters]
    params = b"".join(
        [
            _NUMBERS.pack(*numbers),
            matrix(0, gate_weight, 4 * S, D + S),
            matrix(1, query_weight, A, S),
            matrix(2, read[0], S if V else 0, S + D),
            matrix(3, read[2], V, S),
            _NUMBERS.pack(*map(address, arrays)),
            attention,
        ]
    )
    name = cuda_step.TYPES[dtype][0]
    with torch.cuda.device_of(projected):
        status = getattr(launch_context.library, f"las_persistent_decoder_{name}")(
            params, ctypes.c_void_p(launch_context.stream)
        )
    if status != 0:
        message = getattr(launch_context.library, f"las_persistent_decoder_message_{name}")
        message.restype = ctypes.c_char_p
        raise RuntimeError(f"the CUDA decoder: {message(status).decode()}")
    return counters
