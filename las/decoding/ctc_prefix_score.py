"""CTC prefix scores of hypotheses, for joint CTC/attention search (Watanabe et al. 2017, alg. 2).

The probability of a prefix sums over every alignment whose text starts with it. The recursion
over frames, ``r_t = p_t (r_{t-1} + phi_{t-1})``, is linear: divided by the running product of
``p`` it is a cumulative sum. So a step of search takes a few tensor operations over all
utterances, beams, frames and characters, and no loop over any of them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from las.text.characters import BLANK, EOS
from las_kernels import padding_mask

# The exponential of anything lower is zero in float64, and a sum of probabilities that starts
# from zero cannot be compared.
_FLOOR = -700.0


class CTCState(NamedTuple):
    """Forward log-probabilities of [B, N] prefixes, by number of frames used: 0..T."""

    nonblank: Tensor  # [B, N, T+1], of alignments that end with the prefix's last character
    blank: Tensor  # [B, N, T+1], of those that end with a blank
    last: Tensor  # [B, N], the last character; the end of sentence of an empty prefix


class CTCPrefixScorer:
    """Scores the extensions of prefixes by CTC; float64 throughout.

    Padding has no effect: sums do not change beyond an utterance's last frame.

    Args:
        log_probs: of the CTC head, [B, T, V].
        lengths: valid frames [B].
    """

    def __init__(self, log_probs: Tensor, lengths: Tensor) -> None:
        self.valid = padding_mask(lengths, log_probs.shape[1])  # [B, T]
        frames = log_probs.double().clamp(min=_FLOOR).transpose(1, 2)  # [B, V, T]
        self._frames = frames.masked_fill(~self.valid[:, None], float("-inf"))
        self._probabilities = self._frames.exp().transpose(1, 2)
        running = frames.masked_fill(~self.valid[:, None], 0.0).cumsum(-1)
        self._products = torch.nn.functional.pad(running, (1, 0))  # [B, V, T+1]

    def start(self, beams: int) -> CTCState:
        """The empty prefix, ``beams`` times for every utterance."""
        blank = self._products[:, BLANK, None].repeat(1, beams, 1)
        last = torch.full(blank.shape[:2], EOS, device=blank.device)
        return CTCState(torch.full_like(blank, float("-inf")), blank, last)

    def score(self, state: CTCState) -> Tensor:
        """Log-probabilities of the prefixes with one more id, [B, N, V].

        An extension by a character is scored as a prefix, one by the end of sentence as a complete
        text; a blank is no extension.
        """
        before = torch.logaddexp(state.nonblank, state.blank)[..., :-1]
        before = before.masked_fill(~self.valid[:, None], float("-inf"))
        top = before.amax(-1, keepdim=True).clamp(min=-1e300)  # finite, to be subtracted
        scores = torch.bmm((before - top).exp(), self._probabilities).log() + top
        # A character that repeats the last one needs a blank between.
        repeated = (state.blank[..., :-1] + self._rows(self._frames, state.last)).logsumexp(-1)
        scores.scatter_(-1, state.last[..., None], repeated[..., None])
        scores[..., EOS] = torch.logaddexp(state.nonblank[..., -1], state.blank[..., -1])
        scores[..., BLANK] = float("-inf")
        return scores

    def extend(self, state: CTCState, index: Tensor, tokens: Tensor) -> CTCState:
        """The state of prefixes ``index`` [B, N] with one more character ``tokens`` [B, N]."""
        nonblank, blank = self._pick(state.nonblank, index), self._pick(state.blank, index)
        repeated = (tokens == state.last.gather(1, index))[..., None]
        before = torch.where(repeated, blank, torch.logaddexp(nonblank, blank))
        products = self._rows(self._products, tokens)
        nonblank = _recur(before, products)
        outside = ~torch.nn.functional.pad(self.valid, (1, 0), value=True)[:, None]
        nonblank = nonblank.masked_fill(outside, float("-inf"))
        return CTCState(nonblank, _recur(nonblank, self._products[:, BLANK, None]), tokens)

    @staticmethod
    def _rows(table: Tensor, tokens: Tensor) -> Tensor:
        """Rows of a table [B, V, T] for tokens [B, N]."""
        return table.gather(1, tokens[..., None].expand(-1, -1, table.shape[-1]))

    @staticmethod
    def _pick(values: Tensor, index: Tensor) -> Tensor:
        return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def _recur(before: Tensor, products: Tensor) -> Tensor:
    """Log of r_t = p_t (r_{t-1} + before_{t-1}), r_0 = 0, from the products of p up to t."""
    total = (before[..., :-1] - products[..., :-1]).logcumsumexp(-1)
    return torch.nn.functional.pad(total + products[..., 1:], (1, 0), value=float("-inf"))
