"""How long a Triton kernel should run on an sm_90 with a choice of tile sizes; needs no GPU.

A prediction is the larger of two times: that of the tanh, and that of the bytes at the speed of a
copy or, if the resident programs do not ask for enough of them at once to cover the latency of
memory (Little's law), at what they do ask for; times how unevenly the programs fill the
multiprocessors. Registers and shared memory are those of the compiled kernel.
"""

import math

import torch

from benchmarks import common
from benchmarks.kernels.shapes import Case
from benchmarks.kernels.tuning_tasks import (
    COMBINE,
    DFILTERS,
    DK,
    DQ,
    DQ_REDUCE,
    SPLIT,
    Choice,
    Task,
    call_of,
)
from las_kernels.tools import stand_in
from las_kernels.triton import configs

LATENCY = 700e-9  # seconds until memory answers a busy multiprocessor; assumed
REGISTERS, SHARED, BLOCKS = 65536, 227 * 1024, 32  # of a multiprocessor of an sm_90
# Where there is no GPU to ask: of an H200, from its data sheet (bytes and tanh a second).
ASSUMED = {"copy": 4.3e12, "tanh": 16 * 132 * 1.98e9}
PROCESSORS = 132


def work(kernel: str, plan: Choice, case: Case) -> tuple[list[tuple[float, float]], float]:
    """What a launch reads: bytes, and those that a program asks for at once; and its tanh."""
    size, rows = case.dtype.itemsize, case.B * case.N
    scores = float(case.frames * case.N * case.A)

    def tile(width: int, name: str) -> tuple[float, float]:
        return size * case.frames * width, size * plan["BT"] * plan[name]

    ahead = plan.get("STAGES", 1) - 1  # tiles that the compiler's pipeline asks for in advance
    if kernel == SPLIT:
        if ahead == 0 or case.N > 1:  # the loop over beams is not pipelined
            return [tile(case.A, "BA"), tile(case.D, "BD")], scores
        read = case.A + case.D
        return [(tile(read, "BD")[0], float(ahead * size * plan["BT"] * read // case.H))], scores
    if kernel == DQ:
        read_by = (tile(case.A, "BA"), tile(case.D, "BD"))
        return [(moved, max(ahead, 1) * asked) for moved, asked in read_by], scores
    if kernel == DK:
        return [(2 * size * case.frames * case.A, math.inf)], scores
    bytes_ = {
        COMBINE: case.D * configs.FILL,
        DQ_REDUCE: case.A,
        DFILTERS: case.T * case.C,
    }
    return [(4.0 * rows * bytes_[kernel], math.inf)], 0.0


def launch_of(kernel: str, plan: Choice, task: Task) -> stand_in.Launch:
    """What the task would launch on an sm_90."""
    with stand_in.stand_in(90) as launches, configs.trying(**{kernel: plan}):
        call_of(task, torch.device("cpu"), 0)()
    return next(launch for launch in launches if launch.name == kernel)


def predict(kernel: str, plan: Choice, task: Task, bounds: dict[str, float]) -> common.Row:
    """What the compiled kernel takes of a multiprocessor, and how long it should run."""
    launch = launch_of(kernel, plan, task)
    usage = stand_in.usage_of(launch.kernel)
    warps = plan.get("num_warps", 4)
    resident = min(
        REGISTERS // max(usage.registers * 32 * warps, 1),
        SHARED // (usage.shared + 1024),
        64 // warps,
        BLOCKS,
    )
    count = math.prod(launch.grid)
    uneven = math.ceil(count / PROCESSORS) * PROCESSORS / count
    here = min(resident, math.ceil(count / PROCESSORS))
    reads, scored = work(kernel, plan, task.case)
    rate = bounds["copy"] / PROCESSORS
    moving = sum(
        moved / bounds["copy"] * max(1.0, rate * LATENCY / (here * asked)) for moved, asked in reads
    )
    return {
        "registers": usage.registers,
        "shared": usage.shared,
        "spilled": usage.spilled,
        "programs": count,
        "warps": here * warps,
        "predicted_us": max(moving, scored / bounds["tanh"]) * 1e6 * uneven,
    }
