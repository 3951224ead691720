"""Tile sizes of Triton kernels, predicted and measured: ``python -m benchmarks.kernels.tuning``.

For each kernel and size one choice after another is tried, the best so far kept (coordinate
descent from the safe default). A choice is right only if it computes what the default computes.
``--ship`` writes the best into ``kernels/las_kernels/triton/tuned/``, where every launch finds it;
``--predict`` needs no GPU and stops before measuring.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import triton

from benchmarks import common, module
from benchmarks.kernels import timing
from benchmarks.kernels.tuning_predictions import ASSUMED, predict
from benchmarks.kernels.tuning_tasks import (
    FEW,
    SHORT,
    SHORT_TASKS,
    SMALLEST,
    SPACES,
    TASKS,
    Choice,
    Space,
    Task,
    call_of,
    default,
)
from las_kernels.triton import configs
from las_kernels.triton.utils import INTERPRETED

NAME = "tuning"


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
