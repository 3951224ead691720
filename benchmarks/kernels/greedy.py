"""Greedy search, character by character: ``python -m benchmarks.kernels.greedy``.

Decoders with random weights write a fixed number of characters, which nothing may end before.
Columns are microseconds a character: of all utterances of the batch together.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import las_kernels
from benchmarks import common
from benchmarks.kernels import timing
from benchmarks.kernels.shapes import Case, random_decoder, random_inputs
from las_kernels import Decoder, Memory, Score, reference
from las_kernels.backends import why_not
from las_kernels.cuda import persistent_decoder
from las_kernels.cuda.persistent_decoder import Readout

NAME = "greedy"
CHARACTERS, BLANK, END = 30, 0, 1
BOTH = ("additive", "location")
GPU_CASES = (
    Case("B1 T250", 1, 250, 512, 1024, W=101, U=200),
    Case("B32 T250", 32, 250, 512, 1024, W=101, U=200),
    Case("B1 T250 float32", 1, 250, 512, 1024, W=101, U=200, dtype=torch.float32),
    Case("B32 T250 float32", 32, 250, 512, 1024, W=101, U=200, dtype=torch.float32),
)
CPU_CASES = (Case("B1 T60", 1, 60, 64, 96, W=31, U=20, S=64, dtype=torch.float32),)
SMALLEST = (Case("B2 T9", 2, 9, 8, 12, C=2, W=3, U=3, S=8, dtype=torch.float32),)


class Inputs(NamedTuple):
    """What a search reads."""

    memory: Memory
    decoder: Decoder
    score: Score
    readout: Readout
    steps: int


def inputs_of(case: Case, kind: str, device: torch.device) -> Inputs:
    """Random inputs; a bias keeps the end from being written."""
    _, memory, score, _ = random_inputs(case, kind, device)
    _, decoder = random_decoder(case, device)
    generator = torch.Generator(device).manual_seed(1)

    def draw(*shape: int) -> Tensor:
        x = torch.randn(shape, generator=generator, device=device) * shape[-1] ** -0.5
        return x.to(case.dtype)

    S = case.S
    bias = draw(CHARACTERS)
    bias[END] = -1e4
    readout = Readout(
        draw(CHARACTERS, 4 * S), draw(S, S + case.D), draw(S), draw(CHARACTERS, S), bias
    )
    return Inputs(memory, decoder, score, readout, case.U)


def step_by_step(step: Callable[..., Any], given: Inputs) -> Tensor:
    """Ids [B, steps], one call of ``step`` after another; the host does not wait in between."""
    memory, decoder, score, readout, steps = given
    state = reference.initial_state(memory, decoder, score)
    tokens = torch.full_like(memory.lengths, END)
    ids = []
    for _ in range(steps):
        projected = readout.embedded[tokens][:, None]
        output, state = step(projected, state, memory, decoder, score)
        read = torch.tanh(F.linear(torch.cat([output, state.context], -1), *readout[1:3]))
        log_probs = F.linear(read, *readout[3:])[:, 0].float().log_softmax(-1)
        log_probs[:, BLANK] = float("-inf")
        tokens = log_probs.argmax(-1)
        ids.append(tokens)
    return torch.stack(ids, 1)


def in_one_launch(given: Inputs) -> Tensor:
    """Ids [B, steps], by the persistent decoder."""
    limits = torch.full_like(given.memory.lengths, given.steps)
    return persistent_decoder.greedy(*given[:4], limits, blank=BLANK, end=END).ids


def methods(device: str, dtype: torch.dtype) -> dict[str, tuple[Callable[..., Any], str | None]]:
    """By name: the function, and why it cannot run."""
    where = torch.device(device)
    found: dict[str, tuple[Callable[..., Any], str | None]] = {
        "eager": (partial(step_by_step, reference.decode_step), None)
    }
    for backend in ("triton", "cuda") if device == "cuda" else ("cpp",):
        fused = partial(las_kernels.decode_step, backend=backend)
        found[backend] = (partial(step_by_step, fused), why_not(backend, where, dtype))
    if device == "cuda":
        found |= {f"{name} graphed": method for name, method in list(found.items())}
        found["persistent"] = (in_one_launch, why_not("persistent", where, dtype))
    return found


def measure(case: Case, kind: str, record: common.Record, chosen: argparse.Namespace) -> None:
    """All methods of one case."""
    device = torch.device(chosen.device)
    found = methods(chosen.device, case.dtype)
    for name in common.in_order(found, chosen.methods):
        run, reason = found[name]
        row: common.Row = {"benchmark": NAME, "case": case.name, "kind": kind}
        row |= {"dtype": str(case.dtype)[6:], "method": name}
        if record.has(row):
            continue
        try:
            if reason is not None:
                raise RuntimeError(reason)
            given = inputs_of(case, kind, device)

            def call(_: int, run: Callable[..., Any] = run, given: Inputs = given) -> object:
                with torch.no_grad():
                    return run(given)

            if chosen.device == "cuda":
                took = timing.time_on_gpu(call, 1, name.endswith("graphed"))
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
    common.exact_float32()
    cases: tuple[Case, ...] = CPU_CASES if chosen.device == "cpu" else GPU_CASES
    if chosen.smallest:
        cases = SMALLEST
    if chosen.device == "cuda":
        torch.cuda.set_stream(torch.cuda.Stream())
    record = common.Record(NAME, chosen.folder, common.environment(chosen), chosen.keep)
    for case in common.asked_for(cases, chosen.cases, "case"):
        for kind in common.in_order(BOTH, chosen.kinds):
            if time.monotonic() > chosen.end:
                record.add({"case": case.name, "kind": kind, "skipped": "no time left"})
                continue
            measure(case, kind, record, chosen)
    common.render(NAME, chosen.folder, not chosen.no_plot)


if __name__ == "__main__":
    main()
