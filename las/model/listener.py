"""The listener: frames -> memory, by joined frames and a pyramid of bidirectional LSTMs.

A batch changes no output: the backward direction starts at each utterance's own last frame, so that
no padding is read before speech (:func:`las_kernels.bilstm`).
"""

import torch
from torch import Tensor, nn

from las.config import ListenerConfig
from las.model.convolution import Convolutions
from las_kernels import bilstm, padding_mask


class Listener(nn.Module):
    """Bidirectional LSTM layers that shorten the sequence by ``config.reduction``.

    The input stacks ``config.stack`` frames, or joins them by convolutions; the rest of the
    reduction joins pairs of frames before the second layer, the third and so on (Chan et al. 2016,
    section 3.1).

    Args:
        features: width of the input frames.
        config: sizes.
    """

    def __init__(self, features: int, config: ListenerConfig) -> None:
        super().__init__()
        self.config = config
        self.width = 2 * config.width
        self.layers = nn.ModuleList()
        self.front = Convolutions(features, config.convolutions) if config.convolutions else None
        size = self.front.width if self.front is not None else features * config.stack
        for layer in range(config.layers):
            if 1 <= layer <= config.pairings:
                size *= 2
            self.layers.append(BidirectionalLSTM(size, config.width))
            size = self.width
        self.norms = nn.ModuleList(
            nn.LayerNorm(self.width) for _ in range(config.layers if config.norm else 0)
        )
        self.dropout = nn.Dropout(config.dropout)

    def frames(self, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Frames of the memory, and of CTC, from frames of the input."""
        stacked = _ceil(lengths, self.config.stack)
        return (
            _ceil(stacked, 2**self.config.pairings),
            _ceil(stacked, 2**self.config.ctc_pairings) * self.config.ctc_frames,
        )

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode frames.

        Args:
            features: [B, T, F], zero on padding.
            lengths: valid frames [B].

        Returns:
            memory [B, T/reduction, 2*width] and its lengths [B]; the features for CTC, which are
            the memory itself up to a reduction of 4 and the last layer at a reduction of 4
            beyond, and their lengths, before ``config.ctc_frames`` are made of each.
        """
        if self.front is not None:
            x, lengths = self.front(features, lengths)
        else:
            x, lengths = join_frames(features, lengths, self.config.stack)
        for index, layer in enumerate(self.layers):
            if 1 <= index <= self.config.pairings:
                x, lengths = join_frames(x, lengths, 2)
            x = layer(x, lengths)
            if self.config.norm:
                # What padding becomes is cleared: the next layer's last frames may join it.
                mask = padding_mask(lengths, x.shape[1])[:, :, None]
                x = self.norms[index](x) * mask.to(x.dtype)
            x = self.dropout(x)
            if index == self.config.ctc_layer:
                ctc, ctc_lengths = x, lengths
        return x, lengths, ctc, ctc_lengths


class BidirectionalLSTM(nn.Module):
    """One layer; output [B, T, 2*width], zero on padding."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.forwards = nn.LSTM(features, width, batch_first=True)
        self.backwards = nn.LSTM(features, width, batch_first=True)
        for lstm in (self.forwards, self.backwards):
            _initialise(lstm)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Args: x [B, T, F], lengths [B]. Returns [B, T, 2*width]."""
        return bilstm(x, lengths, [*_weights(self.forwards), *_weights(self.backwards)])


def _weights(lstm: nn.LSTM) -> list[Tensor]:
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    return [lstm.get_parameter(name) for name in names]


def join_frames(x: Tensor, lengths: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Join ``count`` neighbouring frames: [B, T, F] -> [B, ceil(T/count), count*F].

    An incomplete last group is filled with zeros, as padding is.
    """
    if count == 1:
        return x, lengths
    B, T, F = x.shape
    x = nn.functional.pad(x, (0, 0, 0, -T % count))
    return x.reshape(B, -1, count * F), _ceil(lengths, count)


def _ceil(lengths: Tensor, count: int) -> Tensor:
    return (lengths + count - 1) // count


def _initialise(lstm: nn.LSTM) -> None:
    """Forget gates start open (Jozefowicz et al. 2015): memory is kept until told otherwise."""
    width = lstm.hidden_size
    with torch.no_grad():
        for name, bias in lstm.named_parameters():
            if name.startswith("bias"):
                bias.zero_()
            if name == "bias_ih_l0":
                bias[width : 2 * width] = 1.0
