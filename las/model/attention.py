"""Attend: the parameters of the score function, and what they make of an encoded utterance.

The arithmetic is in ``las_kernels``; this module only owns the weights.
"""

import math

import torch
from torch import Tensor, nn

from las.config import AttentionConfig
from las_kernels import Memory, Score


class Attend(nn.Module):
    """Dot, additive or location-aware attention with one or more heads, or none.

    Args:
        query_width: width of the decoder state that asks.
        memory_width: width of the listener's output.
        config: kind and sizes.
    """

    def __init__(self, query_width: int, memory_width: int, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.query = nn.Linear(query_width, config.width, bias=False)
        self.key = nn.Linear(memory_width, config.width)
        # Heads read slices of the values: mix the memory first, lest each sees one direction.
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

    def remember(self, encoded: Tensor, lengths: Tensor) -> Memory:
        """Project an encoded batch [B, T, M] of these lengths [B] once, for all decoder steps.

        Without attention the memory is one vector: the mean of the valid frames, which is what
        the decoder then reads at every step (Sutskever et al. 2014; Cho et al. 2014).
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
