"""The weights of the attention. The arithmetic is in ``las_kernels``."""

import math

import torch
from torch import Tensor, nn

from las.config import AttentionConfig
from las_kernels import Memory, Score


class Attention(nn.Module):
    """Dot, additive or location-aware attention with one or more heads, or none.

    Args:
        query_width: width of the decoder state.
        memory_width: width of the listener's output.
        config: kind of the score function, and sizes.
    """

    def __init__(self, query_width: int, memory_width: int, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.query = nn.Linear(query_width, config.width, bias=False)
        self.key = nn.Linear(memory_width, config.width)
        # Each head reads a slice of the values: without a projection, of one LSTM direction only.
        self.value = nn.Linear(memory_width, memory_width) if config.heads > 1 else nn.Identity()
        self.v: nn.Parameter | None = None
        self.filters: nn.Parameter | None = None
        self.projection: nn.Parameter | None = None
        if config.kind in ("additive", "location"):
            bound = 1 / math.sqrt(config.width // config.heads)
            self.v = nn.Parameter(torch.empty(config.width).uniform_(-bound, bound))
        if config.kind == "location":
            self.filters = nn.Parameter(torch.empty(config.channels, config.taps))
            self.projection = nn.Parameter(torch.empty(config.width, config.channels))
            nn.init.kaiming_uniform_(self.filters, a=math.sqrt(5))
            nn.init.kaiming_uniform_(self.projection, a=math.sqrt(5))

    def project(self, encoded: Tensor, lengths: Tensor) -> Memory:
        """Keys and values of an encoded batch [B, T, M] with lengths [B], for all decoder steps.

        Without attention the memory is one vector, the mean of the valid frames, which the decoder
        reads at every step (Sutskever et al. 2014; Cho et al. 2014).
        """
        if self.config.kind == "none":
            total = encoded.sum(1, keepdim=True)  # padding is zero
            encoded = total / lengths[:, None, None].to(total.dtype)
            lengths = torch.ones_like(lengths)
        return Memory(self.key(encoded), self.value(encoded), lengths)

    def score(self) -> Score:
        """The score function for ``las_kernels``."""
        scale = 1 / math.sqrt(self.config.width // self.config.heads)
        return Score(self.v, self.filters, self.projection, self.config.heads, scale)
