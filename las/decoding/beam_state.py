"""What a beam search holds: active and ended hypotheses, and the steps to trace them back.

B utterances, N beams, T frames of the memory, H heads.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from las.decoding.ctc_prefix_score import CTCState
from las_kernels import State

NEG_INF = float("-inf")


class Active(NamedTuple):
    """Hypotheses that may be extended; what the settings do not use is None."""

    total: Tensor  # [B, N] weighted log-probability, -inf where there is no hypothesis
    summed: Tensor  # [B, N] the part of it that is a sum over steps: all but CTC
    tokens: Tensor  # [B, N] last ids
    state: State
    ctc: CTCState | None
    lm: Any
    words: Any
    covered: Tensor | None  # [B, N, T] summed attention
    centre: Tensor | None  # [B, N] of the last step's attention, in frames
    history: Tensor | None  # [B, N, t] all ids


class Ended(NamedTuple):
    """The best hypotheses that ended, or were cut off by the limit of steps; best first."""

    score: Tensor  # [B, P], -inf where there is none
    step: Tensor  # [B, P] index of their last step
    beam: Tensor  # [B, P] what they extended in that step
    token: Tensor  # [B, P] last id
    log_prob: Tensor  # [B, P] of the last id, by the speller


class StepRecord(NamedTuple):
    """What is needed of a step to trace hypotheses back."""

    parents: Tensor  # [B, N] beam before the step
    tokens: Tensor  # [B, N]
    log_probs: Tensor  # [B, N] of the tokens, by the speller
    alignment: Tensor  # [B, N, H, T], by beam before the step


def add_ended(ended: Ended, new: Ended) -> Ended:
    """The best of both; the size of the first is kept."""
    size = ended.score.shape[1]
    score, order = torch.cat([ended.score, new.score], 1).topk(size, 1)
    rest = zip(ended[1:], new[1:], strict=True)
    return Ended(score, *(torch.cat(pair, 1).gather(1, order) for pair in rest))


def merge(finished: Ended, cut: Ended, count: int) -> Ended:
    """The first ``count`` hypotheses: those that finished come before those that were cut off."""
    merged = Ended(*(torch.cat(pair, 1) for pair in zip(finished, cut, strict=True)))
    # Both are sorted: only empty places go to the end.
    empty = (merged.score == NEG_INF).int()
    order = empty.argsort(dim=1, stable=True)[:, :count]
    return Ended(*(x.gather(1, order) for x in merged))


def backtrace(ended: Ended, records: list[StepRecord]) -> tuple[Tensor, Tensor, Tensor]:
    """Trace hypotheses back from their ends.

    Returns:
        ids and their log-probabilities [B, P, U], and alignments [B, P, U, H, T].
    """
    beam = ended.beam
    tokens, log_probs, alignments = [], [], []
    for step in range(len(records) - 1, -1, -1):
        record = records[step]
        before = step < ended.step
        tokens.append(torch.where(before, record.tokens.gather(1, beam), ended.token))
        log_probs.append(torch.where(before, record.log_probs.gather(1, beam), ended.log_prob))
        beam = torch.where(before, record.parents.gather(1, beam), beam)
        alignments.append(select(record.alignment, beam))
    return (
        torch.stack(tokens[::-1], -1),
        torch.stack(log_probs[::-1], -1),
        torch.stack(alignments[::-1], 2),
    )


def select(values: Tensor, index: Tensor) -> Tensor:
    """Reorder the beams of [B, N, ...]: hypothesis n of utterance b becomes ``index[b, n]``."""
    size = values.shape[1]
    chosen = values.flatten(0, 1).index_select(0, flat_rows(index, size))
    return chosen.view(*index.shape, *values.shape[2:])


def flat_rows(index: Tensor, size: int | None = None) -> Tensor:
    """An ``index`` [B, P] into [B, N] as an index into [B * N]; N is ``size``, or P."""
    B, P = index.shape
    size = size or P
    return (torch.arange(0, B * size, size, device=index.device)[:, None] + index).flatten()


def take(values: Tensor, rows: Tensor) -> Tensor:
    """As :func:`select`, by rows of [B * N] as many as there were."""
    return values.flatten(0, 1).index_select(0, rows).view_as(values)
