"""The definition of right: attention and the teacher-forced decoder in plain PyTorch.

Everything here runs on any device and dtype. Shapes use B utterances, N beams that share one
utterance's memory, T memory frames, U output steps, H heads, A attention width and D value width
(both over all heads), C location channels, W taps of the location filter, L LSTM layers of
width S.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from las_kernels.types import Decoder, Masks, Memory, Score, State


def padding_mask(lengths: Tensor, size: int) -> Tensor:
    """True where a frame is valid: [B, size] from lengths [B]."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


def initial_alignment(
    lengths: Tensor, size: int, beams: int, heads: int, dtype: torch.dtype
) -> Tensor:
    """Uniform over the valid frames, [B, N, H, size]: where the location filter starts from."""
    uniform = padding_mask(lengths, size).to(dtype) / lengths[:, None].to(dtype)
    return uniform[:, None, None, :].expand(-1, beams, heads, -1)


def attend(
    query: Tensor, memory: Memory, score: Score, previous: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One step of attention.

    Args:
        query: [B, N, A].
        memory: keys [B, T, A], values [B, T, D], lengths [B].
        score: the score function; ``heads`` must divide A and D.
        previous: the alignment of the step before [B, N, H, T]; location-aware scores need it.

    Returns:
        context [B, N, D] and alignment [B, N, H, T], zero on padding and summing to 1 elsewhere.
    """
    B, N, A = query.shape
    T, D = memory.values.shape[1:]
    H = score.heads
    query = query.view(B, N, 1, H, A // H)
    keys = memory.keys.view(B, 1, T, H, A // H)
    if score.v is None:
        energy = torch.einsum("bnqha,bmtha->bnht", query, keys) * score.scale
    else:
        if score.filters is None:
            hidden = query + keys
        else:
            if previous is None or score.projection is None:
                raise ValueError("location-aware attention needs `previous` and `projection`")
            hidden = query + keys + _location(previous, score.filters, score.projection)
        energy = torch.einsum("bntha,ha->bnht", torch.tanh(hidden), score.v.view(H, A // H))
    valid = padding_mask(memory.lengths, T)[:, None, None, :]
    alignment = energy.masked_fill(~valid, float("-inf")).softmax(-1)
    values = memory.values.view(B, T, H, D // H)
    context = torch.einsum("bnht,bthd->bnhd", alignment, values).reshape(B, N, D)
    return context, alignment


def _location(previous: Tensor, filters: Tensor, projection: Tensor) -> Tensor:
    """Features of the previous alignment [B, N, H, T] -> [B, N, T, H, A/H]."""
    B, N, H, T = previous.shape
    C, W = filters.shape
    features = F.conv1d(previous.reshape(B * N * H, 1, T), filters[:, None], padding=W // 2)
    features = features.view(B, N, H, C, T)
    return torch.einsum("bnhct,hac->bntha", features, projection.view(H, -1, C))


def lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Gate pre-activations [..., 4S] and cell [..., S] -> hidden and cell, each [..., S]."""
    i, f, g, o = gates.chunk(4, dim=-1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def decode_step(
    projected: Tensor,
    state: State,
    memory: Memory,
    decoder: Decoder,
    score: Score,
    masks: Masks | None = None,
    attention: Callable[..., tuple[Tensor, Tensor]] = attend,
) -> tuple[Tensor, State]:
    """One step of the decoder: LSTM layers on [embedding; context], then attention.

    Args:
        projected: the embedding through ``decoder.embedding_weight`` plus the first bias,
            [B, N, 4S].
        state: the state before the step.
        memory: what is attended to.
        decoder: recurrent weights.
        score: the score function.
        masks: dropout masks, in training.
        attention: what computes :func:`attend`.

    Returns:
        The last layer's output [B, N, S] (masked, as the query saw it) and the new state.
    """
    masks = masks or Masks()
    fed = state.context if masks.context is None else state.context * masks.context[:, None]
    gates = projected + F.linear(fed, decoder.context_weight)
    hiddens, cells = [], []
    output = projected
    for layer, recurrent in enumerate(decoder.recurrent_weights):
        if layer > 0:
            gates = F.linear(output, decoder.input_weights[layer - 1], decoder.biases[layer])
        gates = gates + F.linear(state.hidden[:, :, layer], recurrent)
        hidden, cell = lstm_cell(gates, state.cell[:, :, layer])
        hiddens.append(hidden)
        cells.append(cell)
        output = hidden if masks.hidden is None else hidden * masks.hidden[:, None, layer]
    query = F.linear(output, decoder.query_weight)
    context, alignment = attention(query, memory, score, state.alignment)
    return output, State(torch.stack(hiddens, 2), torch.stack(cells, 2), context, alignment)


def initial_state(memory: Memory, decoder: Decoder, score: Score, beams: int = 1) -> State:
    """Zero LSTM states and context, and a uniform alignment."""
    B, T, D = memory.values.shape
    L, S = len(decoder.recurrent_weights), decoder.recurrent_weights[0].shape[1]
    zeros = memory.values.new_zeros
    alignment = initial_alignment(memory.lengths, T, beams, score.heads, memory.values.dtype)
    return State(zeros(B, beams, L, S), zeros(B, beams, L, S), zeros(B, beams, D), alignment)


def decode_sequence(
    embedded: Tensor,
    memory: Memory,
    decoder: Decoder,
    score: Score,
    masks: Masks | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The whole teacher-forced recurrence.

    Args:
        embedded: embeddings of the inputs of every step, [B, U, E].
        memory: what is attended to.
        decoder: recurrent weights.
        score: the score function.
        masks: dropout masks, in training.

    Returns:
        outputs of the last layer [B, U, S], contexts [B, U, D], alignments [B, U, H, T].
    """
    projected = F.linear(embedded, decoder.embedding_weight, decoder.biases[0])
    state = initial_state(memory, decoder, score)
    outputs, contexts, alignments = [], [], []
    for step in projected.unbind(1):
        output, state = decode_step(step[:, None], state, memory, decoder, score, masks)
        outputs.append(output)
        contexts.append(state.context)
        alignments.append(state.alignment)
    return torch.cat(outputs, 1), torch.cat(contexts, 1), torch.cat(alignments, 1)
