"""A whole sequence of the decoder in one launch on an NVIDIA GPU: ``csrc/persistent_decoder.cu``.

The teacher-forced recurrence, with all that the three-phase backward wants, and greedy search to
the end of every utterance. Weights stay in shared memory over the steps, as far as they fit; all
blocks of the GPU wait for each other a few times a step (a cooperative launch). One LSTM layer.
"""

import ctypes
import functools
import struct
from typing import NamedTuple

import torch
from torch import Tensor

from las_kernels.cuda import attention_step as cuda_step
from las_kernels.reference import initial_alignment
from las_kernels.sequence import Kept
from las_kernels.types import Decoder, Masks, Memory, Score

_NUMBERS = struct.Struct("=16q")  # the members of Sequence before its matrices, and after them
_ROWS = struct.Struct("=q5q")
SEQUENCE_BYTES = 2 * _NUMBERS.size + 3 * _ROWS.size + cuda_step.PROBLEM.size
_TOGETHER, _GROUP = 8, 4  # kTogether and kRows of the source
_PARTS = 32768  # bytes: the sums of eight warps, 32 rows and 32 utterances
_CHUNK = 1024  # most columns of the inputs in shared memory at once


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
    groups: tuple[int, int, int]  # of four rows a block: gates, query, readout
    at: tuple[int, int, int]  # elements before the block's rows in shared memory; -1: not there
    strides: tuple[int, int, int]  # elements from one of these rows to the next
    resident: int  # bytes of weights in shared memory
    chunk: int
    shared: int  # bytes in all


def plan(
    sizes: tuple[int, int, int, int],
    itemsize: int,
    processors: int,
    limit: int,
    attention_bytes: int,
    tiles: bool = False,
) -> Plan:
    """Share rows out and keep as many of the matrices in shared memory as fit.

    Args:
        sizes: D, S, A, V; V is 0 for teacher forcing.
        itemsize: of the weights.
        processors: blocks that can be resident at once, one a multiprocessor.
        limit: bytes of shared memory a block can have.
        attention_bytes: what the stages of attention need of it.
        tiles: whether products are made on tensor cores.
    """
    D, S, A, V = sizes
    matrices = [(4 * S, D + S), (A, S), (S if V else 0, S + D)]
    groups = [-(-rows // (_GROUP * processors)) for rows, _ in matrices]
    widest = max(columns for _, columns in matrices)
    chunk = min(-(-widest // 4) * 4, _CHUNK)
    # Neighbouring rows half a turn of the banks apart: a warp reads eight rows at once.
    strides = [n + (64 - n * itemsize) % 128 // itemsize if tiles else n for _, n in matrices]
    scratch = max(_PARTS if tiles else 4 * _TOGETHER * chunk, attention_bytes, 4 * V)
    room = limit - scratch
    at, used = [-1, -1, -1], 0
    for i, (count, stride) in enumerate(zip(groups, strides, strict=True)):
        size = count * _GROUP * stride * itemsize
        if 0 < size <= room - used:
            at[i] = used // itemsize
            used += -(-size // 128) * 128
    shares = (tuple(groups), tuple(at), tuple(strides))
    return Plan(processors, *shares, used, chunk, used + scratch)  # type: ignore[arg-type]


def available() -> str | None:
    """None where the kernel can run, else the reason in one line; the first call may build it."""
    result = _library()
    return result if isinstance(result, str) else None


class Machine(NamedTuple):
    """Where it runs."""

    library: ctypes.CDLL
    processors: int
    limit: int  # bytes of shared memory a block can have
    stream: int


def _machine(device: torch.device) -> Machine:
    library = _library()
    if isinstance(library, str):
        raise RuntimeError(f"the CUDA decoder cannot run: {library}")
    properties = torch.cuda.get_device_properties(device)
    return Machine(
        library,
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
    machine: Machine | None = None,
) -> Kept:
    """As :func:`las_kernels.sequence.forward`; the arguments are trusted.

    Raises:
        RuntimeError: the kernel is not :func:`available`, or CUDA refuses the launch.
    """
    machine = machine or _machine(projected.device)
    B, U = projected.shape[:2]
    T, D = memory.values.shape[1:]
    S = decoder.recurrent_weights[0].shape[1]
    new = projected.new_empty
    kept = Kept(
        new(B, U, 1, S),
        new(B, U, D),
        new(B, U, score.heads, T),
        new(B, U, 1, S, dtype=torch.float32),
        new(B, U, 1, 4 * S),
    )
    hidden_mask = None if masks.hidden is None else masks.hidden[:, 0].contiguous()
    context_mask = None if masks.context is None else masks.context.contiguous()
    _launch(
        machine, memory, decoder, score, (U, U, 0, 0, 0), kept.hidden, kept.cells, kept.contexts,
        kept.alignments, gates=kept.gates, projected=projected.contiguous(),
        hidden_mask=hidden_mask, context_mask=context_mask,
    )  # fmt: skip
    return kept


def greedy(
    memory: Memory,
    decoder: Decoder,
    score: Score,
    readout: Readout,
    limits: Tensor,
    *,
    blank: int,
    end: int,
    machine: Machine | None = None,
) -> Found:
    """The likeliest character at every step until every utterance has ended.

    Args:
        memory: what is attended to, B utterances.
        decoder: recurrent weights; the embedding's are in ``readout``.
        score: the score function.
        readout: embedding and output.
        limits: [B] steps after which an utterance ends.
        blank: id that is never written.
        end: id that comes first, and ends an utterance.
        machine: where; by default the memory's device.

    Raises:
        RuntimeError: the kernel is not :func:`available`, or CUDA refuses the launch.
    """
    machine = machine or _machine(memory.keys.device)
    B, T, D = memory.values.shape
    S = decoder.recurrent_weights[0].shape[1]
    V, U = readout.output.shape[0], int(limits.max())
    new = memory.values.new_empty
    ids = torch.empty(B, U, dtype=torch.int64, device=limits.device)
    log_probs = new(B, U, dtype=torch.float32)
    alignments = new(B, U, score.heads, T)
    counters = _launch(
        machine, memory, decoder, score, (U, 2, V, blank, end), new(B, 2, S),
        new(B, 2, S, dtype=torch.float32), new(B, 2, D), alignments,
        projected=readout.embedded.contiguous(), readout=readout,
        limits=limits.to(torch.int64).contiguous(), ids=ids, log_probs=log_probs,
    )  # fmt: skip
    steps = int(counters[2])
    return Found(ids[:, :steps], log_probs[:, :steps], alignments[:, :steps])


def _launch(
    machine: Machine,
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
    U, ring, V, blank, end = steps  # as in the source
    B, T, D = memory.values.shape
    A = memory.keys.shape[2]
    S = decoder.recurrent_weights[0].shape[1]
    H = score.heads
    dtype, device = projected.dtype, projected.device
    v, filters, projection, _, scale = score
    if v is None or filters is None:
        filters = projection = None
    C, W = (0, 0) if filters is None else filters.shape
    # Each name keeps its tensor alive until the kernel is in the stream; after that torch's
    # allocator keeps the order.
    keys, values = memory.keys.contiguous(), memory.values.contiguous()
    lengths = memory.lengths.to(torch.int64).contiguous()
    v, filters, projection = (
        None if x is None else x.contiguous() for x in (v, filters, projection)
    )
    both = torch.cat([decoder.context_weight, decoder.recurrent_weights[0]], 1)
    gate_weight = both.view(4, S, D + S).transpose(0, 1).contiguous()
    query_weight = decoder.query_weight.contiguous()
    read: list[Tensor | None] = [None] * 4
    if readout is not None:
        read = [x.contiguous() for x in readout[1:]]
    start = initial_alignment(memory.lengths, T, 1, H, dtype).contiguous()
    matrices = [x for x in (gate_weight, query_weight, read[0]) if x is not None]
    size = dtype.itemsize
    aligned = all(x.data_ptr() % (4 * size) == 0 for x in (keys, values, *matrices))
    aligned = aligned and not (D % 4 or S % 4)
    cut = cuda_step.plan((B, 1, T, A, D), H, (C, W), machine.processors, aligned)
    vector = cut.vector and aligned
    read_whole = (*matrices, hidden, contexts, hidden_mask, context_mask)
    tiles = vector and size == 2 and not (D % 8 or S % 8)
    tiles = tiles and all(x is None or x.data_ptr() % 16 == 0 for x in read_whole)
    attention_bytes = max(cut.shared, 4 * (cut.spans + 1))
    mine = plan((D, S, A, V), size, machine.processors, machine.limit, attention_bytes, tiles)
    parts = max(1, min(cut.parts, machine.processors // (B * H)))
    rows = B * H * cut.spans
    scratch_parts = (B * H * T, rows, rows, rows * (D // H), B * S)
    scratch = torch.empty(sum(scratch_parts), dtype=torch.float32, device=device)
    energy, tops, totals, sums, floats = scratch.split(scratch_parts)
    queries = torch.empty(B, A, dtype=dtype, device=device)
    counters = torch.zeros(3, dtype=torch.int32, device=device)

    def address(x: Tensor | None) -> int:
        return 0 if x is None else x.data_ptr()

    def matrix(i: int, weights: Tensor | None, count: int, columns: int) -> bytes:
        own = (mine.groups[i], mine.at[i], mine.strides[i])
        return _ROWS.pack(address(weights), count, columns, *own)

    attention = cuda_step.PROBLEM.pack(
        *(B, 1, T, A, D, H, C, W),
        *cut._replace(vector=vector),
        *(A, A),  # strides of the query and, to be set at each step, of the alignment before
        *(alignments.stride(0), alignments.stride(1)),
        *(contexts.stride(0), contexts.stride(1)),
        *(alignments.stride(0), alignments.stride(1)),
        scale,
        *map(address, (queries, keys, values, lengths, v, filters, projection, None)),
        *map(address, (contexts, alignments, energy, tops, totals, sums)),
    )
    numbers = [B, U, D, S, A, V, blank, end, ring, int(vector), int(tiles)]
    numbers += [mine.resident, mine.chunk, mine.shared, mine.blocks, parts]
    arrays = [*read[1:], projected, hidden_mask, context_mask, start, limits]
    arrays += [hidden, cells, gates, queries, floats, ids, log_probs, counters]
    problem = b"".join(
        [
            _NUMBERS.pack(*numbers),
            matrix(0, gate_weight, 4 * S, D + S),
            matrix(1, query_weight, A, S),
            matrix(2, read[0], S if V else 0, S + D),
            _NUMBERS.pack(*map(address, arrays)),
            attention,
        ]
    )
    name = cuda_step.TYPES[dtype][0]
    with torch.cuda.device_of(projected):
        status = getattr(machine.library, f"las_persistent_decoder_{name}")(
            problem, ctypes.c_void_p(machine.stream)
        )
    if status != 0:
        message = getattr(machine.library, f"las_persistent_decoder_message_{name}")
        message.restype = ctypes.c_char_p
        raise RuntimeError(f"the CUDA decoder: {message(status).decode()}")
    return counters


@functools.cache
def _library() -> ctypes.CDLL | str:
    return cuda_step.built("persistent_decoder", SEQUENCE_BYTES)
