"""The ops of the three-phase form in plain PyTorch: any device, any dtype, exact in float64.

They make an :class:`OpTable`; :mod:`las_kernels.sequence` builds the whole sequence from one.
Other tables replace some or all of the functions. N is the number of queries that
share an utterance's memory: beams in search, output steps in phase 2.

Ops write into tensors they are given (views of one buffer for the whole sequence), which may
be strided in their first two dimensions and are contiguous in the others.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv1d_weight

from las_kernels import reference
from las_kernels.types import Memory, Score


class ScoreGradients(NamedTuple):
    """Gradients that are deferred to the end of the sequence; None as in ``Score``."""

    keys: Tensor  # [B, T, A]
    v: Tensor | None  # [A]
    filters: Tensor | None  # [C, W]
    projection: Tensor | None  # [A, C]


class OpTable(NamedTuple):
    """Functions with the signatures of this module's functions of the same names."""

    forward: Callable[..., None]
    location_conv: Callable[..., Tensor]
    backward: Callable[..., Tensor | None]
    backward_dkv: Callable[..., ScoreGradients]
    lstm_cell: Callable[..., None]
    lstm_cell_backward: Callable[..., Tensor]
    # All steps of the recurrence in one call, where the table has such a thing: a module with the
    # functions `usable`, `forward` and `backward` of :mod:`las_kernels.cpu.sequence`.
    sequence: Any = None
    # `forward` and `backward` of many steps over one memory, one after another, N queries each,
    # where a table plans such steps once: given memory, score and N, they make a function without
    # the arguments memory and score.
    forward_steps: Callable[..., Callable[..., None]] | None = None
    backward_steps: Callable[..., Callable[..., Tensor | None]] | None = None

    def plan_forward(self, memory: Memory, score: Score, N: int) -> Callable[..., None]:  # noqa: N803
        """:func:`forward` of steps of N queries, without the arguments memory and score."""
        if self.forward_steps is not None:
            return self.forward_steps(memory, score, N)
        return lambda query, *rest: self.forward(query, memory, score, *rest)

    def plan_backward(
        self,
        memory: Memory,
        score: Score,
        N: int,  # noqa: N803
    ) -> Callable[..., Tensor | None]:
        """:func:`backward` of steps of N queries, without the arguments memory and score."""
        if self.backward_steps is not None:
            return self.backward_steps(memory, score, N)
        return lambda dc, da, alignment, query, *rest: self.backward(
            dc, da, alignment, query, memory, score, *rest
        )


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """What sums are kept in: float32 for the half-precision types, else the type itself."""
    return dtype if dtype.itemsize >= 4 else torch.float32


def forward(
    query: Tensor,
    memory: Memory,
    score: Score,
    previous: Tensor | None,
    context: Tensor,
    alignment: Tensor,
) -> None:
    """Attention of one step into ``context`` [B, N, D] and ``alignment`` [B, N, H, T]."""
    found = reference.attend(query, memory, score, previous)
    context.copy_(found[0])
    alignment.copy_(found[1])


def location_conv(previous: Tensor, filters: Tensor) -> Tensor:
    """Location features [B, N, H, C, T] of the alignments before, [B, N, H, T]."""
    B, N, H, T = previous.shape
    C, W = filters.shape
    features = F.conv1d(previous.reshape(B * N * H, 1, T), filters[:, None], padding=W // 2)
    return features.view(B, N, H, C, T)


def backward(
    dcontext: Tensor,
    dalignment: Tensor | None,
    alignment: Tensor,
    query: Tensor,
    memory: Memory,
    score: Score,
    features: Tensor | None,
    denergy: Tensor,
    dquery: Tensor,
    dfeatures: Tensor | None,
) -> Tensor | None:
    """Phase 1: what the step before needs, from the gradient of one step.

    With ``g = dcontext . values + dalignment`` the softmax gives
    ``denergy = alignment (g - sum(alignment g))``; the tanh is computed again.

    Args:
        dcontext: [B, N, D].
        dalignment: [B, N, H, T] from outside and from the location filters of the next step.
        alignment: [B, N, H, T] of this step.
        query: [B, N, A].
        memory: what was attended to.
        score: the score function.
        features: [B, N, H, C, T] from :func:`location_conv`, for location-aware scores.
        denergy: [B, N, H, T], written.
        dquery: [B, N, A], written.
        dfeatures: [B, N, H, C, T], written, for location-aware scores.

    Returns:
        The gradient of the alignment before [B, N, H, T], for location-aware scores.
    """
    B, N, H, T = alignment.shape
    values = memory.values.view(B, T, H, -1)
    g = torch.einsum("bnhd,bthd->bnht", dcontext.reshape(B, N, H, -1), values)
    if dalignment is not None:
        g = g + dalignment
    denergy.copy_(alignment * (g - (alignment * g).sum(-1, keepdim=True)))
    de = denergy.to(query.dtype)
    if score.v is None:
        keys = memory.keys.view(B, T, H, -1)
        dquery.copy_(torch.einsum("bnht,btha->bnha", de, keys).reshape(query.shape) * score.scale)
        return None
    slope = 1 - _tanh(query, memory, score, features).square()
    dhidden = de.transpose(2, 3)[..., None] * score.v.view(H, -1) * slope
    dquery.copy_(dhidden.sum(2).reshape(query.shape))
    if score.filters is None or score.projection is None or dfeatures is None:
        return None
    C, W = score.filters.shape
    projection = score.projection.view(H, -1, C)
    dfeatures.copy_(torch.einsum("bntha,hac->bnhct", dhidden, projection))
    dprevious = F.conv_transpose1d(
        dfeatures.reshape(B * N * H, C, T), score.filters[:, None], padding=W // 2
    )
    return dprevious.view(B, N, H, T)


def backward_dkv(
    queries: Tensor,
    denergy: Tensor,
    memory: Memory,
    score: Score,
    previous: Tensor | None,
    features: Tensor | None,
    dfeatures: Tensor | None,
) -> ScoreGradients:
    """Phase 2: gradients that no step waits for, summed over the N steps of the sequence.

    Args:
        queries: [B, N, A].
        denergy: [B, N, H, T] of phase 1.
        memory: what was attended to.
        score: the score function.
        previous: [B, N, H, T] alignments before each step, for location-aware scores.
        features: [B, N, H, C, T], likewise.
        dfeatures: [B, N, H, C, T] of phase 1, likewise.
    """
    B, N, H, T = denergy.shape
    de = denergy.to(queries.dtype)
    if score.v is None:
        heads = queries.reshape(B, N, H, -1) * score.scale
        keys = torch.einsum("bnht,bnha->btha", de, heads)
        return ScoreGradients(keys.reshape(memory.keys.shape), None, None, None)
    v = score.v.view(H, -1)
    dkeys = torch.zeros_like(memory.keys).view(B, T, H, -1)
    dv = torch.zeros_like(v)
    dprojection = None if score.projection is None else torch.zeros_like(score.projection)
    for n in range(N):  # one step at a time: nothing of size B N T A
        step = slice(n, n + 1)
        found = None if features is None else features[:, step]
        tanh = _tanh(queries[:, step], memory, score, found)[:, 0]
        outer = de[:, n].transpose(1, 2)[..., None]
        dhidden = outer * v * (1 - tanh.square())
        dkeys += dhidden
        dv += (outer * tanh).sum((0, 1))
        if dprojection is not None and features is not None:
            dprojection += torch.einsum("btha,bhct->hac", dhidden, features[:, n]).reshape(
                dprojection.shape
            )
    dfilters = None
    if score.filters is not None and previous is not None and dfeatures is not None:
        C, W = score.filters.shape
        dfilters = conv1d_weight(
            previous.reshape(-1, 1, T), (C, 1, W), dfeatures.reshape(-1, C, T), padding=W // 2
        )[:, 0]
    return ScoreGradients(dkeys.view(B, T, -1), dv.view(-1), dfilters, dprojection)


def _tanh(query: Tensor, memory: Memory, score: Score, features: Tensor | None) -> Tensor:
    """tanh(query + keys + location), recomputed: [B, N, T, H, A/H]."""
    B, N, A = query.shape
    H = score.heads
    hidden = query.view(B, N, 1, H, A // H) + memory.keys.view(B, 1, -1, H, A // H)
    if features is not None and score.projection is not None:
        projection = score.projection.view(H, A // H, -1)
        hidden = hidden + torch.einsum("bnhct,hac->bntha", features, projection)
    return torch.tanh(hidden)


def lstm_cell(gates: Tensor, before: Tensor | None, cell: Tensor, hidden: Tensor) -> None:
    """LSTM cell.

    Args:
        gates: pre-activations [B, 4S]; activated in place.
        before: cell of the step before [B, S]; None is zero.
        cell: [B, S], written.
        hidden: [B, S], written.
    """
    i, f, g, o = gates.chunk(4, dim=-1)
    for part in (i, f, o):
        part.sigmoid_()
    g.tanh_()
    kept = (i * g).to(cell.dtype)
    cell.copy_(kept if before is None else kept + f * before)
    hidden.copy_(o * torch.tanh(cell))


def lstm_cell_backward(
    dhidden: Tensor,
    dcell: Tensor | None,
    gates: Tensor,
    before: Tensor | None,
    cell: Tensor,
    dgates: Tensor,
) -> Tensor:
    """Gradient of :func:`lstm_cell`.

    Args:
        dhidden: [B, S].
        dcell: [B, S] from the step after; None is zero.
        gates: activated, [B, 4S].
        before: cell of the step before [B, S]; None is zero.
        cell: [B, S].
        dgates: gradient of the pre-activations [B, 4S], written.

    Returns:
        The gradient of the cell before, [B, S].
    """
    i, f, g, o = gates.chunk(4, dim=-1)
    tanh = torch.tanh(cell)
    dcell_here = dhidden * o * (1 - tanh.square())
    if dcell is not None:
        dcell_here = dcell_here + dcell
    di, df, dg, do = dgates.chunk(4, dim=-1)
    di.copy_(dcell_here * g * i * (1 - i))
    df.copy_(torch.zeros_like(cell) if before is None else dcell_here * before * f * (1 - f))
    dg.copy_(dcell_here * i * (1 - g.square()))
    do.copy_(dhidden * tanh * o * (1 - o))
    return dcell_here * f


OPS = OpTable(forward, location_conv, backward, backward_dkv, lstm_cell, lstm_cell_backward)
