"""The teacher-forced recurrence as the GPU is to run it: few launches a step, planned once.

The phases are those of :mod:`las_kernels.sequence`. Context and hidden state lie side by side, and
so do their weights: one matrix product reads both, and one writes both gradients, adding to what is
there already. All kinds of scores; dot scores are matrix products of torch.
"""

from typing import Any, NamedTuple, cast

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
    steps,
)
from las_kernels.triton.steps import Operand, Operation, Steps, TorchCall
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
    """A layer's tensors; going back, ``hidden`` and ``outputs`` are those of the gradients."""

    gates: Steps
    cells: Steps
    hidden: Steps
    outputs: Steps  # going back, the gradients of the gates
    mask: Tensor | None


def _layers(
    gates: Tensor, cells: Tensor, hidden: Tensor, outputs: Tensor, masks: Masks
) -> list[_Layer]:
    parts = (x.unbind(2) for x in (gates, cells, hidden, outputs))
    return [
        _Layer(Steps(g), Steps(c), Steps(h), Steps(o), masks.of_layer(i))
        for i, (g, c, h, o) in enumerate(zip(*parts, strict=True))
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
    start = initial_alignment(memory.lengths, T, 1, score.heads, projected.dtype).contiguous()

    joined = _joined_weight(decoder).t()
    query = new(B, decoder.query_weight.shape[0])
    attention = attention_fwd.ForwardSteps(memory, score, 1, masks.context)
    layers = _layers(gates, cells, hidden, outputs, masks)
    read, aligned = Steps(states[..., : D + S]), Steps(alignments, keeps_dim=True)
    attended = (Steps(contexts, keeps_dim=True), aligned, Steps(fed, keeps_dim=True))

    def step(first: bool) -> list[Operation]:
        """What the first step does, or any other; nothing comes before the first."""
        found: list[Operation] = []
        for i, layer in enumerate(layers):
            if i > 0:
                below, weight = layers[i - 1].outputs, decoder.input_weights[i - 1].t()
                found.append(TorchCall("addmm", layer.gates, below, weight))
            if not first:
                own = (read, joined) if i == 0 else (layer.hidden, decoder.recurrent_weights[i].t())
                found.append(TorchCall("addmm", layer.gates, own[0].before(), own[1]))
            earlier = None if first else layer.cells.before()
            rest = (layer.cells, layer.hidden, layer.mask, layer.outputs)
            found.append(lstm_cell.forward_launch(layer.gates, earlier, *rest))
        found.append(TorchCall("mm", query, layers[-1].outputs, decoder.query_weight.t()))
        previous = start if first else aligned.before()
        return [*found, *attention.operations(query[:, None], previous, *attended)]

    with torch.cuda.device_of(projected):
        parts = (range(U)[:1], range(1, U))
        plan = [(part, step(0 in part)) for part in parts if len(part) > 0]
        steps.run(plan, projected.device)
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
    # What comes from outside; each step adds what it gives to the step before.
    dstates = hidden.new_empty(B, U, D + L * S)
    dfed, dlayers = dstates[..., :D], dstates[..., D:].unflatten(-1, (L, S))
    for here, outer in ((dfed, dcontexts), (dlayers, dhidden)):
        if outer is None:
            here.zero_()
        else:
            here.copy_(outer)
    dgates = torch.empty_like(gates)

    joined = _joined_weight(decoder)
    mask = None
    if masks.context is not None:
        mask = torch.cat([masks.context, masks.context.new_ones(B, S)], 1)
    layers = _layers(gates, cells, dlayers, dgates, masks)
    dcells = cells.new_empty(L, B, S).unbind(0)
    read, dquery = Steps(dstates[..., : D + S]), Steps(attention.dqueries)
    above, dmasked = hidden.new_empty(B, S), hidden.new_empty(B, D + S)
    attention_steps = cast(attention_bwd.BackwardSteps, attention.backward)
    attended = [None if x is None else Steps(x, keeps_dim=True) for x in attention.tensors]
    outside = None if dalignments is None else Steps(dalignments, keeps_dim=True)
    fed_step = Steps(dfed, keeps_dim=True)
    # Of the alignment, from the location filters of the step after; and with that from outside.
    dprevious = total = None
    if attention.dfeatures is not None:
        dprevious = attention.denergy.new_empty(B, 1, *attention.denergy.shape[2:])
        total = torch.empty_like(dprevious)

    def step(first: bool, last: bool) -> list[Operation]:
        """What the first step does, the last, or any other; nothing comes after the last."""
        found: list[Operation] = []
        dalignment: Operand | None = outside
        if dprevious is not None and total is not None and not last:
            dalignment = dprevious
            if outside is not None:
                found.append(TorchCall("add", total, outside, dprevious))
                dalignment = total
        attention_given: list[Any] = [fed_step, dalignment, *attended, dprevious]
        found += attention_steps.operations(*attention_given)
        found.append(TorchCall("mm", above, dquery, decoder.query_weight))
        for i, layer in reversed(list(enumerate(layers))):
            later, earlier = None if last else dcells[i], None if first else layer.cells.before()
            given = (layer.hidden, later, layer.gates, earlier, layer.cells, layer.outputs)
            found.append(lstm_cell.backward_launch(*given, dcells[i], above, layer.mask))
            if i > 0:
                found.append(TorchCall("mm", above, layer.outputs, decoder.input_weights[i - 1]))
                if not first:
                    weight = decoder.recurrent_weights[i]
                    found.append(TorchCall("addmm", layer.hidden.before(), layer.outputs, weight))
        if not first and mask is None:
            found.append(TorchCall("addmm", read.before(), layers[0].outputs, joined))
        elif not first and mask is not None:
            found.append(TorchCall("mm", dmasked, layers[0].outputs, joined))
            found.append(TorchCall("addcmul", read.before(), dmasked, mask))
        return found

    parts = (range(U)[-1:], range(U)[-2:0:-1], range(min(U - 1, 1)))
    with torch.cuda.device_of(hidden):
        plan = [(part, step(0 in part, U - 1 in part)) for part in parts if len(part) > 0]
        steps.run(plan, hidden.device)
    return sequence.Steps(dgates, attention.dqueries, dfed, attention.phase2())


def _contiguous(masks: Masks) -> Masks:
    return Masks(*(None if x is None else x.contiguous() for x in masks))


def _joined_weight(decoder: Decoder) -> Tensor:
    """Of the first layer, for ``[context; hidden]``: [4S, D + S]."""
    return torch.cat([decoder.context_weight, decoder.recurrent_weights[0]], 1)
