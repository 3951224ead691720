"""Overlapping chunks -> one text: no word of an overlap is lost or doubled.

Times are in seconds from the start of the file.
"""

import difflib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from las.decoding.hypothesis import Hypothesis
from las.text.characters import EOS
from las.transcription.chunking import Chunk
from las.transcription.quality import Quality
from las.transcription.word_timestamps import word_spans

_SAME_SECONDS = 0.4  # the same word has times this close in two chunks
_MIN_SIMILARITY = (
    0.5  # share of equal characters from which one word may be a misreading of another
)


@dataclass(frozen=True)
class DecodedChunk:
    """A chunk with its hypotheses."""

    chunk: Chunk
    hypotheses: list[Hypothesis]  # best first
    centres: np.ndarray  # [U] attention centre of each id of the best, in seconds of the chunk
    quality: Quality


class WordTime(NamedTuple):
    """A word and its approximate time."""

    text: str
    time: float


def words(decoded: DecodedChunk, rate: int) -> list[tuple[WordTime, int, int]]:
    """The words of a chunk, each with the index of its first id and of the one after its last."""
    start = decoded.chunk.start / rate
    text = decoded.hypotheses[0].text
    return [
        (WordTime(text[a:b], start + float(np.median(decoded.centres[a:b]))), a, b)
        for a, b in word_spans(text)
    ]


def seam(
    before: Sequence[WordTime], after: Sequence[WordTime], start: float, end: float
) -> tuple[int, int]:
    """Where to go over from one chunk's words to the next chunk's.

    Words of the overlap that both have are aligned by text and time. The cut is at the pair
    nearest the overlap's middle: near its own edge a chunk cuts words and lacks context, so that
    the other is used there. Without a pair the cut is in the longest pause.

    Args:
        before: the words of the earlier chunk, in order.
        after: those of the later.
        start: of the overlap.
        end: of the overlap.

    Returns:
        how many words of `before` to keep, and the index of the first of `after` to keep.
    """
    middle = (start + end) / 2
    pairs = _aligned(before, after, start, end)
    if pairs:
        exact = [(i, j) for i, j in pairs if before[i].text == after[j].text]
        i, j = min(
            exact or pairs, key=lambda p: abs(before[p[0]].time + after[p[1]].time - 2 * middle)
        )
        if exact or before[i].time + after[j].time <= 2 * middle:
            return i + 1, j + 1
        return i, j
    quarter = (end - start) / 4
    times = [word.time for word in (*before, *after) if abs(word.time - middle) < quarter]
    edges = sorted([middle - quarter, *times, middle + quarter])
    gaps = [(b - a, (a + b) / 2) for a, b in itertools.pairwise(edges)]
    cut = max(gaps, key=lambda gap: (gap[0], -abs(gap[1] - middle)))[1]
    kept = sum(word.time < cut for word in before)
    return kept, len(after) - sum(word.time >= cut for word in after)


def _aligned(
    before: Sequence[WordTime], after: Sequence[WordTime], start: float, end: float
) -> list[tuple[int, int]]:
    """Pairs of words that are the same in two chunks, by the alignment of highest similarity."""
    low, high = start - _SAME_SECONDS, end + _SAME_SECONDS
    rows = [i for i, word in enumerate(before) if word.time >= low]
    columns = [j for j, word in enumerate(after) if word.time <= high]
    best = np.zeros((len(rows) + 1, len(columns) + 1))
    similar = np.zeros((len(rows), len(columns)))
    for r, i in enumerate(rows):
        for c, j in enumerate(columns):
            similar[r, c] = _similarity(before[i], after[j])
            joined = best[r, c] + similar[r, c] if similar[r, c] else 0.0
            best[r + 1, c + 1] = max(joined, best[r, c + 1], best[r + 1, c])
    found, r, c = [], len(rows), len(columns)
    while r and c:
        if best[r, c] == best[r - 1, c]:
            r -= 1
        elif best[r, c] == best[r, c - 1]:
            c -= 1
        else:
            r, c = r - 1, c - 1
            found.append((rows[r], columns[c]))
    return found[::-1]


def _similarity(a: WordTime, b: WordTime) -> float:
    """0 for words that cannot be the same, up to 1."""
    apart = abs(a.time - b.time) / _SAME_SECONDS
    if apart > 1:
        return 0.0
    ratio = 1.0
    if a.text != b.text:
        ratio = 0.8 * difflib.SequenceMatcher(None, a.text, b.text, autojunk=False).ratio()
        if ratio < 0.8 * _MIN_SIMILARITY:
            return 0.0
    return ratio - 0.5 * apart


def stitch(
    before: DecodedChunk, after: DecodedChunk, rate: int
) -> tuple[DecodedChunk, DecodedChunk]:
    """Trim two neighbours so that no word of their overlap is lost or doubled."""
    if not after.chunk.overlap:
        return before, after
    left, right = words(before, rate), words(after, rate)
    start = after.chunk.start / rate
    kept, first = seam(
        [word for word, *_ in left],
        [word for word, *_ in right],
        start,
        start + after.chunk.overlap / rate,
    )
    if kept < len(left):
        before = _trimmed(before, 0, left[kept - 1][2] if kept else 0)
    if first:
        size = len(after.hypotheses[0].text)
        after = _trimmed(after, right[first][1] if first < len(right) else size, size)
    return before, after


def _trimmed(decoded: DecodedChunk, start: int, end: int) -> DecodedChunk:
    """Only the ids from ``start`` to ``end``, and the end of sentence."""
    whole = decoded.hypotheses[0]
    mask = np.zeros(len(whole.ids), bool)
    mask[start:end] = True
    mask |= whole.ids.numpy() == EOS
    index = np.flatnonzero(mask)
    hypothesis = replace(
        whole,
        text=whole.text[start:end],
        alignment=whole.alignment[index],
        ids=whole.ids[index],
        log_probs=whole.log_probs[index],
        ctc_times=None if whole.ctc_times is None else whole.ctc_times[index],
    )
    return replace(decoded, hypotheses=[hypothesis], centres=decoded.centres[index])
