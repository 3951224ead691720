"""One step of attention: ``python -m benchmarks.kernels.attention``; how to read it: README.md."""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

import las_kernels
from benchmarks import common
from benchmarks.kernels import timing
from benchmarks.kernels.shapes import Case, librispeech, random_inputs
from las_kernels import Memory, Score, reference
from las_kernels.cpu import attention_step as cpu_step
from las_kernels.cuda import attention_step as cuda_step

NAME = "attention"
PASSES = ("forward", "backward", "both")
LENGTHS = librispeech(32)

ADDITIVE, BOTH = ("additive",), ("additive", "location")

# The most telling first: a run that is short of time leaves the rest out.
GPU_CASES = (
    Case("LibriSpeech B32", 32, max(LENGTHS), 512, 1024, lengths=LENGTHS),
    Case("B16 N8 T200", 16, 200, 512, 1024, N=8, trains=False, kinds=BOTH),
    Case("B64 T250", 64, 250, 512, 1024, kinds=BOTH),
    Case("B64 N8 T250", 64, 250, 512, 1024, N=8, trains=False, kinds=ADDITIVE),
    Case("B1 T4000", 1, 4000, 512, 1024, kinds=ADDITIVE),
    Case("B8 N8 T250 A320 D640", 8, 250, 320, 640, N=8, trains=False, kinds=BOTH),
    Case("B32 T200", 32, 200, 512, 1024, kinds=ADDITIVE),
    Case("B32 T200 float32", 32, 200, 512, 1024, dtype=torch.float32, kinds=ADDITIVE),
    Case("B32 T200 H4 A128 D512", 32, 200, 128, 512, H=4, kinds=ADDITIVE),
)
CPU_CASES = (
    Case("B8 N8 T250 A320 D640", 8, 250, 320, 640, N=8, trains=False, dtype=torch.float32),
    Case("B4 T60 A64 D96", 4, 60, 64, 96, W=31, dtype=torch.float32),
)
SMALLEST = (Case("B2 T9 A8 D12", 2, 9, 8, 12, C=2, W=3, lengths=(9, 5), dtype=torch.float32),)

Arguments = tuple[Tensor, Memory, Score, Tensor]
Attend = Callable[..., Any]


def scaled_dot_product(query: Tensor, memory: Memory, score: Score, previous: Tensor) -> Tensor:
    """Context alone, through torch's own fused attention."""
    return las_kernels.attend(query, memory, score, previous, need_alignment=False)[0]


def methods(device: str, kind: str) -> dict[str, tuple[Attend, bool, str | None]]:
    """By name: the function, whether it has a backward, and why it cannot run."""
    compiled = torch.compile(reference.attend, dynamic=False)
    found: dict[str, tuple[Attend, bool, str | None]] = {
        "eager": (reference.attend, True, None),
        "compile": (compiled, True, None),
    }
    if kind == "dot":
        found["sdpa"] = (scaled_dot_product, True, None)
    if device == "cpu":
        found["cpp"] = (cpu_step.attend, False, cpu_step.available())
    else:
        if kind != "dot":  # for which it is the eager form
            fused = partial(las_kernels.attend, backend="triton")
            found["triton"] = (fused, True, None)
        found["cuda"] = (cuda_step.attend, False, cuda_step.available())
        found |= {f"{name} graphed": method for name, method in list(found.items())}
    return found


def leaves(arguments: Arguments) -> list[Tensor]:
    """The tensors that get a gradient."""
    query, memory, score, previous = arguments
    found = [query, memory.keys, memory.values]
    found += [x for x in (score.v, score.filters, score.projection) if x is not None]
    return [*found, previous] if score.filters is not None else found


def calls(attend: Attend, copies: list[Arguments], trains: bool) -> dict[str, timing.Call]:
    """The passes to time, by name; each takes the number of a copy."""

    def forward(i: int) -> tuple[Tensor, ...]:
        result = attend(*copies[i])
        # The gradient of an alignment comes from the location filter of the next step.
        located = copies[i][2].filters is not None
        return result[: 1 + located] if isinstance(result, tuple) else (result,)

    if not trains:

        def inference(i: int) -> object:
            with torch.no_grad():
                return attend(*copies[i])

        return {"forward": inference}
    for arguments in copies:
        for x in leaves(arguments):
            x.requires_grad_()
    kept = [forward(i) for i in range(len(copies))]
    given = [[torch.randn_like(x) for x in outputs] for outputs in kept]

    def backward(i: int) -> object:
        return torch.autograd.grad(kept[i], leaves(copies[i]), given[i], retain_graph=True)

    def both(i: int) -> object:
        return torch.autograd.grad(forward(i), leaves(copies[i]), given[i])

    return {"forward": forward, "backward": backward, "both": both}


def bytes_bound(case: Case, kind: str, which: str) -> int:
    """The least bytes that a pass reads and writes: every input and every result once."""
    located = kind == "location"
    memory = case.frames * (case.A + case.D)
    ends = case.B * case.N * (case.A + case.D + case.H * case.T * (1 + located))
    forward = memory + ends
    backward = 2 * memory + 2 * ends  # gradients of keys and values are written
    found = {"forward": forward, "backward": backward, "both": forward + backward}
    return found[which] * case.dtype.itemsize


def first_copy(call: timing.Call) -> timing.Call:
    """The call with the same inputs each time: those that fit stay in the cache."""
    return lambda _: call(0)


def row_of(case: Case, kind: str, which: str, method: str, threads: int | None) -> common.Row:
    """What a row says besides its numbers."""
    row: common.Row = {"benchmark": NAME, "case": case.name, "kind": kind}
    row |= {"dtype": str(case.dtype)[6:], "pass": which, "method": method}
    if threads is not None:
        row["threads"] = threads
    sizes = {key: getattr(case, key) for key in "BNTADHCW"}
    return {**row, "sizes": {**sizes, "frames": case.frames}}


def run_on_cpu(
    case: Case, kind: str, record: common.Record, chosen: argparse.Namespace, heap: str
) -> None:
    """All methods in turn, with one thread and with two."""
    before = torch.get_num_threads()
    for threads in (1,) if chosen.smallest else (1, 2):
        torch.set_num_threads(threads)
        torch._dynamo.reset()
        timed: dict[str, dict[str, timing.Call]] = {which: {} for which in PASSES}
        found = methods("cpu", kind)
        for name in common.in_order(found, chosen.methods):
            attend, has_backward, reason = found[name]
            if reason is not None:
                row = row_of(case, kind, "forward", name, threads)
                record.add({**row, "skipped": reason})
                continue
            copies = [random_inputs(case, kind, torch.device("cpu"))]
            several = calls(attend, copies, case.trains and has_backward)
            for which in common.in_order(several, chosen.passes):
                row = {**row_of(case, kind, which, name, threads), "heap": heap}
                if not record.has(row):
                    timed[which][name] = several[which]
        for which, wanted in timed.items():
            repeats, patience = (3, 0.0) if chosen.smallest else (31, 60.0)
            if not wanted:
                continue
            timings, busy = timing.time_when_quiet(wanted, repeats, patience)
            for name, took in timings.items():
                row = {**row_of(case, kind, which, name, threads), "heap": heap}
                record.add({**row, **took._asdict(), "others": busy})
    torch.set_num_threads(before)


def run_on_gpu(
    case: Case, kind: str, record: common.Record, chosen: argparse.Namespace, bandwidth: float,
    device: torch.device,
) -> None:  # fmt: skip
    """Each method with inputs that are in no cache, and with inputs that may be."""
    one = case.dtype.itemsize * case.B * case.T * (case.A + case.D)
    found = methods("cuda", kind)
    for name in common.in_order(found, chosen.methods):
        attend, has_backward, reason = found[name]
        trains = case.trains and has_backward
        passes = common.in_order(PASSES if trains else ("forward",), chosen.passes)
        passes = [p for p in passes if not record.has(row_of(case, kind, p, name, None))]
        if not passes:
            continue
        try:
            if reason is not None:
                raise RuntimeError(reason)
            copies = [
                random_inputs(case, kind, device, seed)
                for seed in range(timing.copies_beyond_cache(one))
            ]
            several = calls(attend, copies, trains)
            for which in passes:
                row, call = row_of(case, kind, which, name, None), several[which]
                graphed = name.endswith("graphed")
                cold = timing.time_on_gpu(call, len(copies), graphed)
                warm = timing.time_on_gpu(first_copy(call), 20, graphed)
                bound = bytes_bound(case, kind, which) / bandwidth * 1e6
                row |= {**cold._asdict(), "warm_us": warm.median_us, "copies": len(copies)}
                row |= {"bound_us": bound, "fraction": bound / cold.median_us}
                record.add({**row, "peak_bytes": timing.peak_bytes(call)})
        except Exception as error:
            record.add({**row_of(case, kind, "", name, None), "skipped": common.reason(error)})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or make the tables of a run that was killed."""
    chosen = common.options(NAME, arguments, common.SELECTS)
    if chosen.render:
        common.render(NAME, chosen.folder, not chosen.no_plot)
        return
    common.prepare_compiler()
    common.exact_float32()
    header = common.environment(chosen)
    cases: tuple[Case, ...] = CPU_CASES if chosen.device == "cpu" else GPU_CASES
    if chosen.smallest:
        cases = SMALLEST
    bandwidth = 0.0
    if chosen.device == "cuda":
        # A backward pass can be captured only on the stream of its forward pass.
        torch.cuda.set_stream(torch.cuda.Stream())
        bandwidth = timing.copy_bandwidth()
        header["copy_bytes_per_second"] = bandwidth
    record = common.Record(NAME, chosen.folder, header, chosen.keep)
    for case in common.asked_for(cases, chosen.cases, "case"):
        for kind in common.in_order(case.kinds, chosen.kinds):
            if time.monotonic() > chosen.end:
                row = {"case": case.name, "kind": kind, "skipped": "no time left"}
                record.add(row)
                continue
            torch._dynamo.reset()
            if chosen.device == "cpu":
                run_on_cpu(case, kind, record, chosen, "default")
            else:
                device = torch.device("cuda")
                run_on_gpu(case, kind, record, chosen, bandwidth, device)
    if chosen.device == "cpu" and not chosen.smallest and timing.keep_freed_memory():
        for kind in CPU_CASES[0].kinds:
            run_on_cpu(CPU_CASES[0], kind, record, chosen, "kept")
    common.render(NAME, chosen.folder, not chosen.no_plot)


if __name__ == "__main__":
    main()
