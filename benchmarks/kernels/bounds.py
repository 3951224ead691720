# Compile-time arguments of kernels are capitals, and the compiler knows their types.
# ruff: noqa: ANN001, ANN201, N803
# mypy: disable-error-code="no-untyped-def"
"""What bounds the kernels on this GPU, measured: ``python -m benchmarks.kernels.bounds``.

Copying bounds what reads a memory once, the rate of tanh bounds additive scores of many beams,
what a launch or a node of a graph costs bounds how short a step can be, and a barrier among all
blocks bounds a decoder that stays on the chip.
"""

import json
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from benchmarks import common, module
from benchmarks.kernels import timing
from las_kernels.triton.utils import INTERPRETED, tanh

NAME = "bounds"
BLOCK = 1024
UNITS = {
    "copy": ("bytes a second", "a copy of 512 MiB, read and written"),
    "tanh": ("a second", "tanh.approx.f32 in registers"),
    "launch": ("us", "a kernel of 32 numbers after another, launched by Python"),
    "graph_node": ("us", "the same as a node of a CUDA graph"),
    "barrier": ("us", "all blocks, one a multiprocessor, wait for each other"),
}


@triton.jit
def repeated_tanh(X, ROUNDS: tl.constexpr, BLOCK: tl.constexpr, APPROXIMATE: tl.constexpr):
    """Each number through tanh so many times."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(X + at)
    for _ in range(ROUNDS):
        x = tanh(x, APPROXIMATE) + 0.001
    tl.store(X + at, x)


@triton.jit
def repeated_barrier(arrived, blocks, ROUNDS: tl.constexpr):
    """Every block waits so many times until all have arrived; all must be resident at once."""
    for turn in range(ROUNDS):
        tl.atomic_add(arrived, 1, sem="release")
        count = tl.atomic_add(arrived, 0, sem="acquire")
        while count < (turn + 1) * blocks:
            count = tl.atomic_add(arrived, 0, sem="acquire")


def tanh_times(x: Tensor, rounds: int) -> None:
    """In place, ``rounds`` tanh of each of the numbers; their count is a multiple of ``BLOCK``."""
    grid = (x.numel() // BLOCK,)
    repeated_tanh[grid](x, rounds, BLOCK, not INTERPRETED.value)


def barriers(blocks: int, rounds: int, device: torch.device) -> Tensor:
    """So many barriers among so many blocks; the number of arrivals, [1]."""
    arrived = torch.zeros(1, dtype=torch.int32, device=device)
    repeated_barrier[(blocks,)](arrived, blocks, rounds)
    return arrived


def measure(rounds: int = 2048, turns: int = 1000) -> dict[str, float]:
    """All bounds on the current GPU, by the names of ``UNITS``.

    Args:
        rounds: tanh of each number.
        turns: barriers, beyond the few whose cost is taken off.
    """
    device = torch.device("cuda")
    torch.cuda.set_stream(torch.cuda.Stream())
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    x = torch.randn(processors * 16 * BLOCK, device=device)
    took = timing.time_on_gpu(lambda _: tanh_times(x, rounds), 2, graphed=True)
    small = torch.zeros(32, device=device)
    launch = timing.time_on_gpu(lambda _: small.add_(1), 500, graphed=False)
    node = timing.time_on_gpu(lambda _: small.add_(1), 500, graphed=True)
    # The difference of many and few barriers: without what the launch costs.
    few = timing.time_on_gpu(lambda _: barriers(processors, turns // 10, device), 1, graphed=True)
    more = turns // 10 + turns
    many = timing.time_on_gpu(lambda _: barriers(processors, more, device), 1, graphed=True)
    return {
        "copy": timing.copy_bandwidth(),
        "tanh": x.numel() * rounds / took.median_us * 1e6,
        "launch": launch.median_us,
        "graph_node": node.median_us,
        "barrier": (many.median_us - few.median_us) / turns,
    }


def markdown(found: common.Row) -> str:
    """The table."""
    lines = [f"# {module(NAME)}: {found['device']}", ""]
    lines += [f"- {k}: {v}" for k, v in found.items() if k not in ("device", "bounds")]
    lines += ["", "| bound | measured | |", "|---|---|---|"]
    for name, value in found["bounds"].items():
        unit, what = UNITS[name]
        lines.append(f"| {name} | {value:.4g} {unit} | {what} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write JSON and a table."""
    chosen = common.options(NAME, arguments)
    if chosen.device != "cuda":
        raise SystemExit("error: benchmarks.kernels.bounds measures a GPU; there is none")
    found = common.environment(chosen)
    found["bounds"] = measure(4, 10) if chosen.smallest else measure()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    common.write(chosen.folder / f"{NAME}.json", json.dumps(found, indent=1) + "\n")
    common.write(chosen.folder / f"{NAME}.md", markdown(found))
    for name, value in found["bounds"].items():
        print(f"{NAME}: {name} {value:.4g} {' = '.join(UNITS[name])}", flush=True)


if __name__ == "__main__":
    main()
