"""torch's LSTM, on any processor."""

import torch
from torch import Tensor, nn

from las_kernels.lstm import bfloat16_on_cpu


class LSTM(nn.LSTM):
    """``nn.LSTM`` that falls back to float32 where the CPU has no LSTM in bfloat16.

    torch uses oneDNN on a CPU, whose LSTM in bfloat16 needs AVX-512 and fails without. All other
    operators then work, only more slowly.
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
