"""Tile sizes of Triton kernels, predicted and measured: ``python -m benchmarks.kernels.tuning``.

For each kernel and size one choice after another is tried, the best so far kept (coordinate
descent from the safe default). A choice is right only if it computes what the default computes.
``--ship`` writes the best into ``kernels/las_kernels/triton/tuned/``, where every launch finds it;
``--predict`` needs no GPU and stops before measuring.

A prediction is the larger of two times: that of the tanh, and that of the bytes at the speed of a
copy or, if the resident programs do not ask for enough of them at once to cover the latency of
memory (Little's law), at what they do ask for; times how unevenly the programs fill the
multiprocessors. Registers and shared memory are those of the compiled kernel.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from benchmarks import common, module
from benchmarks.kernels import timing
from benchmarks.kernels.shapes import Case, random_inputs
from las_kernels.tools import stand_in
from las_kernels.triton import (
    attention_bwd,
    attention_bwd_dkv,
    attention_fwd,
    configs,
    location_conv,
)
from las_kernels.triton.utils import INTERPRETED
from las_kernels.types import Memory, Score

NAME = "tuning"
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
LATENCY = 700e-9  # seconds until memory answers a busy multiprocessor; assumed
REGISTERS, SHARED, BLOCKS = 65536, 227 * 1024, 32  # of a multiprocessor of an sm_90
# Where there is no GPU to ask: of an H200, from its data sheet (bytes and tanh a second).
ASSUMED = {"copy": 4.3e12, "tanh": 16 * 132 * 1.98e9}
PROCESSORS = 132

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


def candidates(space: Space, best: Choice) -> Iterator[Choice]:
    """The best so far with one parameter changed."""
    for name, values in space.items():
        for value in values:
            if best.get(name) != value:
                yield {**best, name: value}


def changed(plan: Choice, start: Choice) -> Choice:
    """What a choice says besides the default."""
    return {k: v for k, v in plan.items() if start.get(k) != v}


class Bench:
    """Measures choices of one task, the seconds of a call of all its kernels."""

    def __init__(self, task: Task, device: torch.device) -> None:
        self.device = device
        one = task.case.dtype.itemsize * task.case.B * task.case.T * (task.case.A + task.case.D)
        copies = timing.copies_beyond_cache(one) if device.type == "cuda" else 1
        self.calls = [call_of(task, device, seed) for seed in range(copies)]
        self.right = [x.clone() for x in self.calls[0]()]

    def measure(self, trial: dict[str, Choice]) -> float:
        """Median microseconds; a choice that computes something else is an error."""
        with configs.trying(**trial):
            for found, right in zip(self.calls[0](), self.right, strict=True):
                error = (found.double() - right.double()).norm() / right.double().norm()
                if not error < 1e-2:
                    raise RuntimeError(f"it computes something else: error {error:.1e}")
            if self.device.type == "cuda":
                count = len(self.calls)
                return timing.time_on_gpu(
                    lambda i: self.calls[i](), count, graphed=True, seconds=0.03
                ).median_us
            return timing.time_on_cpu({"": lambda _: self.calls[0]()}, 3)[""].median_us


def tune(
    task: Task, device: torch.device | None, bounds: dict[str, float], rows: list[common.Row],
    end: float = math.inf, spaces: dict[str, Space] | None = None,
) -> dict[str, Choice]:  # fmt: skip
    """Try the choices of a task's kernels; returns what is better than the default, by key.

    Args:
        task: kernels that one function launches.
        device: where to measure; None only predicts.
        bounds: of that GPU.
        rows: gets one for each choice.
        end: try no further choice when the clock has come so far.
        spaces: what to try of each kernel; a short list is measured and not predicted.
    """
    short, spaces = spaces is not None, spaces or SPACES
    bench = None if device is None else Bench(task, device)
    kept: dict[str, Choice] = {}
    found: dict[str, Choice] = {}
    for kernel in (name for name in task.kernels if name in spaces):
        start = default(kernel, task)
        best, fastest = start, math.inf
        seen: list[Choice] = []
        queue = [start]
        while queue:
            for plan in queue:
                if plan in seen or time.monotonic() > end:
                    continue
                seen.append(plan)
                row: common.Row = {
                    "kernel": kernel,
                    "key": configs.key(kernel, start, task.case.dtype),
                    "case": task.case.name,
                    "choice": changed(plan, start),
                }
                try:
                    if not INTERPRETED.value and not short:
                        row |= predict(kernel, plan, task, bounds)
                    if bench is not None:
                        row["measured_us"] = bench.measure({**kept, kernel: changed(plan, start)})
                        if row["measured_us"] < 0.99 * fastest:  # less is noise
                            best, fastest = plan, row["measured_us"]
                except Exception as error:  # a choice that does not compile is not chosen
                    row["skipped"] = f"{type(error).__name__}: {error}".split("\n")[0][:120]
                rows.append(row)
                if bench is not None:
                    told = row.get("skipped") or f"{row['measured_us']:.2f} us"
                    print(f"{NAME}: {row['key']} {row['case']} {row['choice']}: {told}", flush=True)
            # Without measurements: one round about the default, for the table.
            again = bench is not None and len(seen) < 40
            queue = [plan for plan in candidates(spaces[kernel], best) if plan not in seen]
            queue = queue if (again or len(seen) == 1) and time.monotonic() < end else []
        if bench is not None and changed(best, start):
            kept[kernel] = changed(best, start)
            found[configs.key(kernel, start, task.case.dtype)] = kept[kernel]
        print(
            f"{NAME}: {task.case.name} {task.kind} {kernel}: best is {kept.get(kernel, 'default')}",
            flush=True,
        )
    return found


def markdown(found: common.Row) -> str:
    """The notes: every version with what was predicted and what came of it."""
    lines = [f"# {module(NAME)}: {found['device']}", ""]
    hidden = ("device", "rows", "choices")
    lines += [f"- {k}: {v}" for k, v in found.items() if k not in hidden]
    lines += ["", "`measured` is of the function that launches it, with its other kernels.", ""]
    titles = [
        "kernel",
        "case",
        "choice",
        "registers",
        "KiB",
        "warps",
        "predicted us",
        "measured us",
    ]
    lines += [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]
    for row in found["rows"]:
        choice = ", ".join(f"{k} {v}" for k, v in row["choice"].items()) or "default"
        cells = [row["key"], row["case"], choice]
        if "predicted_us" in row:
            spilled = f" ({row['spilled']} B spilled)" if row["spilled"] else ""
            cells += [f"{row['registers']}{spilled}", f"{row['shared'] / 1024:.0f}", row["warps"]]
            cells.append(f"{row['predicted_us']:.1f}")
        else:
            cells += ["", "", "", ""]
        measured = f"{row['measured_us']:.1f}" if "measured_us" in row else ""
        cells.append(row.get("skipped", measured))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def ship(found: common.Row, capability: tuple[int, int], folder: Path) -> Path:
    """Write the choices for GPUs of this capability."""
    kept = {k: found[k] for k in ("device", "date", "torch", "triton", "choices")}
    path = folder / f"sm_{capability[0]}{capability[1]}.json"
    folder.mkdir(exist_ok=True)
    common.write(path, json.dumps(kept, indent=1) + "\n")
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Tune every task, and write JSON and the table."""
    parser = argparse.ArgumentParser(prog=f"python -m {module(NAME)}")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--output", type=Path, default=common.RESULTS, help="folder of the results")
    parser.add_argument("--seconds", type=float, default=1e9, help="start nothing new after these")
    parser.add_argument("--predict", action="store_true", help="compile and predict; needs no GPU")
    parser.add_argument("--short", action="store_true", help="few choices, in about a minute")
    parser.add_argument("--ship", action="store_true", help="launches use the best from then on")
    parser.add_argument("--smallest", action="store_true", help="only see that it works")
    chosen = parser.parse_args(arguments)
    words = ("predict", "short", "smallest")
    chosen.command = parser.prog + "".join(f" --{word}" for word in words if getattr(chosen, word))
    device = None if chosen.predict else torch.device(chosen.device)
    bounds = dict(ASSUMED)
    if device is not None and device.type == "cuda":
        if not torch.cuda.is_available():
            raise SystemExit("error: there is no GPU to tune for; --predict needs none")
        torch.cuda.set_stream(torch.cuda.Stream())
        bounds["copy"] = timing.copy_bandwidth()
    if chosen.predict:
        found: common.Row = {
            "device": "sm_90, not run: predictions",
            "command": chosen.command,
            "torch": torch.__version__,
            "triton": triton.__version__,
        }
        folder = chosen.output / "sm-90-predicted"
    else:
        found = common.environment(chosen)
        folder = chosen.output / common.slug(common.device_name(chosen.device))
    found |= {"bounds": bounds, "rows": [], "choices": {}}
    end = time.monotonic() + chosen.seconds
    folder.mkdir(parents=True, exist_ok=True)
    tasks = SMALLEST if chosen.smallest else TASKS[:SHORT_TASKS] if chosen.short else TASKS
    for task in tasks:
        if time.monotonic() < end:
            spaces = (FEW if chosen.smallest else SHORT) if chosen.short else None
            found["choices"] |= tune(task, device, bounds, found["rows"], end, spaces)
        # After each: what a limit of time cuts off must not cost the others.
        common.write(folder / f"{NAME}.json", json.dumps(found, indent=1) + "\n")
        common.write(folder / f"{NAME}.md", markdown(found))
    if chosen.ship and device is not None and device.type == "cuda":
        print(ship(found, torch.cuda.get_device_capability(), configs.FOLDER))


if __name__ == "__main__":
    main()
