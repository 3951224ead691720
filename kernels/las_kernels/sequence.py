"""The teacher-forced recurrence with its backward written out in three phases.

Autograd keeps the tanh of every score, B*T*A numbers a step. Here a step keeps its LSTM gates
and cells, hidden states, context and alignment; the tanh is computed again.

1. Sequential, last step first: only what the step before needs (gradients of the score energies,
   of the query, of the LSTM gates and, through the location filters, of the alignment before).
2. Deferred: gradients of keys, ``v``, filters and projection, summed over all steps at once.
3. Deferred: the gradient of the values and of every weight matrix, one matrix product each.
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from las_kernels.eager import OpTable, ScoreGradients, accumulator
from las_kernels.reference import initial_alignment
from las_kernels.types import Decoder, Masks, Memory, Score


class SavedActivations(NamedTuple):
    """What the forward pass keeps for the backward; the first three are its results."""

    hidden: Tensor  # [B, U, L, S], before dropout
    contexts: Tensor  # [B, U, D]
    alignments: Tensor  # [B, U, H, T]
    cells: Tensor  # [B, U, L, S], float32 or wider
    gates: Tensor  # [B, U, L, 4S], activated


class Gradients(NamedTuple):
    """Gradients of the inputs, None where the input is None."""

    projected: Tensor  # [B, U, 4S]
    keys: Tensor
    values: Tensor
    weights: list[Tensor]  # in the order of `recurrent_parameters`
    v: Tensor | None
    filters: Tensor | None
    projection: Tensor | None


class Steps(NamedTuple):
    """What phases 1 and 2 find."""

    gates: Tensor  # gradient of the gates before their functions, [B, U, L, 4S]
    queries: Tensor  # [B, U, A]
    fed: Tensor  # gradient of the contexts, [B, U, D]
    score: ScoreGradients


class AttentionBackward:
    """The backward of attention of N steps or beams over one memory, and its buffers.

    Args:
        ops: what computes the phases.
        queries: [B, N, A], contiguous.
        memory: what was attended to.
        score: the score function.
        alignments: [B, N, H, T], of these queries.
        previous: [B, N, H, T], the alignments before; location-aware scores need it.
        at_once: queries of a step.
    """

    def __init__(
        self,
        ops: OpTable,
        queries: Tensor,
        memory: Memory,
        score: Score,
        alignments: Tensor,
        previous: Tensor | None,
        at_once: int,
    ) -> None:
        self.ops, self.memory, self.score = ops, memory, score
        self.backward = ops.plan_backward(memory, score, at_once)
        self.queries, self.alignments, self.previous = queries, alignments, previous
        self.features = self.dfeatures = None
        if score.filters is not None and previous is not None:
            self.features = ops.location_conv(previous, score.filters)
            self.dfeatures = torch.empty_like(self.features)
        self.denergy = alignments.new_empty(alignments.shape, dtype=accumulator(queries.dtype))
        self.dqueries = torch.empty_like(queries)
        # What a step of ``backward`` is given after its gradients.
        found = (self.denergy, self.dqueries, self.dfeatures)
        self.tensors = (alignments, queries, self.features, *found)
        self.at_once = at_once

    @functools.cached_property
    def steps(self) -> list[tuple[Tensor | None, ...]]:
        """The part of each of ``tensors`` that a step is given."""
        # All views at once: to make them one by one costs more than the launches of a step.
        count = max(1, -(-self.queries.shape[1] // self.at_once))
        parts = ([None] * count if x is None else x.split(self.at_once, 1) for x in self.tensors)
        return list(zip(*parts, strict=True))

    def phase1(self, step: int, dcontext: Tensor, dalignment: Tensor | None) -> Tensor | None:
        """The queries of one step, whose gradients of context and alignment are given.

        Writes the gradient of these queries into ``dqueries``.

        Returns:
            The gradient of the alignments before, for location-aware scores.
        """
        return self.backward(dcontext, dalignment, *self.steps[step])

    def phase2(self) -> ScoreGradients:
        """Gradients of keys and parameters of the score, after phase 1 of all queries."""
        located = (self.previous, self.features, self.dfeatures)
        return self.ops.backward_dkv(self.queries, self.denergy, self.memory, self.score, *located)


def gradient_of_values(alignments: Tensor, dcontexts: Tensor) -> Tensor:
    """Phase 3: [B, T, D] from alignments [B, N, H, T] and the contexts' gradients [B, N, D]."""
    B, N, H, T = alignments.shape
    by_head = dcontexts.view(B, N, H, -1).transpose(1, 2)
    return (alignments.permute(0, 2, 3, 1) @ by_head).transpose(1, 2).reshape(B, T, -1)


def recurrent_parameters(decoder: Decoder) -> list[Tensor]:
    """The weights used inside the recurrence, as one list."""
    return [
        decoder.context_weight,
        decoder.query_weight,
        *decoder.recurrent_weights,
        *decoder.input_weights,
        *decoder.biases[1:],
    ]


def from_parameters(weights: list[Tensor]) -> Decoder:
    """The inverse of :func:`recurrent_parameters`; what it leaves out is empty."""
    layers = len(weights) // 3  # 2 + L + (L - 1) + (L - 1) = 3L
    empty = weights[0].new_empty(0)
    rest = weights[2:]
    inputs, biases = rest[layers : 2 * layers - 1], rest[2 * layers - 1 :]
    return Decoder(empty, weights[0], inputs, rest[:layers], [empty, *biases], weights[1])


def forward(
    ops: OpTable,
    projected: Tensor,
    memory: Memory,
    decoder: Decoder,
    score: Score,
    masks: Masks,
) -> SavedActivations:
    """The recurrence over ``projected`` [B, U, 4S], as ``reference.decode_sequence``."""
    if ops.sequence is not None and ops.sequence.usable(projected, score):
        saved: SavedActivations = ops.sequence.forward(projected, memory, decoder, score, masks)
        return saved
    B, U = projected.shape[:2]
    T, D = memory.values.shape[1:]
    L, S = len(decoder.recurrent_weights), decoder.recurrent_weights[0].shape[1]
    new = projected.new_empty
    hidden, gates = new(B, U, L, S), new(B, U, L, 4 * S)
    cells = new(B, U, L, S, dtype=accumulator(projected.dtype))
    contexts, alignments = new(B, U, D), new(B, U, score.heads, T)
    start = initial_alignment(memory.lengths, T, 1, score.heads, projected.dtype).contiguous()
    for u in range(U):
        output = projected
        for layer, recurrent in enumerate(decoder.recurrent_weights):
            here = gates[:, u, layer]
            if layer > 0:
                bias, weight = decoder.biases[layer], decoder.input_weights[layer - 1]
                torch.addmm(bias, output, weight.t(), out=here)
            elif u > 0:
                fed = _masked(contexts[:, u - 1], masks.context)
                torch.addmm(projected[:, u], fed, decoder.context_weight.t(), out=here)
            else:
                here.copy_(projected[:, u])
            before = None
            if u > 0:
                here.addmm_(hidden[:, u - 1, layer], recurrent.t())
                before = cells[:, u - 1, layer]
            ops.lstm_cell(here, before, cells[:, u, layer], hidden[:, u, layer])
            output = _masked(hidden[:, u, layer], _layer(masks.hidden, layer))
        query = (output @ decoder.query_weight.t())[:, None]
        step = slice(u, u + 1)
        previous = alignments[:, u - 1 : u] if u > 0 else start
        ops.forward(query, memory, score, previous, contexts[:, step], alignments[:, step])
    return SavedActivations(hidden, contexts, alignments, cells, gates)


def backward(
    ops: OpTable,
    dhidden: Tensor | None,
    dcontexts: Tensor | None,
    dalignments: Tensor | None,
    saved: SavedActivations,
    memory: Memory,
    decoder: Decoder,
    score: Score,
    masks: Masks,
) -> Gradients:
    """Gradients of :func:`forward` from those of its results, None meaning zero."""
    steps: Steps
    if ops.sequence is not None and ops.sequence.usable(saved.hidden, score):
        steps = ops.sequence.backward(
            dhidden, dcontexts, dalignments, saved, memory, decoder, score, masks
        )
    else:
        steps = _steps(ops, dhidden, dcontexts, dalignments, saved, memory, decoder, score, masks)
    return _weights(steps, saved, masks)


def attention_of(
    ops: OpTable,
    saved: SavedActivations,
    memory: Memory,
    decoder: Decoder,
    score: Score,
    masks: Masks,
) -> AttentionBackward:
    """The attention of all steps; its queries are computed again."""
    hidden, _, alignments, _, _ = saved
    outputs = _masked(hidden[:, :, -1], _layer(masks.hidden, -1), 1)
    queries = outputs @ decoder.query_weight.t()
    previous = None
    if score.filters is not None:
        T = memory.keys.shape[1]
        start = initial_alignment(memory.lengths, T, 1, score.heads, hidden.dtype)
        previous = torch.cat([start, alignments[:, :-1]], 1)
    return AttentionBackward(ops, queries, memory, score, alignments, previous, at_once=1)


def _steps(
    ops: OpTable,
    dhidden: Tensor | None,
    dcontexts: Tensor | None,
    dalignments: Tensor | None,
    saved: SavedActivations,
    memory: Memory,
    decoder: Decoder,
    score: Score,
    masks: Masks,
) -> Steps:
    """Phases 1 and 2."""
    hidden, _, _, cells, gates = saved
    B, U, L, S = hidden.shape
    D = memory.values.shape[2]
    attention = attention_of(ops, saved, memory, decoder, score, masks)
    dqueries = attention.dqueries

    # Phase 1.
    new = hidden.new_empty
    dgates, dfed = new(B, U, L, 4 * S), new(B, U, D)
    dhidden_next: list[Tensor | None] = [None] * L
    dcell_next: list[Tensor | None] = [None] * L
    dcontext_next: Tensor | None = None
    dprevious: Tensor | None = None
    for u in reversed(range(U)):
        step = slice(u, u + 1)
        _add_into(dfed[:, u], _at(dcontexts, u), _masked_or_none(dcontext_next, masks.context))
        dalignment = _add(None if dalignments is None else dalignments[:, step], dprevious)
        dprevious = attention.phase1(u, dfed[:, step], dalignment)
        above = dqueries[:, u] @ decoder.query_weight
        for layer in reversed(range(L)):
            dstate = _masked(above, _layer(masks.hidden, layer))
            outer = None if dhidden is None else dhidden[:, u, layer]
            for more in (outer, dhidden_next[layer]):
                dstate = dstate if more is None else dstate + more
            here = dgates[:, u, layer]
            dcell_next[layer] = ops.lstm_cell_backward(
                dstate,
                dcell_next[layer],
                gates[:, u, layer],
                cells[:, u - 1, layer] if u > 0 else None,
                cells[:, u, layer],
                here,
            )
            dhidden_next[layer] = here @ decoder.recurrent_weights[layer] if u > 0 else None
            if layer > 0:
                above = here @ decoder.input_weights[layer - 1]
        dcontext_next = dgates[:, u, 0] @ decoder.context_weight if u > 0 else None

    return Steps(dgates, dqueries, dfed, attention.phase2())


def _weights(steps: Steps, saved: SavedActivations, masks: Masks) -> Gradients:
    """Phase 3."""
    hidden, contexts, alignments, _, _ = saved
    dgates, dqueries, dfed, found = steps
    L = hidden.shape[2]
    outputs = _masked(hidden[:, :, -1], _layer(masks.hidden, -1), 1)
    dvalues = gradient_of_values(alignments, dfed)
    fed = _masked(contexts[:, :-1], masks.context, 1)
    gradients = [_outer(dgates[:, 1:, 0], fed), _outer(dqueries, outputs)]
    for layer in range(L):
        gradients.append(_outer(dgates[:, 1:, layer], hidden[:, :-1, layer]))
    for layer in range(1, L):
        below = _masked(hidden[:, :, layer - 1], _layer(masks.hidden, layer - 1), 1)
        gradients.append(_outer(dgates[:, :, layer], below))
    gradients += [dgates[:, :, layer].sum((0, 1)) for layer in range(1, L)]
    dprojected = dgates[:, :, 0].clone(memory_format=torch.contiguous_format)
    return Gradients(
        dprojected, found.keys, dvalues, gradients, found.v, found.filters, found.projection
    )


def _layer(mask: Tensor | None, layer: int) -> Tensor | None:
    return None if mask is None else mask[:, layer]


def _masked(x: Tensor, mask: Tensor | None, steps_dim: int | None = None) -> Tensor:
    if mask is None:
        return x
    return x * (mask if steps_dim is None else mask.unsqueeze(steps_dim))


def _masked_or_none(x: Tensor | None, mask: Tensor | None) -> Tensor | None:
    return None if x is None else _masked(x, mask)


def _at(x: Tensor | None, step: int) -> Tensor | None:
    return None if x is None else x[:, step]


def _add(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    if x is None or y is None:
        return y if x is None else x
    return x + y


def _add_into(out: Tensor, x: Tensor | None, y: Tensor | None) -> None:
    total = _add(x, y)
    if total is None:
        out.zero_()
    else:
        out.copy_(total)


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """Weight gradient [m, k] from [B, U, m] and [B, U, k], summed over B and U."""
    return left.flatten(0, 1).t() @ right.flatten(0, 1)
