"""Random inputs for the kernel tests, and how far two results are apart."""

import os
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from las_kernels import Decoder, Masks, Memory, Score, torch_library
from las_kernels.sequence import recurrent_parameters

DEVICE = os.environ.get("LAS_KERNELS_TEST_DEVICE", "cpu")
KINDS = ("additive", "location", "dot")
# For ids of tests: no name is part of another, so that `-k` can choose.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "fp16": torch.float16}


def dtype_name(dtype: torch.dtype) -> str:
    """How tests call a dtype."""
    return next((name for name, known in DTYPES.items() if known == dtype), str(dtype))


class Shape(NamedTuple):
    """Sizes; the letters are those of ``las_kernels.reference``."""

    B: int = 2
    N: int = 1
    T: int = 9
    A: int = 6
    D: int = 8
    H: int = 1
    C: int = 3
    W: int = 5
    U: int = 4
    E: int = 3
    S: int = 5
    L: int = 1


class Case(NamedTuple):
    """Everything ``attend`` and ``decode_sequence`` read, as leaves that need a gradient."""

    query: Tensor
    previous: Tensor
    embedded: Tensor
    memory: Memory
    score: Score
    decoder: Decoder
    masks: Masks

    def attention_leaves(self) -> dict[str, Tensor]:
        found = {"query": self.query, "keys": self.memory.keys, "values": self.memory.values}
        found |= {k: x for k, x in self.score._asdict().items() if isinstance(x, Tensor)}
        if self.score.filters is not None:
            found["previous"] = self.previous
        return found

    def sequence_leaves(self) -> dict[str, Tensor]:
        found = self.attention_leaves() | {"query": self.embedded}
        found.pop("previous", None)
        for name, x in self.decoder._asdict().items():
            for i, tensor in enumerate(x if isinstance(x, list) else [x]):
                found[f"{name}.{i}"] = tensor
        return found

    def to(self, dtype: torch.dtype) -> "Case":
        """Fresh leaves with the same values, rounded to another dtype."""

        def cast(x):
            if isinstance(x, Tensor):
                if not x.is_floating_point():
                    return x
                return x.detach().to(dtype, copy=True).requires_grad_(x.requires_grad)
            if isinstance(x, list):
                return [cast(y) for y in x]
            if isinstance(x, tuple):
                return x._make(cast(y) for y in x)
            return x

        return cast(self)


def lengths_for(batch: int, frames: int) -> Tensor:
    """Ragged: the first is full, the last 1."""
    found = torch.randint(1, frames + 1, (batch,))
    found[-1] = 1
    found[0] = frames
    return found


def case(
    kind: str, shape: Shape, dtype=torch.float64, seed: int = 0, dropout: bool = False
) -> Case:
    s = shape
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)

    def leaf(*size, scale=1.0):
        x = torch.randn(*size, generator=generator, dtype=torch.float64) * scale
        return x.to(DEVICE, dtype).requires_grad_()

    lengths = lengths_for(s.B, s.T).to(DEVICE)
    memory = Memory(leaf(s.B, s.T, s.A), leaf(s.B, s.T, s.D), lengths)
    v = None if kind == "dot" else leaf(s.A)
    filters = leaf(s.C, s.W, scale=2.0) if kind == "location" else None
    projection = leaf(s.A, s.C) if kind == "location" else None
    score = Score(v, filters, projection, s.H, (s.A // s.H) ** -0.5)
    valid = torch.arange(s.T, device=DEVICE) < lengths[:, None, None, None]
    energy = leaf(s.B, s.N, s.H, s.T).detach().double()
    previous = energy.masked_fill(~valid, -torch.inf).softmax(-1).to(dtype).requires_grad_()
    w = 0.4
    decoder = Decoder(
        leaf(4 * s.S, s.E, scale=w),
        leaf(4 * s.S, s.D, scale=w),
        [leaf(4 * s.S, s.S, scale=w) for _ in range(s.L - 1)],
        [leaf(4 * s.S, s.S, scale=w) for _ in range(s.L)],
        [leaf(4 * s.S, scale=w) for _ in range(s.L)],
        leaf(s.A, s.S, scale=w),
    )
    masks = Masks()
    if dropout:
        drop = torch.nn.functional.dropout
        masks = Masks(
            drop(torch.ones(s.B, s.L, s.S), 0.3).to(DEVICE, dtype),
            drop(torch.ones(s.B, s.D), 0.3).to(DEVICE, dtype),
        )
    return Case(leaf(s.B, s.N, s.A), previous, leaf(s.B, s.U, s.E), memory, score, decoder, masks)


def gradients(results, leaves: dict[str, Tensor], seed: int = 1) -> dict[str, Tensor]:
    """Gradients of a random sum of the results, whose weights every dtype can hold."""
    generator = torch.Generator().manual_seed(seed)
    total = 0.0
    for x in results:
        weight = torch.randn(x.shape, generator=generator).bfloat16().double().to(x.device)
        total = total + (x.double() * weight).sum()
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return dict(zip(leaves, found, strict=True))


def relative(found: Tensor, expected: Tensor) -> float:
    """Root-mean-square error over the root mean square of what is expected."""
    error = (found.detach().double() - expected.detach().double()).norm()
    return float(error / expected.detach().double().norm().clamp_min(1e-30))


def detached(x):
    """Without gradients: a tensor, or all that are in lists and named tuples."""
    if isinstance(x, Tensor):
        return x.detach()
    if isinstance(x, list):
        return [detached(y) for y in x]
    return x._make(detached(y) for y in x) if isinstance(x, tuple) else x


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def same(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> bool:
    """Equal to the bit, NaN included."""
    return all(
        x.shape == y.shape and np.array_equal(x.numpy().view(np.int32), y.numpy().view(np.int32))
        for x, y in zip(left, right, strict=True)
    )


def check_backward_operators(kind: str, dtype: torch.dtype, backend: str) -> None:
    """What both backward operators return has the shapes and dtypes that their fakes promise."""
    c = case(kind, Shape(B=2, N=1, T=5, A=4, D=4, C=2, W=3, U=2, S=4), torch.float64).to(dtype)

    def given(x):
        if isinstance(x, list):
            return [given(y) for y in x]
        return x.detach() if isinstance(x, Tensor) else x

    memory, score = [given(x) for x in c.memory], [given(x) for x in c.score]
    previous = given(c.previous) if kind == "location" else None
    step = (given(c.query), *memory, previous, *score, backend)
    context, alignment = torch_library.attend(*step)
    gradients = (torch.ones_like(context), torch.ones_like(alignment))
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        torch_library.attend_backward, (*gradients, alignment, *step), test_utils=checks
    )
    weights = [given(x) for x in recurrent_parameters(c.decoder)]
    projected = torch.randn(2, 2, 16).to(DEVICE, dtype)
    rest = (*score[:3], None, None, *score[3:], backend)
    kept = torch_library.decode_sequence(projected, *memory, weights, *rest)
    gradients = (torch.ones_like(x) for x in kept[:3])
    torch.library.opcheck(
        torch_library.decode_sequence_backward,
        (*gradients, list(kept), *memory, weights, *rest),
        test_utils=checks,
    )
