"""torch's LSTM, on any processor."""

import torch
from torch import Tensor, nn

from las_kernels.lstm import bfloat16_on_cpu


class LSTM(nn.LSTM):
    """``nn.LSTM``, in float32 where autocast asks a processor for bfloat16 that has none for it.

    oneDNN, which torch takes on a CPU, has an LSTM in bfloat16 for AVX-512 alone, and fails on
    other processors where everything else goes on, only slower.
    """

    def __call__(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As ``nn.LSTM``; the output has autocast's dtype where that is on."""
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or bfloat16_on_cpu():
            return super().__call__(x, state)
        with torch.autocast("cpu", enabled=False):
            outputs, after = super().__call__(x.float(), state)
        return outputs.to(torch.get_autocast_dtype("cpu")), after
