"""What ``benchmarks.kernels.tuning`` tries: kernels, sizes, and parameters of their launches."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.kernels.shapes import Case, random_inputs
from las_kernels.triton import (
    attention_bwd,
    attention_bwd_dkv,
    attention_fwd,
    configs,
    location_conv,
)
from las_kernels.types import Memory, Score

LARGE = Case("B64 T250", 64, 250, 512, 1024)
BEAMS = Case("B16 N8 T200", 16, 200, 512, 1024, N=8)
STEPS = Case("B64 T250 U50", 64, 250, 512, 1024, N=50)  # the queries of all steps
SMALL = Case("B2 T20", 2, 20, 8, 12, C=2, W=3, dtype=torch.float32)
_LAUNCHED = (
    attention_fwd.attention_fwd_split_kernel,
    attention_fwd.attention_fwd_combine_kernel,
    attention_bwd.attention_bwd_dq_kernel,
    attention_bwd.attention_bwd_dq_reduce_kernel,
    attention_bwd_dkv.attention_bwd_dk_kernel,
    attention_bwd_dkv.attention_bwd_dfilters_kernel,
)
KERNELS = {kernel.__name__: kernel for kernel in _LAUNCHED}
SPLIT, COMBINE, DQ, DQ_REDUCE, DK, DFILTERS = KERNELS
Space = dict[str, tuple[int, ...]]  # what to try, by parameter
WARPS = {"num_warps": (2, 4, 8)}
SPACES: dict[str, Space] = {
    SPLIT: {
        "fill": (1, 2, 4),
        "BT": (16, 32),
        "BA": (32, 64, 128, 256, 512),
        "STAGES": (1, 2, 3),
        **WARPS,
    },
    COMBINE: {"BD": (64, 128, 256), **WARPS},
    DQ: {
        "BT": (16, 32, 64),
        "BD": (64, 128, 256),
        "BA": (32, 64, 128, 256),
        "STAGES": (2, 3, 4),
        **WARPS,
    },
    DQ_REDUCE: {"BA": (32, 64, 128), **WARPS},
    DK: {"BT": (16, 32, 64), "BA": (32, 64, 128), **WARPS},
    DFILTERS: {"BT": (16, 32, 64), **WARPS},
}
# A minute's worth of it: the tasks, and what to try of each kernel.
SHORT_TASKS = 4
SHORT: dict[str, Space] = {
    SPLIT: {
        "BA": (64, 128, 256, 512),
        "num_warps": (4, 8),
        "fill": (1, 2, 3),
    },
    DQ: {"BT": (16, 32), "num_warps": (4, 8)},
    DK: {"BT": (16, 32), "num_warps": (4, 8)},
}
Choice = dict[str, int]
Results = tuple[Tensor, ...]


class Task(NamedTuple):
    """What to tune together: kernels that one function launches."""

    name: str
    kernels: tuple[str, ...]
    case: Case
    kind: str


TASKS = tuple(
    task
    for kind in ("additive", "location")
    for task in (
        Task("forward", (SPLIT, COMBINE), LARGE, kind),
        Task("forward", (SPLIT, COMBINE), BEAMS, kind),
        Task("backward", (DQ, *((DQ_REDUCE,) if kind == "location" else ())), LARGE, kind),
        Task("deferred", (DK, *((DFILTERS,) if kind == "location" else ())), STEPS,
             kind),
    )
)  # fmt: skip
FEW: dict[str, Space] = {kernel: {"num_warps": (2, 4)} for kernel in KERNELS}
SMALLEST = (
    Task("forward", (COMBINE,), SMALL, "location"),
    Task("backward", (DQ_REDUCE,), SMALL, "location"),
)


def call_of(task: Task, device: torch.device, seed: int) -> Callable[[], Results]:
    """The function that launches the kernels; returns what they computed."""
    query, memory, score, previous = random_inputs(task.case, task.kind, device, seed)
    located = task.kind == "location"
    B, N, H, T = previous.shape
    context, alignment = query.new_empty(B, N, task.case.D), torch.empty_like(previous)
    if task.name == "forward":

        def forward() -> Results:
            given = previous if located else None
            attention_fwd.forward(query, memory, score, given, context, alignment)
            return context, alignment

        return forward
    generator = torch.Generator(device).manual_seed(seed + 1)
    features = dfeatures = None
    if located and score.filters is not None:
        features = location_conv.forward(previous, score.filters)
        dfeatures = torch.randn(features.shape, generator=generator, device=device)
    denergy = torch.randn(B, N, H, T, generator=generator, device=device)
    if task.name == "deferred":

        def late() -> Results:
            given = (previous if located else None, features, dfeatures)
            found = attention_bwd_dkv.backward(query, denergy, memory, score, *given)
            return tuple(x for x in found if x is not None)

        return late
    given = torch.randn(context.shape, generator=generator, device=device).to(query.dtype)
    return _backward(given, previous, query, memory, score, features, denergy, dfeatures)


def _backward(
    given: Tensor, alignment: Tensor, query: Tensor, memory: Memory, score: Score,
    features: Tensor | None, denergy: Tensor, dfeatures: Tensor | None,
) -> Callable[[], Results]:  # fmt: skip
    dquery = torch.empty_like(query)

    def backward() -> Results:
        found = attention_bwd.backward(
            given, None, alignment, query, memory, score, features, denergy, dquery, dfeatures
        )
        return (dquery,) if found is None else (dquery, found)

    return backward


def default(kernel: str, task: Task) -> Choice:
    """The safe plan of a kernel for a task."""
    case = task.case
    taps = (case.C, case.W) if task.kind == "location" else None
    AH, DH = case.A // case.H, case.D // case.H
    if kernel == SPLIT:
        return configs.attention_fwd_split_config(case.N, case.H, (AH, DH), taps, case.dtype)
    if kernel == COMBINE:
        return configs.attention_fwd_combine_config(case.H, DH)
    if kernel == DQ:
        return configs.attention_bwd_dq_config(case.H, (AH, DH), taps, case.dtype)
    if kernel == DQ_REDUCE:
        return configs.attention_bwd_dq_reduce_config(case.H, AH, taps)
    if kernel == DK:
        return configs.attention_bwd_dk_config(case.H, AH, taps, case.dtype)
    assert taps is not None
    return configs.attention_bwd_dfilters_config(taps, case.dtype)
