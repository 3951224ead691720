"""Compile every Triton kernel for sm_80 and sm_90: ``python -m las_kernels.tools.resource_usage``.

Needs no GPU: kernels are launched by the functions that launch them, on a stand-in for the driver.
Prints a Markdown table of registers, shared memory and spilled bytes, and fails if any kernel
spills. ``TRITON_INTERPRET`` must not be set.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch

from las_kernels import sequence
from las_kernels.backends import BACKENDS
from las_kernels.tools.stand_in import Launch, stand_in, usage_of
from las_kernels.types import Decoder, Masks, Memory, Score

ARCHITECTURES = (80, 90)
TRITON_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
# Few frames, and so many that one program does not join what the others found.
FRAMES, MANY_FRAMES = 40, 1000
UNITS = 64  # of the LSTM; its kernel is the same for any


class Model(NamedTuple):
    """Sizes of a decoder whose kernels are compiled; letters as in ``reference``."""

    name: str
    A: int
    D: int
    H: int = 1
    location: tuple[int, int] | None = None

    def inputs(self, frames: int, dtype: torch.dtype) -> tuple[Memory, Score]:
        """A memory of one utterance, and a score; their values do not matter."""
        new = partial(torch.zeros, dtype=dtype)
        C, W = self.location or (0, 0)
        filters, projection = (new(C, W), new(self.A, C)) if C else (None, None)
        lengths = torch.full((1,), frames)
        memory = Memory(new(1, frames, self.A), new(1, frames, self.D), lengths)
        return memory, Score(new(self.A), filters, projection, self.H)


MODELS = (
    Model("A512 D1024", 512, 1024),
    Model("A512 D1024 C10 W201", 512, 1024, location=(10, 201)),
    Model("A320 D320 C10 W101", 320, 320, location=(10, 101)),
    Model("A256 D512 H4 C32 W31", 256, 512, 4, (32, 31)),
)
WIDE = Model("A128 D2048", 128, 2048)  # only its context differs from the others


def search(model: Model, dtype: torch.dtype, beams: int) -> None:
    """Launch what a step of search does."""
    memory, score = model.inputs(FRAMES, dtype)
    query, context = torch.zeros(1, beams, model.A).to(dtype), torch.zeros(1, beams, model.D)
    alignment = torch.zeros(1, beams, model.H, FRAMES, dtype=dtype)
    previous = torch.zeros_like(alignment)
    BACKENDS["triton"].ops().forward(query, memory, score, previous, context.to(dtype), alignment)


def train(
    model: Model,
    dtype: torch.dtype,
    frames: int = FRAMES,
    dropout: bool = False,
    steps: int = 2,
) -> None:
    """Launch what a few steps of training do, forward and backward."""
    memory, score = model.inputs(frames, dtype)
    new, S = partial(torch.zeros, dtype=dtype), UNITS
    recurrent, query = [new(4 * S, S)], new(model.A, S)
    decoder = Decoder(new(0), new(4 * S, model.D), [], recurrent, [new(0)], query)
    masks = Masks(new(1, 1, S), new(1, model.D)) if dropout else Masks()
    ops = BACKENDS["triton"].ops()
    saved = sequence.forward(ops, new(1, steps, 4 * S), memory, decoder, score, masks)
    outer = (torch.zeros_like(saved.hidden), torch.zeros_like(saved.contexts), None)
    sequence.backward(ops, *outer, saved, memory, decoder, score, masks)


def runs() -> Iterator[tuple[str, torch.dtype, Callable[[], None]]]:
    """What launches every kernel: sizes, type and function."""
    for dtype in (torch.bfloat16, torch.float32):
        for model in MODELS:
            yield model.name, dtype, partial(train, model, dtype)
            # One beam is nearly what training launches.
            for beams in (1, 8) if model in MODELS[:2] else (8,):
                yield f"{model.name} N{beams}", dtype, partial(search, model, dtype, beams)
        for beams in (1, 8):
            yield f"{WIDE.name} N{beams}", dtype, partial(search, WIDE, dtype, beams)
    model, dtype = MODELS[0], torch.bfloat16
    yield f"{model.name} dropout", dtype, partial(train, model, dtype, dropout=True)
    yield f"{model.name} T{MANY_FRAMES}", dtype, partial(train, model, dtype, MANY_FRAMES)
    for beams in (1, 8):
        model, dtype = MODELS[0], torch.float16
        yield f"{model.name} N{beams}", dtype, partial(search, model, dtype, beams)


def launched(run: Callable[[], None], architecture: int) -> dict[str, Launch]:
    """The different kernels that a function launches, in order, by how they were called."""
    with stand_in(architecture) as launches, torch.no_grad():
        run()
    found: dict[str, Launch] = {}
    for launch in launches:
        same = [x for x in found.values() if x.name == launch.name]
        if all(x.kernel is not launch.kernel for x in same):
            found[f"{launch.name} {len(same)}"] = launch
    return found


def main() -> None:
    """Print the table; exit with 1 if a kernel spills."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kernel", help="only this one, e.g. attention_fwd_split_kernel")
    chosen = parser.parse_args().kernel
    print("| kernel | sizes | dtype | warps | " + " | ".join(f"sm_{a}" for a in ARCHITECTURES))
    print("|---|---|---|---|" + "---|" * len(ARCHITECTURES))
    spills, seen = 0, set()
    for note, dtype, run in runs():
        every = [launched(run, architecture) for architecture in ARCHITECTURES]
        for key, first in every[0].items():
            if first.kernel.hash in seen or chosen not in (None, first.name):
                continue
            seen.add(first.kernel.hash)
            cells = []
            for found in every:
                usage = usage_of(found[key].kernel)
                spills += usage.spilled > 0
                spilled = f", {usage.spilled} B spilled" if usage.spilled else ""
                cells.append(f"{usage.registers} registers, {usage.shared / 1024:.1f} KiB{spilled}")
            warps = str(first.kernel.metadata.num_warps)
            row = [first.name, note, TRITON_NAMES[dtype], warps, *cells]
            print(f"| {' | '.join(row)} |", flush=True)
    print(f"\n{len(seen)} kernels, {spills or 'none'} spilled")
    sys.exit(1 if spills else 0)


if __name__ == "__main__":
    main()
