"""The decoder's step for search on a CPU, with the weights laid out for it once.

One matrix product a layer instead of two, its weight in the order in which it is read
(:func:`~las_kernels.cpu.attention_step.product`): the few rows of a search take as long as reading
the weights does. Other rows change no bit of a row. The cell is one pass
(:func:`~las_kernels.cpu.attention_step.lstm_cell`). For inference: it has no backward.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from las_kernels.backends import choose
from las_kernels.cpu import attention_step as cpu_step
from las_kernels.cpu.attention_step import Panels, panels, product
from las_kernels.types import Decoder, Memory, Score, State


class Packed(NamedTuple):
    """A :class:`~las_kernels.reference.Decoder` as :func:`decode_step` reads it."""

    first: Panels  # [4S, D + S], on [context; hidden]
    others: list[tuple[Panels, Tensor]]  # of each layer above: [4S, 2S], on [below; hidden]; bias
    query: Panels  # [A, S]
    none: Tensor  # [A], zero: the query has no bias


def usable(memory: Memory) -> bool:
    """Whether :func:`decode_step` can run on this memory: as the C++ backend, and no gradient."""
    keys = memory.keys
    return (
        not torch.is_grad_enabled()
        and not torch.is_autocast_enabled(keys.device.type)
        and choose("auto", keys.device, keys.dtype, "step") == "cpp"
    )


def pack(decoder: Decoder) -> Packed:
    """Rearrange the weights, without gradient."""
    recurrent, biases = decoder.recurrent_weights[1:], decoder.biases[1:]
    above = zip(decoder.input_weights, recurrent, biases, strict=True)
    return Packed(
        _joined(decoder.context_weight, decoder.recurrent_weights[0]),
        [(_joined(below, same), bias.detach()) for below, same, bias in above],
        panels(decoder.query_weight),
        decoder.query_weight.new_zeros(len(decoder.query_weight)),
    )


def _joined(*weights: Tensor) -> Panels:
    return panels(torch.cat([weight.detach() for weight in weights], 1))


def decode_step(
    projected: Tensor, state: State, memory: Memory, packed: Packed, score: Score
) -> tuple[Tensor, State]:
    """One step; the contract of ``reference.decode_step`` without masks.

    Args:
        projected: the embedding through ``decoder.embedding_weight`` plus the first bias,
            [B, N, 4S].
        state: the state before the step.
        memory: what is attended to; :func:`usable`.
        packed: the weights.
        score: the score function.

    Returns:
        The last layer's output [B, N, S] and the new state.
    """
    B, N, L, S = state.hidden.shape
    before = state.cell.reshape(B * N, L, S)
    hidden, cell = torch.empty_like(before), torch.empty_like(before)
    read = torch.cat([state.context, state.hidden[:, :, 0]], -1).flatten(0, 1)
    gates = product(read, packed.first, projected.reshape(B * N, 4 * S))
    cpu_step.lstm_cell(gates, before[:, 0], cell[:, 0], hidden[:, 0])
    for layer, (weight, bias) in enumerate(packed.others, 1):
        read = torch.cat([hidden[:, layer - 1], state.hidden[:, :, layer].flatten(0, 1)], -1)
        gates = product(read, weight, bias)
        cpu_step.lstm_cell(gates, before[:, layer], cell[:, layer], hidden[:, layer])
    output = hidden[:, -1]
    query = product(output, packed.query, packed.none).view(B, N, -1)
    context, alignment = cpu_step.attend(query, memory, score, state.alignment)
    new = State(hidden.view(B, N, L, S), cell.view(B, N, L, S), context, alignment)
    return output.view(B, N, S), new
