"""Convolutions at the input of the listener; each halves the numbers of frames and bands."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from las_kernels import padding_mask


class Convolutions(nn.Module):
    """Strided convolutions over frames and bands, ReLU after each, layer normalisation at the end.

    As in Dong et al. 2018 (Speech-Transformer, section 3.2), without a projection, as an LSTM layer
    follows. The output does not depend on the batch: padding stays zero in all layers, and in
    evaluation on a CPU utterances are computed one by one, as the rounding of oneDNN depends on
    the shape.

    Args:
        features: bands of the input frames.
        channels: of each convolution.

    Attributes:
        width: of the output frames.
    """

    def __init__(self, features: int, channels: Sequence[int]) -> None:
        super().__init__()
        sizes = [1, *channels]
        self.layers = nn.ModuleList(
            nn.Conv2d(*pair, kernel_size=3, stride=2, padding=1)
            for pair in zip(sizes, channels, strict=False)
        )
        bands = features
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.get_parameter("weight"), nonlinearity="relu")
            nn.init.zeros_(layer.get_parameter("bias"))
            bands = (bands + 1) // 2
        self.width = bands * channels[-1]
        self.norm = nn.LayerNorm(self.width)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve.

        Args:
            features: [B, T, F], zero on padding.
            lengths: valid frames [B].

        Returns:
            [B, T', width], zero on padding, and valid frames [B]; T' is T, halved and rounded up by
            each convolution.
        """
        if self.training or features.device.type != "cpu" or torch.compiler.is_compiling():
            return self._batch(features, lengths)
        T = features.shape[1]
        rows = [
            self._batch(features[row : row + 1, :length], lengths[row : row + 1])[0][0]
            for row, length in enumerate(lengths.tolist())
        ]
        for _ in self.layers:
            T, lengths = (T + 1) // 2, (lengths + 1) // 2
        x = rows[0].new_zeros(len(rows), T, self.width)
        for row, one in enumerate(rows):
            x[row, : len(one)] = one
        return x, lengths

    def _batch(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x = features[:, None]
        kind = x.device.type
        # On a CPU bfloat16 is fast for the products of the LSTM layers, and slow here.
        with torch.autocast(kind, enabled=kind != "cpu" and torch.is_autocast_enabled(kind)):
            for layer in self.layers:
                # Channels last halve the time of oneDNN.
                x = torch.relu(layer(x.contiguous(memory_format=torch.channels_last)))
                lengths = (lengths + 1) // 2
                mask = padding_mask(lengths, x.shape[2])[:, None, :, None]
                x = x * mask.to(x.dtype)
            x = self.norm(x.permute(0, 2, 3, 1).flatten(2))
        return x * padding_mask(lengths, x.shape[1])[:, :, None].to(x.dtype), lengths
