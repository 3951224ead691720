"""Attention for decoding on an NVIDIA GPU: ``csrc/attention_step.cu``, built on demand by nvcc.

For inference: it has no backward. The same bits each time; nothing makes the host wait, so that
a step can be captured in a CUDA graph.
"""

import ctypes
import os
import shutil
import struct
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from las_kernels import jit_build, reference
from las_kernels.types import Memory, Score
from las_kernels.validation import check_memory, check_query

# How the inputs' types are called: in names of functions, and in CUDA C++.
TYPES = {
    torch.float32: ("float32", "float"),
    torch.bfloat16: ("bfloat16", "__nv_bfloat16"),
    torch.float16: ("float16", "__half"),
}
# What Python plans with and the sources are compiled with.
THREADS = 256  # of a block
WARP_ROWS = 4  # rows of a matrix that a warp multiplies at once
BATCH_TILE = 8  # utterances that one reading of the weights serves
ROW_TILES, BATCH_TILES = 2, 4  # of 16 rows and of BATCH_TILE utterances, on tensor cores at once
DEFINES = {
    "LAS_THREADS": THREADS,
    "LAS_WARP_ROWS": WARP_ROWS,
    "LAS_BATCH_TILE": BATCH_TILE,
    "LAS_ROW_TILES": ROW_TILES,
    "LAS_BATCH_TILES": BATCH_TILES,
}
MAX_CHANNELS = 1024  # of the location filter: they live in shared memory

PARAMS = struct.Struct("=24qd14q")  # the struct AttentionParams of csrc/attention_step.cuh
_GROUPS = (1, 4, 8)  # beams of a block for which there is code
_SPLIT = 128  # most frames of a split
_FEATURES = 8192  # floats of shared memory for location features
_STAGE = 10240  # floats of shared memory for query, v and projection
_FILTERS = 4096  # floats of shared memory for filters


class Inputs(NamedTuple):
    """What kernels read of a memory and a score, contiguous.

    Whoever holds it keeps the tensors until the kernels are in the stream; after that torch's
    allocator keeps the order.
    """

    keys: Tensor
    values: Tensor
    lengths: Tensor  # int64
    v: Tensor | None
    filters: Tensor | None
    projection: Tensor | None


def inputs_of(memory: Memory, score: Score) -> Inputs:
    """These inputs; those of location features only where a score has them."""
    v, filters, projection = score[:3]
    if v is None or filters is None:
        filters = projection = None
    lengths = memory.lengths.to(torch.int64)
    given = (memory.keys, memory.values, lengths, v, filters, projection)
    return Inputs(*(None if x is None else x.contiguous() for x in given))  # type: ignore[arg-type]


class Plan(NamedTuple):
    """How a launch is cut into blocks; the members of the same names in ``AttentionParams``."""

    split_len: int  # frames of a block
    num_splits: int
    beams: int  # of a block
    chunk: int  # columns of the keys whose weights are in shared memory at once
    taps: int  # of the filters that are in shared memory at once
    vector: bool  # whether rows are read several columns at a time
    shared: int  # bytes
    parts: int  # blocks of the second kernel to a beam and head


def launch_plan(
    sizes: tuple[int, int, int, int, int],
    heads: int,
    location: tuple[int, int],
    processors: int,
    aligned: bool = True,
    width: int = 4,
) -> Plan:
    """Cut a step so that all blocks run at once, two a multiprocessor, of at most 76 KiB each.

    Args:
        sizes: B, N, T, A, D.
        heads: H.
        location: C, W; zeros for scores without location features.
        processors: multiprocessors of the GPU.
        aligned: whether keys and values start at multiples of ``width`` elements.
        width: columns that a thread reads at once, where rows allow it.
    """
    B, N, T, A, D = sizes
    C, W = location
    AH, DH = A // heads, D // heads
    beams = next((group for group in _GROUPS if group >= N), _GROUPS[-1])
    if C > 128:
        beams = 1
    programs = B * heads * -(-N // beams)
    # Two blocks of a multiprocessor run at once; one more than fit would wait for a second round.
    wanted = max(1, 2 * processors // programs)
    # Less than eight frames keep too few threads busy.
    split_len = min(max(_four(-(-T // wanted)), 8), _SPLIT)
    if C:
        split_len = max(min(split_len, _FEATURES // (beams * C) // 4 * 4), 4)
    chunk = min(_four(AH), max(_STAGE // (beams + 1 + C) // 8 * 8, 8))
    if chunk < AH and chunk > 128:
        chunk = chunk // 128 * 128  # what a warp reads at once
    taps = min(_four(W), 512, max(_FILTERS // C // 4 * 4, 4)) if C else 4
    # Of values, only threads that share the frames of a column leave sums there.
    stages = [(beams + 1 + C) * chunk, beams * min(_four(DH), THREADS // 2 * width)]
    if C:
        stages.append(beams * (split_len + taps) + C * taps)
    shared = 4 * (beams * split_len * (1 + C) + max(stages))
    vector = aligned and AH % width == 0 and DH % width == 0
    # A column or frame a thread; fewer where that leaves multiprocessors without a block.
    parts = -(-max(DH, min(T, 1024)) // THREADS)
    parts = max(parts, min(-(-DH // 32), processors // (B * N * heads)))
    return Plan(split_len, -(-T // split_len), beams, chunk, taps, vector, shared, parts)


def _four(n: int) -> int:
    return -(-n // 4) * 4


def attend(
    query: Tensor, memory: Memory, score: Score, previous: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One step of attention; the contract of ``reference.attend``.

    Runs the reference itself where a gradient is wanted and for float64.

    Args:
        query: [B, N, A] on a CUDA device.
        memory: keys [B, T, A], values [B, T, D], lengths [B], each 1..T.
        score: the score function.
        previous: [B, N, H, T]; location-aware scores need it.

    Returns:
        context [B, N, D] and alignment [B, N, H, T], zero on padding.

    Raises:
        ValueError: a shape is wrong; the message names the argument.
        TypeError: dtypes or devices differ.
        RuntimeError: the kernel is not `available`, or CUDA refuses the launch.
    """
    check_memory(memory, score, query.shape[-1])
    check_query(query, previous, memory, score)
    given = [query, memory.keys, memory.values, previous, *score[:3]]
    wanted = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in given)
    if wanted or query.dtype not in TYPES:
        return reference.attend(query, memory, score, previous)
    context = query.new_empty(*query.shape[:2], memory.values.shape[2])
    alignment = query.new_empty(*query.shape[:2], score.heads, memory.keys.shape[1])
    forward(query, memory, score, previous, context, alignment)
    return context, alignment


def forward(
    query: Tensor,
    memory: Memory,
    score: Score,
    previous: Tensor | None,
    context: Tensor,
    alignment: Tensor,
) -> None:
    """As :func:`las_kernels.eager.forward`; the arguments are trusted."""
    library = _LIBRARY()
    device = query.device
    if device.type != "cuda":
        raise ValueError(f"query is on {device}, the CUDA kernel needs a CUDA device")
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    stream = torch.cuda.current_stream(device).cuda_stream
    with torch.cuda.device_of(query):
        run(library, processors, stream, query, memory, score, previous, context, alignment)


def run(
    library: ctypes.CDLL,
    processors: int,
    stream: int,
    query: Tensor,
    memory: Memory,
    score: Score,
    previous: Tensor | None,
    context: Tensor,
    alignment: Tensor,
) -> None:
    """:func:`forward` with a library, planned for a number of multiprocessors.

    The kernels run on the current device, which must be that of the tensors.
    """
    B, N, A = query.shape
    T, D = memory.values.shape[1:]
    if context.numel() == 0:
        return
    given, H = inputs_of(memory, score), score.heads
    C, W = (0, 0) if given.filters is None else given.filters.shape
    if C > MAX_CHANNELS:
        raise ValueError(f"filters: {C} channels, the CUDA kernel takes {MAX_CHANNELS}")
    query = _rows(query)
    previous = None if given.filters is None or previous is None else _rows(previous)
    aligned = all(x.data_ptr() % (4 * x.element_size()) == 0 for x in given[:2])
    plan = launch_plan((B, N, T, A, D), H, (C, W), processors, aligned)
    rows = B * H * plan.num_splits * N
    parts = (rows * (D // H), B * N * H * T, rows, rows)
    scratch = torch.empty(sum(parts), dtype=torch.float32, device=query.device)
    split_context, *others = scratch.split(parts)  # it comes first, to be aligned to 16 bytes
    strides = [
        *query.stride()[:2],
        *((0, 0) if previous is None else previous.stride()[:2]),
        *context.stride()[:2],
        *alignment.stride()[:2],
    ]
    arrays = (query, *given, previous, context, alignment, *others, split_context)
    params = PARAMS.pack(
        *(B, N, T, A, D, H, C, W),
        *plan,
        *strides,
        score.scale,
        *map(jit_build.address, arrays),
    )
    name = TYPES[query.dtype][0]
    status = getattr(library, f"las_attention_step_{name}")(params, ctypes.c_void_p(stream))
    if status != 0:
        message = getattr(library, f"las_attention_step_message_{name}")
        message.restype = ctypes.c_char_p
        raise RuntimeError(f"the CUDA kernel: {message(status).decode()}")


def _rows(x: Tensor) -> Tensor:
    """The tensor itself if each of its rows [B, N, ...] is contiguous, else a copy."""
    return x if x[0, 0].is_contiguous() else x.contiguous()


def nvcc() -> str:
    """Path of nvcc: in ``$CUDA_HOME/bin`` or in PATH.

    Raises:
        BuildError: there is none.
    """
    if home := os.environ.get("CUDA_HOME"):
        found = shutil.which(str(Path(home) / "bin" / "nvcc"))
        if found is not None:
            return found
    if found := shutil.which("nvcc"):
        return found
    raise jit_build.BuildError("no nvcc in $CUDA_HOME/bin or PATH")


def architecture(capability: tuple[int, int]) -> str:
    """Of a compute capability, for nvcc; Hopper's own instructions need the suffix."""
    number = f"{capability[0]}{capability[1]}"
    return "90a" if number == "90" else number


def steps(command: list[str], kind: str = "attention_step") -> list[jit_build.Step]:
    """Compile a source once for each type, with this compiler and its flags."""
    source = jit_build.CUDA_SOURCES / f"{kind}.cu"
    return [
        jit_build.Step(
            source,
            [
                *command,
                *(f"-D{name}={value}" for name, value in DEFINES.items()),
                f"-DLAS_TYPE={spelt}",
                f"-DLAS_NAME=las_{kind}_{name}",
                f"-DLAS_MESSAGE=las_{kind}_message_{name}",
                f"-DLAS_SIZE=las_{kind}_size_{name}",
            ],
        )
        for name, spelt in TYPES.values()
    ]


def sizes(kind: str, packed: int) -> dict[str, int]:
    """What the functions of a library must say of its struct."""
    return {f"las_{kind}_size_{name}": packed for name, _ in TYPES.values()}


def compiler(arch: str) -> list[str]:
    """Nvcc and its flags for an architecture such as "90a"."""
    return [nvcc(), "-std=c++17", "-O3", f"-gencode=arch=compute_{arch},code=sm_{arch}"]


def built(kind: str, packed: int) -> ctypes.CDLL | str:
    """The library of ``csrc/<kind>.cu`` for this GPU, or why there can be none.

    Args:
        kind: "attention_step" or "persistent_decoder".
        packed: bytes of the struct that its function is given.

    Raises:
        BuildError: it cannot be built or loaded.
    """
    if not torch.cuda.is_available():
        return "no CUDA device"
    capability = torch.cuda.get_device_capability()
    if capability < (8, 0):
        return "it needs a GPU of compute capability 8.0 or newer"
    command = [*compiler(architecture(capability)), "-Xcompiler=-fPIC"]
    # A runtime of its own: torch's may be of another version. Both use one context.
    link = [nvcc(), "-shared", "-cudart=static"]
    return jit_build.load(f"cuda_{kind}", steps(command, kind), link, sizes(kind, packed))


_LIBRARY = jit_build.Library(
    "the CUDA kernel",
    lambda: built("attention_step", PARAMS.size),
    "attention_step does not run on this GPU",
)
available = _LIBRARY.available
