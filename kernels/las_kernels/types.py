"""What attention and the decoder are given: named tuples of tensors.

The letters of shapes are those of :mod:`las_kernels.reference`.
"""

from typing import NamedTuple

from torch import Tensor


class Memory(NamedTuple):
    """What the decoder attends to; stored once per utterance, whatever the number of beams."""

    keys: Tensor  # [B, T, A]
    values: Tensor  # [B, T, D]
    lengths: Tensor  # [B] valid frames, each 1..T


class Score(NamedTuple):
    """Parameters of the score function; which ones are set says which function it is.

    Additive (Bahdanau et al. 2015): ``v . tanh(q + k)``. Location-aware (Chorowski et al. 2015):
    ``v . tanh(q + k + projection conv(previous alignment))``. Dot: ``scale * q . k``.
    """

    v: Tensor | None = None  # [A]; None makes it the dot score
    filters: Tensor | None = None  # [C, W], W odd; with `projection` makes it location-aware
    projection: Tensor | None = None  # [A, C]
    heads: int = 1
    scale: float = 1.0  # of the dot score

    @property
    def location(self) -> tuple[int, int] | None:
        """Channels C and taps W of the location filter, where there is one."""
        return None if self.filters is None else (self.filters.shape[0], self.filters.shape[1])


class Decoder(NamedTuple):
    """Weights of the recurrent decoder, gates in torch's order (input, forget, cell, output).

    The first layer reads ``[embedding; context]``: its input matrix is kept as two, so that the
    embeddings of a whole sequence are projected by one GEMM.
    """

    embedding_weight: Tensor  # [4S, E]
    context_weight: Tensor  # [4S, D]
    input_weights: list[Tensor]  # L-1 of [4S, S], for the layers above the first
    recurrent_weights: list[Tensor]  # L of [4S, S]
    biases: list[Tensor]  # L of [4S]
    query_weight: Tensor  # [A, S]; the query is read from the last layer


class State(NamedTuple):
    """What one decoder step hands to the next; every member is indexed by [B, N] first."""

    hidden: Tensor  # [B, N, L, S]
    cell: Tensor  # [B, N, L, S]
    context: Tensor  # [B, N, D]
    alignment: Tensor  # [B, N, H, T]


class Masks(NamedTuple):
    """Dropout masks that stay the same over the sequence (Gal & Ghahramani 2016), or None."""

    hidden: Tensor | None = None  # [B, L, S], on each layer's output on its way up
    context: Tensor | None = None  # [B, D], on the context on its way back into the LSTM

    def of_layer(self, layer: int) -> Tensor | None:
        """The mask on the output of a layer, [B, S]."""
        return None if self.hidden is None else self.hidden[:, layer]
