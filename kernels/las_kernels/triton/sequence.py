"""The teacher-forced recurrence as the GPU is to run it: few launches a step, planned once.

The phases are those of :mod:`las_kernels.sequence`. Context and hidden state lie side by side, and
so do their weights: one matrix product reads both, and one writes both gradients, adding to what is
there already. All kinds of scores; dot scores are matrix products of torch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from las_kernels import sequence
from las_kernels.eager import OpTable, accumulator
from las_kernels.reference import initial_alignment
from las_kernels.triton import (
    attention_bwd,
    attention_bwd_dkv,
    attention_fwd,
    location_conv,
    lstm_cell,
)
from las_kernels.types import Decoder, Masks, Memory, Score

OPS = OpTable(
    attention_fwd.forward,
    location_conv.forward,
    attention_bwd.backward,
    attention_bwd_dkv.backward,
    lstm_cell.forward,
    lstm_cell.backward,
    forward_steps=attention_fwd.ForwardSteps,
    backward_steps=attention_bwd.BackwardSteps,
)


class _Layer(NamedTuple):
    """A layer's tensors, step by step; views, for to make them in the loop costs time.

    Going back, ``hidden`` is the gradient of the hidden states and ``outputs`` that of the gates.
    """

    gates: Sequence[Tensor]
    cells: Sequence[Tensor]
    hidden: Sequence[Tensor]
    outputs: Sequence[Tensor]
    mask: Tensor | None


def _layers(
    gates: Tensor, cells: Tensor, hidden: Tensor, outputs: Tensor, masks: Masks
) -> list[_Layer]:
    return [
        _Layer(g.unbind(1), c.unbind(1), h.unbind(1), o.unbind(1), masks.of_layer(i))
        for i, (g, c, h, o) in enumerate(
            zip(gates.unbind(2), cells.unbind(2), hidden.unbind(2), outputs.unbind(2), strict=True)
        )
    ]


def usable(x: Tensor, score: Score) -> bool:  # noqa: ARG001
    """Whether the functions can run for this score and the type of ``x``: always."""
    return True


def forward(
    projected: Tensor, memory: Memory, decoder: Decoder, score: Score, masks: Masks
) -> sequence.SavedActivations:
    """As :func:`las_kernels.sequence.forward`."""
    B, U = projected.shape[:2]
    masks = _contiguous(masks)
    T, D = memory.values.shape[1:]
    L, S = len(decoder.recurrent_weights), decoder.recurrent_weights[0].shape[1]
    new = projected.new_empty
    states = new(B, U, D + L * S)
    fed, hidden = states[..., :D], states[..., D:].unflatten(-1, (L, S))
    contexts = fed if masks.context is None else new(B, U, D)
    outputs = hidden if masks.hidden is None else new(B, U, L, S)
    gates = new(B, U, L, 4 * S)
    gates[:, :, 0] = projected
    for i in range(1, L):
        gates[:, :, i] = decoder.biases[i]
    cells = new(B, U, L, S, dtype=accumulator(projected.dtype))
    alignments = new(B, U, score.heads, T)
    joined = _joined_weight(decoder).t()
    previous = initial_alignment(memory.lengths, T, 1, score.heads, projected.dtype).contiguous()
    attend = attention_fwd.ForwardSteps(memory, score, 1, masks.context)
    query_weight = decoder.query_weight.t()
    layers = _layers(gates, cells, hidden, outputs, masks)
    lstm = lstm_cell.ForwardSteps()
    fed_steps, read = fed.split(1, 1), states[..., : D + S].unbind(1)
    context_steps, alignment_steps = contexts.split(1, 1), alignments.split(1, 1)
    for u in range(U):
        for i, layer in enumerate(layers):
            here = layer.gates[u]
            if i > 0:
                here.addmm_(layers[i - 1].outputs[u], decoder.input_weights[i - 1].t())
                if u > 0:
                    here.addmm_(layer.hidden[u - 1], decoder.recurrent_weights[i].t())
            elif u > 0:
                here.addmm_(read[u - 1], joined)
            before = layer.cells[u - 1] if u > 0 else None
            rest = (layer.cells[u], layer.hidden[u], layer.mask, layer.outputs[u])
            lstm(here, before, *rest)
        query = (layers[-1].outputs[u] @ query_weight)[:, None]
        attend(query, previous, context_steps[u], alignment_steps[u], fed_steps[u])
        previous = alignment_steps[u]
    # Copies: results of an operator must not share memory.
    hidden, contexts = (x.clone(memory_format=torch.contiguous_format) for x in (hidden, contexts))
    return sequence.SavedActivations(hidden, contexts, alignments, cells, gates)


def backward(
    dhidden: Tensor | None,
    dcontexts: Tensor | None,
    dalignments: Tensor | None,
    saved: sequence.SavedActivations,
    memory: Memory,
    decoder: Decoder,
    score: Score,
    masks: Masks,
) -> sequence.Steps:
    """Phases 1 and 2 of :func:`las_kernels.sequence.backward`."""
    hidden, contexts, _, cells, gates = saved
    B, U, L, S = hidden.shape
    D = contexts.shape[2]
    masks = _contiguous(masks)
    attention = sequence.attention_of(OPS, saved, memory, decoder, score, masks)
    dqueries = attention.dqueries
    # What comes from outside; each step adds what it gives to the step before.
    dstates = hidden.new_empty(B, U, D + L * S)
    dfed, dlayers = dstates[..., :D], dstates[..., D:].unflatten(-1, (L, S))
    for here, outer in ((dfed, dcontexts), (dlayers, dhidden)):
        if outer is None:
            here.zero_()
        else:
            here.copy_(outer)
    joined = _joined_weight(decoder)
    mask = None
    if masks.context is not None:
        mask = torch.cat([masks.context, masks.context.new_ones(B, S)], 1)
    dgates = torch.empty_like(gates)
    dcells = cells.new_empty(L, B, S).unbind(0)
    layers = _layers(gates, cells, dlayers, dgates, masks)
    lstm = lstm_cell.BackwardSteps()
    dquery_steps, dfed_steps = dqueries.unbind(1), dfed.split(1, 1)
    dread = dstates[..., : D + S].unbind(1)
    outer_steps = None if dalignments is None else dalignments.split(1, 1)
    dprevious: Tensor | None = None
    for u in reversed(range(U)):
        dalignment = dprevious
        if outer_steps is not None:
            dalignment = outer_steps[u] if dprevious is None else outer_steps[u] + dprevious
        dprevious = attention.phase1(u, dfed_steps[u], dalignment)
        above = dquery_steps[u] @ decoder.query_weight
        for i, layer in reversed(list(enumerate(layers))):
            dhere = layer.outputs[u]
            lstm(
                layer.hidden[u],
                dcells[i] if u + 1 < U else None,
                layer.gates[u],
                layer.cells[u - 1] if u > 0 else None,
                layer.cells[u],
                dhere,
                above,
                layer.mask,
                dcells[i],
            )
            if i > 0:
                above = dhere @ decoder.input_weights[i - 1]
                if u > 0:
                    layer.hidden[u - 1].addmm_(dhere, decoder.recurrent_weights[i])
        if u > 0:
            dhere = layers[0].outputs[u]
            if mask is None:
                dread[u - 1].addmm_(dhere, joined)
            else:
                dread[u - 1].addcmul_(dhere @ joined, mask)
    return sequence.Steps(dgates, dqueries, dfed, attention.phase2())


def _contiguous(masks: Masks) -> Masks:
    return Masks(*(None if x is None else x.contiguous() for x in masks))


def _joined_weight(decoder: Decoder) -> Tensor:
    """Of the first layer, for ``[context; hidden]``: [4S, D + S]."""
    return torch.cat([decoder.context_weight, decoder.recurrent_weights[0]], 1)
