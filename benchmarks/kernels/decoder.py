"""The whole decoder, in training and in search: ``python -m benchmarks.kernels.decoder``."""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

import las_kernels
from benchmarks import common
from benchmarks.kernels import timing
from benchmarks.kernels.shapes import Case, librispeech, random_decoder, random_inputs
from las_kernels import Decoder, Memory, Score, reference
from las_kernels.cpu import attention_step as cpu_step
from las_kernels.cuda import attention_step as cuda_step
from las_kernels.cuda import persistent_decoder

NAME = "decoder"
PASSES = ("forward", "backward", "both")
LENGTHS = librispeech(32)
BOTH = ("additive", "location")
# Variables of the environment that make another method of one.
VARIABLES = {"auto python loop": {"LAS_KERNELS_LOOP": "python"}}

GPU_CASES = (
    Case("train LibriSpeech B32 U200", 32, max(LENGTHS), 512, 1024, U=200, lengths=LENGTHS),
    Case("search B16 N8 T250 U50", 16, 250, 512, 1024, N=8, U=50, trains=False),
    Case("train B64 T250 U250", 64, 250, 512, 1024, U=250),
    Case("search B1 N8 T250 U50", 1, 250, 512, 1024, N=8, U=50, trains=False),
)
CPU_CASES = (
    Case("train B4 T60 U10 A64 D96", 4, 60, 64, 96, W=31, U=10, S=64, dtype=torch.float32),
    Case("search B4 N8 T250 U10 A320 D640", 4, 250, 320, 640, N=8, U=10, S=320, trains=False,
         dtype=torch.float32),
)  # fmt: skip
SMALLEST = (
    Case("train B2 T9 U2", 2, 9, 8, 12, C=2, W=3, U=2, S=8, dtype=torch.float32),
    Case("search B2 N3 T9 U2", 2, 9, 8, 12, N=3, C=2, W=3, U=2, S=8, trains=False,
         dtype=torch.float32),
)  # fmt: skip

Inputs = tuple[Tensor, Memory, Score, Decoder]
Run = Callable[[Tensor, Memory, Score, Decoder], Any]


def steps(
    step: Callable[..., Any], beams: int, embedded: Tensor, memory: Memory, score: Score,
    decoder: Decoder,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Outputs [B, U, N, S] and contexts [B, U, N, D] of one call of ``step`` after another."""
    projected = F.linear(embedded, decoder.embedding_weight, decoder.biases[0])
    state = reference.initial_state(memory, decoder, score, beams)
    outputs, contexts = [], []
    for u in range(embedded.shape[1]):
        each = projected[:, u, None].expand(-1, beams, -1)
        output, state = step(each, state, memory, decoder, score)
        outputs.append(output)
        contexts.append(state.context)
    return torch.stack(outputs, 1), torch.stack(contexts, 1)


def with_attention(
    attend: Callable[..., Any],
    projected: Tensor,
    state: reference.State,
    memory: Memory,
    decoder: Decoder,
    score: Score,
) -> Any:
    """A step of the decoder with another attention."""
    return reference.decode_step(projected, state, memory, decoder, score, None, attend)


def sequence(backend: str, embedded: Tensor, memory: Memory, score: Score, decoder: Decoder) -> Any:
    """The fused operator of the whole sequence: outputs and contexts."""
    return las_kernels.decode_sequence(embedded, memory, decoder, score, backend=backend)[:2]


def methods(device: str, case: Case) -> dict[str, tuple[Run, str | None]]:
    """By name: the function, and why it cannot run.

    A compiled sequence would be one graph of U steps, which takes minutes: the step is compiled.
    What ``las train`` runs is "auto": shapes change from batch to batch, so no graph is made of it.
    """
    compiled = torch.compile(reference.decode_step, dynamic=False)
    found: dict[str, tuple[Run, str | None]] = {
        "eager": (partial(steps, reference.decode_step, case.N), None),
        "compile": (partial(steps, compiled, case.N), None),
    }
    if case.trains:
        backend = "triton" if device == "cuda" else "threephase"
        found[backend] = (partial(sequence, backend), None)
        if device == "cuda":
            found["persistent"] = (partial(sequence, "persistent"), persistent_decoder.available())
    elif device == "cuda":
        fused = partial(las_kernels.decode_step, backend="triton")
        found["triton"] = (partial(steps, fused, case.N), None)
        step = partial(with_attention, cuda_step.attend)
        found["cuda"] = (partial(steps, step, case.N), cuda_step.available())
    else:
        step = partial(with_attention, cpu_step.attend)
        found["cpp"] = (partial(steps, step, case.N), cpu_step.available())
    if device == "cuda":
        found |= {f"{name} graphed": method for name, method in list(found.items())}
        if case.trains:
            found["auto"] = (partial(sequence, "auto"), None)
            found["auto python loop"] = found["auto"]
    return found


def leaves(inputs: Inputs) -> list[Tensor]:
    """The tensors that get a gradient."""
    embedded, memory, score, decoder = inputs
    found = [embedded, memory.keys, memory.values]
    found += [x for x in (score.v, score.filters, score.projection) if x is not None]
    found += [decoder.embedding_weight, decoder.context_weight, decoder.query_weight]
    return [*found, *decoder.recurrent_weights, *decoder.biases]


def calls(run: Run, inputs: Inputs, trains: bool) -> dict[str, timing.Call]:
    """The passes to time, by name."""
    if not trains:

        def inference(_: int) -> object:
            with torch.no_grad():
                return run(*inputs)

        return {"forward": inference}
    for x in leaves(inputs):
        x.requires_grad_()
    kept = run(*inputs)
    given = [torch.randn_like(x) for x in kept]

    def backward(_: int) -> object:
        return torch.autograd.grad(kept, leaves(inputs), given, retain_graph=True)

    def both(_: int) -> object:
        return torch.autograd.grad(run(*inputs), leaves(inputs), given)

    return {"forward": lambda _: run(*inputs), "backward": backward, "both": both}


def bytes_bound(case: Case, which: str) -> int:
    """Bytes of a decoder that keeps nothing in a cache from one step to the next.

    Every step reads the memory and the weights, forward as well as backward; the gradients of
    both are written once. A persistent kernel can move fewer.
    """
    memory = case.frames * (case.A + case.D)
    weights = 4 * case.S * (case.D + case.S) + case.A * case.S
    states = case.B * case.N * (case.A + case.D + 8 * case.S + 2 * case.T)
    forward = case.U * (memory + weights + states)
    backward = forward + memory + weights
    found = {"forward": forward, "backward": backward, "both": forward + backward}
    return found[which] * case.dtype.itemsize


def row_of(case: Case, kind: str, which: str, method: str) -> common.Row:
    """What a row says besides its numbers."""
    row: common.Row = {"benchmark": NAME, "case": case.name, "kind": kind}
    row |= {"dtype": str(case.dtype)[6:], "pass": which, "method": method}
    sizes = {key: getattr(case, key) for key in "BNTADHCWUS"}
    return {**row, "sizes": {**sizes, "frames": case.frames}}


def inputs_of(case: Case, kind: str, device: torch.device) -> Inputs:
    """Random inputs, the same for every method."""
    _, memory, score, _ = random_inputs(case, kind, device)
    embedded, decoder = random_decoder(case, device)
    return embedded, memory, score, decoder


def measure(
    case: Case, kind: str, record: common.Record, chosen: argparse.Namespace, bandwidth: float,
    device: torch.device,
) -> None:  # fmt: skip
    """All methods of one case."""
    on_cpu: dict[str, dict[str, timing.Call]] = {}
    found = methods(chosen.device, case)
    here = {"threads": torch.get_num_threads()} if chosen.device == "cpu" else {}
    for name in common.in_order(found, chosen.methods):
        run, reason = found[name]
        passes = common.in_order(PASSES if case.trains else ("forward",), chosen.passes)
        passes = [p for p in passes if not record.has({**row_of(case, kind, p, name), **here})]
        if not passes:
            continue
        try:
            if reason is not None:
                raise RuntimeError(reason)
            inputs = inputs_of(case, kind, device)
            with mock.patch.dict(os.environ, VARIABLES.get(name, {})):
                several = calls(run, inputs, case.trains)
                for which in passes:
                    call = several[which]
                    if chosen.device == "cpu":
                        on_cpu.setdefault(which, {})[name] = call
                        continue
                    took = timing.time_on_gpu(call, 1, name.endswith("graphed"))
                    bound = bytes_bound(case, which) / bandwidth * 1e6
                    row = {**row_of(case, kind, which, name), **took._asdict(), "bound_us": bound}
                    row |= {"fraction": bound / took.median_us}
                    row |= {"peak_bytes": timing.peak_bytes(call)}
                    record.add(row)
        except Exception as error:
            record.add({**row_of(case, kind, "", name), "skipped": common.reason(error)})
    for which, several in on_cpu.items():
        repeats, patience = (3, 0.0) if chosen.smallest else (15, 60.0)
        timings, busy = timing.time_when_quiet(several, repeats, patience)
        for name, took in timings.items():
            row = {**row_of(case, kind, which, name), **here}
            record.add({**row, **took._asdict(), "others": busy})


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
        for kind in common.in_order(BOTH, chosen.kinds):
            if time.monotonic() > chosen.end:
                row = {"case": case.name, "kind": kind, "skipped": "no time left"}
                record.add(row)
                continue
            torch._dynamo.reset()
            measure(case, kind, record, chosen, bandwidth, torch.device(chosen.device))
    common.render(NAME, chosen.folder, not chosen.no_plot)


if __name__ == "__main__":
    main()
