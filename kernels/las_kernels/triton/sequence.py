"""The teacher-forced recurrence as the GPU is to run it: few launches a step, planned once.

The phases are those of :mod:`las_kernels.sequence`. Context and hidden state lie side by side, and
so do their weights: one matrix product reads both, and one writes both gradients, adding to what is
there already. All kinds of scores; dot scores are matrix products of torch.
"""

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


def usable(x: Tensor, score: Score) -> bool:  # noqa: ARG001
    """Whether the functions can run for this score and the type of ``x``: always."""
    return True


def forward(
    projected: Tensor, memory: Memory, decoder: Decoder, score: Score, masks: Masks
) -> sequence.SavedActivations:
    """As :func:`las_kernels.sequence.forward`."""
    B, U = projected.shape[:2]
    T, D = memory.values.shape[1:]
    L, S = len(decoder.recurrent_weights), decoder.recurrent_weights[0].shape[1]
    new = projected.new_empty
    states = new(B, U, D + L * S)
    fed, hidden = states[..., :D], states[..., D:].unflatten(-1, (L, S))
    contexts = fed if masks.context is None else new(B, U, D)
    outputs = hidden if masks.hidden is None else new(B, U, L, S)
    gates = new(B, U, L, 4 * S)
    gates[:, :, 0] = projected
    for layer in range(1, L):
        gates[:, :, layer] = decoder.biases[layer]
    cells = new(B, U, L, S, dtype=accumulator(projected.dtype))
    alignments = new(B, U, score.heads, T)
    joined = _joined_weight(decoder).t()
    previous = initial_alignment(memory.lengths, T, 1, score.heads, projected.dtype).contiguous()
    attend = OPS.plan_forward(memory, score, 1)
    for u in range(U):
        for layer, recurrent in enumerate(decoder.recurrent_weights):
            here = gates[:, u, layer]
            if layer > 0:
                here.addmm_(outputs[:, u, layer - 1], decoder.input_weights[layer - 1].t())
                if u > 0:
                    here.addmm_(hidden[:, u - 1, layer], recurrent.t())
            elif u > 0:
                here.addmm_(states[:, u - 1, : D + S], joined)
            lstm_cell.forward(
                here,
                cells[:, u - 1, layer] if u > 0 else None,
                cells[:, u, layer],
                hidden[:, u, layer],
                None if masks.hidden is None else masks.hidden[:, layer],
                outputs[:, u, layer],
            )
        query = (outputs[:, u, -1] @ decoder.query_weight.t())[:, None]
        step = slice(u, u + 1)
        attend(query, previous, contexts[:, step], alignments[:, step])
        previous = alignments[:, step]
        if masks.context is not None:
            torch.mul(contexts[:, u], masks.context, out=fed[:, u])
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
    dcells = cells.new_empty(L, B, S)
    dprevious: Tensor | None = None
    for u in reversed(range(U)):
        step = slice(u, u + 1)
        dalignment = dprevious
        if dalignments is not None:
            dalignment = dalignments[:, step]
            dalignment = dalignment if dprevious is None else dalignment + dprevious
        dprevious = attention.phase1(step, dfed[:, step], dalignment)
        above = dqueries[:, u] @ decoder.query_weight
        for layer in reversed(range(L)):
            here = dgates[:, u, layer]
            lstm_cell.backward(
                dlayers[:, u, layer],
                dcells[layer] if u + 1 < U else None,
                gates[:, u, layer],
                cells[:, u - 1, layer] if u > 0 else None,
                cells[:, u, layer],
                here,
                above,
                None if masks.hidden is None else masks.hidden[:, layer],
                dcells[layer],
            )
            if layer > 0:
                above = here @ decoder.input_weights[layer - 1]
                if u > 0:
                    dlayers[:, u - 1, layer].addmm_(here, decoder.recurrent_weights[layer])
        if u > 0:
            before = dstates[:, u - 1, : D + S]
            if mask is None:
                before.addmm_(dgates[:, u, 0], joined)
            else:
                before.addcmul_(dgates[:, u, 0] @ joined, mask)
    return sequence.Steps(dgates, dqueries, dfed, attention.phase2())


def _joined_weight(decoder: Decoder) -> Tensor:
    """Of the first layer, for ``[context; hidden]``: [4S, D + S]."""
    return torch.cat([decoder.context_weight, decoder.recurrent_weights[0]], 1)
