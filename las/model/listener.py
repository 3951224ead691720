"""The listener: a pyramid of bidirectional LSTM layers that encodes feature frames.

The output does not depend on the batch: the backward direction starts at each utterance's own last
frame, so that no padding is read before speech (:func:`las_kernels.bilstm`).
"""

import torch
from torch import Tensor, nn

from las.config import ListenerConfig
from las.model.convolution import Convolutions
from las_kernels import bilstm, padding_mask


class Listener(nn.Module):
    """Bidirectional LSTM layers that shorten the sequence by ``config.reduction``.

    The input stacks ``config.stack`` frames, or reduces them by convolutions. The rest of the
    reduction concatenates pairs of frames before the second layer, the third and so on (Chan et
    al. 2016, section 3.1).

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
        """Number of frames of the memory, and of CTC, for numbers of input frames."""
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
            memory [B, T/reduction, 2*width] and its lengths [B]; the input of the CTC head and its
            lengths. That is the memory up to a reduction of 4, else the output of the last layer
            at a reduction of 4; the head then makes ``config.ctc_frames`` of each frame.
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
                # The norm changes padding, which the next layer may concatenate to the last frame.
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
    """Concatenate ``count`` neighbouring frames: [B, T, F] -> [B, ceil(T/count), count*F].

    An incomplete last group is filled with zeros.
    """
    if count == 1:
        return x, lengths
    B, T, F = x.shape
    x = nn.functional.pad(x, (0, 0, 0, -T % count))
    return x.reshape(B, -1, count * F), _ceil(lengths, count)


def _ceil(lengths: Tensor, count: int) -> Tensor:
    return (lengths + count - 1) // count


def _initialise(lstm: nn.LSTM) -> None:
    """Initialise the biases, with open forget gates (Jozefowicz et al. 2015)."""
    width = lstm.hidden_size
    with torch.no_grad():
        for name, bias in lstm.named_parameters():
            if name.startswith("bias"):
                bias.zero_()
            if name == "bias_ih_l0":
                bias[width : 2 * width] = 1.0
