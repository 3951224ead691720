"""What the hardware counts while each kernel runs once: Nsight Compute's ``ncu``, read as CSV."""

import csv
import re
from collections.abc import Iterator, Sequence

METRICS = {
    "gpu__time_duration.sum": "ns",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "memory %",
    "sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active": "tanh unit %",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "warps %",
    "launch__registers_per_thread": "registers",
    "launch__grid_size": "blocks",
}
# Ours alone, of all that torch launches between them.
KERNELS = r"^(attention_\w+|persistent_decoder)_kernel$"
LAUNCHES = 12


def command(target: Sequence[str]) -> list[str]:
    """What measures the kernels that a program launches."""
    return [
        *("ncu", "--clock-control", "none", "--target-processes", "application-only"),
        *("--kernel-name", f"regex:{KERNELS}", "--launch-count", str(LAUNCHES)),
        *("--csv", "--page", "raw", "--print-units", "base", "--metrics", ",".join(METRICS)),
        *target,
    ]


def launch() -> int:
    """Launch every kernel once, at the sizes of the headline."""
    import torch

    from benchmarks.kernels import attention, decoder
    from benchmarks.kernels.shapes import random_inputs
    from las_kernels import attend, decode_sequence
    from las_kernels.cuda import attention_step as cuda_step
    from las_kernels.cuda import persistent_decoder

    device = torch.device("cuda")
    case = next(case for case in attention.GPU_CASES if case.name == "B64 T250")
    given = random_inputs(case, "additive", device)
    for x in attention.leaves(given):
        x.requires_grad_()
    context, _ = attend(*given, backend="triton")
    torch.autograd.grad(context, attention.leaves(given), torch.ones_like(context))
    with torch.no_grad():
        if cuda_step.available() is None:
            attend(*given, backend="cuda")
        if persistent_decoder.available() is None:
            few = decoder.GPU_CASES[0]._replace(U=20)
            embedded, memory, score, weights = decoder.inputs_of(few, "additive", device)
            decode_sequence(embedded, memory, weights, score, backend="persistent")
    torch.cuda.synchronize()
    return 0


def report(log: str) -> Iterator[dict[str, str]]:
    """One row for each launch that ncu tells of in its output."""
    lines = [line for line in log.splitlines() if line.startswith('"')]
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    for row in csv.DictReader(lines[start:]):
        if row["ID"] not in ("", "ID"):  # lines of units, and the titles of a later run
            name = re.search(r"\w+(?=(<.*>)?(\(|$))", row.get("Kernel Name", ""))
            values = {short: row[metric] for metric, short in METRICS.items() if metric in row}
            yield {"kernel": name[0] if name else "?", **values}


def told(row: dict[str, str]) -> str:
    """A row in one line."""
    values = ", ".join(f"{key} {value}" for key, value in row.items() if key != "kernel")
    return f"counters: {row['kernel']}: {values}"
