"""Constraints of a beam search: extensions that may not be made get a score of -inf.

B utterances, N beams, V vocabulary.
"""

import torch
from torch import Tensor

from las.decoding.beam_state import NEG_INF
from las.text.characters import EOS


def repeated_ngrams(history: Tensor, size: int, vocabulary: int) -> Tensor:
    """Which ids [B, N, V] would repeat a sequence of ``size`` ids of a history [B, N, t]."""
    B, N, steps = history.shape
    blocked = torch.zeros(B, N, vocabulary, dtype=torch.bool, device=history.device)
    if steps < size:
        return blocked
    ngrams = history.unfold(-1, size, 1)  # [B, N, t-size+1, size]
    ending = history[..., None, steps - size + 1 :]
    same = (ngrams[..., :-1] == ending).all(-1)
    return blocked.int().scatter_add_(-1, ngrams[..., -1], same.int()).bool()


def apply_end_threshold(total: Tensor, attention: Tensor, threshold: float) -> None:
    """Drop, in place, ends of sentence that are less likely than the best allowed character.

    The end-of-sentence threshold of Hannun et al. (2019). Log-probabilities are negative: the
    higher it is, the easier is an end.

    Args:
        total: scores [B, N, V].
        attention: the speller's log-probabilities [B, N, V].
        threshold: factor of the best character's log-probability.
    """
    others = attention.masked_fill(total == NEG_INF, NEG_INF)
    others[..., EOS] = NEG_INF
    early = attention[..., EOS] <= threshold * others.amax(-1)
    total[..., EOS].masked_fill_(early, NEG_INF)


def limit_moves(
    total: Tensor, moves: Tensor, max_back: float | None, max_ahead: float | None
) -> Tensor:
    """Drop characters for which attention moved too far, unless it did so in all hypotheses.

    Ends of sentence are allowed: attention may be anywhere at the end.

    Args:
        total: scores [B, N, V].
        moves: of the centre of attention [B, N], in frames.
        max_back: the farthest it may go back.
        max_ahead: the farthest it may go ahead.
    """
    allowed = torch.ones_like(moves, dtype=torch.bool)
    if max_back is not None:
        allowed &= moves >= -max_back
    if max_ahead is not None:
        allowed &= moves <= max_ahead
    allowed &= (total > NEG_INF).any(-1)
    dropped = (~allowed & allowed.any(1, keepdim=True))[..., None].repeat(1, 1, total.shape[-1])
    dropped[..., EOS] = False
    return total.masked_fill(dropped, NEG_INF)
