"""Attention over a sequence, forward and backward: ``python -m benchmarks.kernels.sequence``.

What a training run pays for attention alone, queries given: every step reads keys and values, their
gradients are needed once a sequence. Autograd adds them up step by step; the fused backward makes
them in its deferred phases, which are part of its time here. Columns are microseconds a step.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import common
from benchmarks.kernels import timing
from benchmarks.kernels.shapes import Case, librispeech, random_inputs
from las_kernels import Memory, Score, backends, reference
from las_kernels.eager import OpTable
from las_kernels.sequence import AttentionBackward, gradient_of_values

NAME = "sequence"
BOTH = ("additive", "location")
LENGTHS = librispeech(32)
GPU_CASES = (
    Case("B32 T200 U50", 32, 200, 512, 1024, U=50),
    Case("B64 T250 U50", 64, 250, 512, 1024, U=50),
    Case("LibriSpeech B32 U50", 32, max(LENGTHS), 512, 1024, U=50, lengths=LENGTHS),
)
CPU_CASES = (Case("B4 T60 U10", 4, 60, 64, 96, W=31, U=10, dtype=torch.float32),)
SMALLEST = (Case("B2 T9 U2", 2, 9, 8, 12, C=2, W=3, U=2, lengths=(9, 5), dtype=torch.float32),)

Inputs = tuple[Tensor, Memory, Score, Tensor]  # queries [B, U, A], .., gradients of contexts
Run = Callable[[Tensor, Memory, Score, Tensor], Any]


def inputs_of(case: Case, kind: str, device: torch.device) -> Inputs:
    """Random inputs, the same for every method."""
    queries, memory, score, _ = random_inputs(case._replace(N=case.U), kind, device)
    generator = torch.Generator(device).manual_seed(2)
    given = torch.randn(case.B, case.U, case.D, generator=generator, device=device)
    return queries, memory, score, given.to(case.dtype)


def leaves(inputs: Inputs) -> list[Tensor]:
    """The tensors that get a gradient."""
    queries, memory, score, _ = inputs
    given = (queries, *memory[:2], *score[:3])
    return [x for x in given if x is not None]


def by_autograd(
    attend: Callable[..., tuple[Tensor, Tensor]], queries: Tensor, memory: Memory, score: Score,
    given: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of :func:`leaves`, by one call of ``attend`` after another and autograd."""
    T = memory.keys.shape[1]
    # As all that come later, or what is compiled for the first would not do for the others.
    previous = reference.initial_alignment(
        memory.lengths, T, 1, score.heads, queries.dtype
    ).contiguous()
    contexts = []
    # A slice for each step would have autograd add up as many gradients of all queries.
    for query in queries.unbind(1):
        context, previous = attend(query[:, None], memory, score, previous)
        contexts.append(context)
    wanted = leaves((queries, memory, score, given))
    return torch.autograd.grad(torch.cat(contexts, 1), wanted, given)


@torch.no_grad()
def in_three_phases(
    ops: OpTable, queries: Tensor, memory: Memory, score: Score, given: Tensor
) -> tuple[Tensor, ...]:
    """The same by the kernels, as ``las_kernels.sequence`` drives them."""
    B, U, _ = queries.shape
    T, H = memory.keys.shape[1], score.heads
    contexts, alignments = torch.empty_like(given), queries.new_empty(B, U, H, T)
    start = reference.initial_alignment(memory.lengths, T, 1, H, queries.dtype).contiguous()
    attend = ops.plan_forward(memory, score, 1)
    for u in range(U):
        step = slice(u, u + 1)
        before = alignments[:, u - 1 : u] if u > 0 else start
        attend(queries[:, step], before, contexts[:, step], alignments[:, step])
    previous = None if score.filters is None else torch.cat([start, alignments[:, :-1]], 1)
    inputs = (queries, memory, score, alignments, previous)
    attention = AttentionBackward(ops, *inputs, at_once=1)
    dprevious: Tensor | None = None
    for u in reversed(range(U)):
        dprevious = attention.phase1(u, given[:, u : u + 1], dprevious)
    found = attention.phase2()
    dvalues = gradient_of_values(alignments, given)
    gradients = (attention.dqueries, found.keys, dvalues, *found[1:])
    return tuple(x for x in gradients if x is not None)


def methods(device: str) -> dict[str, Run]:
    """By name: the function, from inputs to gradients."""
    compiled = torch.compile(reference.attend, dynamic=False)
    found: dict[str, Run] = {
        "eager": partial(by_autograd, reference.attend),
        "compile": partial(by_autograd, compiled),
    }
    backend = "triton" if device == "cuda" else "threephase"
    found[backend] = partial(in_three_phases, backends.BACKENDS[backend].ops())
    if device == "cuda":
        found |= {f"{name} graphed": run for name, run in list(found.items())}
    return found


def measure(case: Case, kind: str, record: common.Record, chosen: argparse.Namespace) -> None:
    """All methods of one case."""
    device = torch.device(chosen.device)
    found = methods(chosen.device)
    for name in common.in_order(found, chosen.methods):
        run = found[name]
        row: common.Row = {"benchmark": NAME, "case": case.name, "kind": kind}
        row |= {"dtype": str(case.dtype)[6:], "pass": "both", "method": name}
        if record.has(row):
            continue
        try:
            inputs = inputs_of(case, kind, device)
            for x in leaves(inputs):
                x.requires_grad_()

            def call(_: int, run: Run = run, inputs: Inputs = inputs) -> object:
                return run(*inputs)

            if chosen.device == "cuda":
                took = timing.time_on_gpu(call, 1, name.endswith("graphed"))
                row["peak_bytes"] = timing.peak_bytes(call)
            else:
                took = timing.time_on_cpu({name: call}, 3 if chosen.smallest else 15)[name]
            figures = took._asdict()
            for key in ("median_us", "p20_us", "p80_us"):
                figures[key] /= case.U
            record.add({**row, **figures})
        except Exception as error:
            record.add({**row, "skipped": common.reason(error)})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or make the tables of a run that was killed."""
    chosen = common.options(NAME, arguments, ("cases", "kinds", "methods"))
    if chosen.render:
        common.render(NAME, chosen.folder, not chosen.no_plot)
        return
    common.prepare_compiler()
    common.exact_float32()
    cases: tuple[Case, ...] = CPU_CASES if chosen.device == "cpu" else GPU_CASES
    if chosen.smallest:
        cases = SMALLEST
    if chosen.device == "cuda":
        # A backward pass can be captured only on the stream of its forward pass.
        torch.cuda.set_stream(torch.cuda.Stream())
    record = common.Record(NAME, chosen.folder, common.environment(chosen), chosen.keep)
    for case in common.asked_for(cases, chosen.cases, "case"):
        for kind in common.in_order(BOTH, chosen.kinds):
            if time.monotonic() > chosen.end:
                record.add({"case": case.name, "kind": kind, "skipped": "no time left"})
                continue
            torch._dynamo.reset()
            measure(case, kind, record, chosen)
    common.render(NAME, chosen.folder, not chosen.no_plot)


if __name__ == "__main__":
    main()
