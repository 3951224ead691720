"""Bytes that the forward pass keeps for the backward: ``python -m las_kernels.tools.saved_bytes``.

Counted by torch's own hooks on saved tensors. On the device "meta" nothing is computed or
allocated, so that sizes of a large GPU can be counted anywhere.
"""

from typing import NamedTuple

import torch
from torch import Tensor

import las_kernels
from las_kernels.types import Decoder, Memory, Score


class Sizes(NamedTuple):
    """Sizes of a decoder; the letters are those of ``las_kernels.reference``."""

    B: int = 64
    T: int = 250
    U: int = 250
    A: int = 512
    D: int = 1024
    S: int = 1024
    E: int = 64
    C: int = 10
    W: int = 201


def kept_bytes(
    sizes: Sizes, kind: str, dtype: torch.dtype, backend: str, device: str = "meta"
) -> int:
    """Bytes kept by one ``decode_sequence``, its inputs and weights not counted.

    Args:
        sizes: of the decoder.
        kind: "additive" or "location".
        dtype: of everything.
        backend: see ``las_kernels.backends``.
        device: "meta", or one that computes.
    """
    s = sizes

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype, device=device).requires_grad_()

    located = kind == "location"
    filters, projection = (leaf(s.C, s.W), leaf(s.A, s.C)) if located else (None, None)
    score = Score(leaf(s.A), filters, projection)
    recurrent, bias = leaf(4 * s.S, s.S), leaf(4 * s.S)
    weights = leaf(4 * s.S, s.E), leaf(4 * s.S, s.D)
    decoder = Decoder(*weights, [], [recurrent], [bias], leaf(s.A, s.S))
    lengths = torch.full((s.B,), s.T, device=device)
    memory = Memory(leaf(s.B, s.T, s.A), leaf(s.B, s.T, s.D), lengths)
    embedded = leaf(s.B, s.U, s.E)
    inputs = [embedded, *memory, *weights, recurrent, bias, decoder.query_weight]
    inputs += [x for x in score[:3] if x is not None]
    storages = {_storage(x): 0 for x in inputs}
    alive = []

    def keep(x: Tensor) -> Tensor:
        storages.setdefault(_storage(x), x.untyped_storage().nbytes())
        alive.append(x)  # lest its storage's address is used again
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        result = las_kernels.decode_sequence(embedded, memory, decoder, score, backend=backend)
    del result
    return sum(storages.values())


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata  # tensors on "meta" have no address


def main() -> None:
    """Print the table for the default sizes."""
    sizes = Sizes()
    print(" ".join(f"{k}{v}" for k, v in sizes._asdict().items()), "\n")
    print("| score | dtype | eager | fused | ratio |\n|---|---|---|---|---|")
    for kind in ("additive", "location"):
        for dtype in (torch.float32, torch.bfloat16):
            eager, fused = (
                kept_bytes(sizes, kind, dtype, name) for name in ("reference", "threephase")
            )
            name = str(dtype).removeprefix("torch.")
            row = f"{eager / 1e9:.2f} GB | {fused / 1e9:.2f} GB | {eager / fused:.1f}"
            print(f"| {kind} | {name} | {row} |")


if __name__ == "__main__":
    main()
