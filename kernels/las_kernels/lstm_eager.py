"""A bidirectional LSTM layer and its backward in plain PyTorch: any device, exact in float64.

The forward keeps activated gates and cells. The backward runs the recurrence once more, last step
first, for the gradients of the gates alone; those of the input and of every weight are then one
matrix product each.

Tensors of both directions hold the forward one first: gates [B, T, 2, 4S], cells [B, T, 2, S], out
[B, T, 2S]. The backward direction starts at each utterance's own last frame.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from las_kernels import eager
from las_kernels.reference import padding_mask


class Direction(NamedTuple):
    """One direction's weights, shaped and ordered as those of ``torch.nn.LSTM``."""

    input: Tensor  # [4S, I]; gates in the order i, f, g, o
    hidden: Tensor  # [4S, S]
    input_bias: Tensor  # [4S]
    hidden_bias: Tensor  # [4S]


class SavedActivations(NamedTuple):
    """What the forward keeps for the backward; the first is its result."""

    out: Tensor  # [B, T, 2S], zero on padding
    gates: Tensor  # [B, T, 2, 4S], activated; what padding holds is not read
    cells: Tensor  # [B, T, 2, S]; likewise


class Gradients(NamedTuple):
    """Gradients of the inputs."""

    x: Tensor | None  # [B, T, I], zero on padding; None where nobody asked
    weights: list[Tensor]  # in the order of the weights


class OpTable(NamedTuple):
    """Functions with the signatures of this module's functions of the same names."""

    forward: Callable[..., SavedActivations]
    backward: Callable[..., Gradients]


def directions(weights: list[Tensor]) -> tuple[Direction, Direction]:
    """Split a list of eight: the forward direction's weights, then the other's."""
    return Direction(*weights[:4]), Direction(*weights[4:])


def empty(x: Tensor, width: int) -> SavedActivations:
    """Memory for the results of :func:`forward`."""
    B, T, _ = x.shape
    new = x.new_empty
    return SavedActivations(new(B, T, 2 * width), new(B, T, 2, 4 * width), new(B, T, 2, width))


def forward(x: Tensor, lengths: Tensor, weights: list[Tensor]) -> SavedActivations:
    """Run the layer.

    Args:
        x: [B, T, I]; padding is not read.
        lengths: valid frames [B], each 0..T.
        weights: eight, as :func:`directions` reads them.
    """
    B, T, _ = x.shape
    S = weights[1].shape[1]
    mask = padding_mask(lengths, T)[:, :, None]
    x = torch.where(mask, x, 0)
    saved = empty(x, S)
    for d, own in enumerate(directions(weights)):
        order = _order(lengths, T, d)
        gates = _reorder(x @ own.input.t() + (own.input_bias + own.hidden_bias), order)
        cells, hidden = x.new_empty(B, T, S), x.new_empty(B, T, S)
        for t in range(T):
            if t > 0:
                gates[:, t] += hidden[:, t - 1] @ own.hidden.t()
            before = cells[:, t - 1] if t > 0 else None
            eager.lstm_cell(gates[:, t], before, cells[:, t], hidden[:, t])
        saved.gates[:, :, d] = _reorder(gates, order)
        saved.cells[:, :, d] = _reorder(cells, order)
        saved.out[:, :, d * S : (d + 1) * S] = _reorder(hidden, order)
    saved.out.masked_fill_(~mask, 0)
    return saved


def backward(
    dout: Tensor,
    x: Tensor,
    lengths: Tensor,
    weights: list[Tensor],
    saved: SavedActivations,
    wanted: bool,
) -> Gradients:
    """Gradients of :func:`forward`.

    Args:
        dout: gradient of the output [B, T, 2S]; padding is not read.
        x: as in :func:`forward`, as the next two.
        lengths: [B].
        weights: eight.
        saved: what the forward saved.
        wanted: whether the gradient of ``x`` is.
    """
    B, T, _ = x.shape
    S = weights[1].shape[1]
    mask = padding_mask(lengths, T)[:, :, None]
    x, dout = torch.where(mask, x, 0), torch.where(mask, dout, 0)
    dx = torch.zeros_like(x) if wanted else None
    found: list[Tensor] = []
    for d, own in enumerate(directions(weights)):
        order = _order(lengths, T, d)
        gates, cells = _reorder(saved.gates[:, :, d], order), _reorder(saved.cells[:, :, d], order)
        own_columns = slice(d * S, (d + 1) * S)
        out = _reorder(saved.out[:, :, own_columns], order)
        douts = _reorder(dout[:, :, own_columns], order)
        dgates = torch.zeros_like(gates)
        dhidden, dcell = x.new_zeros(B, S), x.new_zeros(B, S)
        for t in reversed(range(T)):
            before = cells[:, t - 1] if t > 0 else None
            dcell = eager.lstm_cell_backward(
                douts[:, t] + dhidden, dcell, gates[:, t], before, cells[:, t], dgates[:, t]
            )
            live = (t < lengths)[:, None]
            dgates[:, t] = torch.where(live, dgates[:, t], 0)
            dcell = torch.where(live, dcell, 0)
            dhidden = dgates[:, t] @ own.hidden
        flat = _reorder(dgates, order).flatten(0, 1)
        dbias = flat.sum(0)
        dhidden_weight = dgates[:, 1:].flatten(0, 1).t() @ out[:, :-1].flatten(0, 1)
        found += [flat.t() @ x.flatten(0, 1), dhidden_weight, dbias, dbias.clone()]
        if dx is not None:
            dx += (flat @ own.input).view(x.shape)
    return Gradients(dx, found)


def reversal(lengths: Tensor, size: int) -> Tensor:
    """Indices [B, size] that reverse the valid frames and leave padding where it is."""
    steps = torch.arange(size, device=lengths.device)[None, :]
    last = lengths[:, None] - 1
    return torch.where(steps <= last, last - steps, steps)


def _order(lengths: Tensor, size: int, direction: int) -> Tensor | None:
    return None if direction == 0 else reversal(lengths, size)[:, :, None]


def _reorder(x: Tensor, order: Tensor | None) -> Tensor:
    return x.contiguous() if order is None else x.gather(1, order.expand_as(x))


OPS = OpTable(forward, backward)
