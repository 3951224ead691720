"""What was decoded of windows: judged, split again where it is bad, and stitched into one text.

Times are in seconds from the start of the file unless said otherwise. Knows nothing of files.
"""

import difflib
import itertools
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from las.audio.levels import HOP_SECONDS, quietest, runs
from las.decoding.hypothesis import Hypothesis
from las.text.characters import EOS
from las.transcription.chunking import Window, WindowConfig

MAX_COMPRESSION = 2.4
"""Bytes of a text to bytes of its zlib form, above which it repeats itself (as in whisper)."""
MAX_REPEATS = 4
"""Times that a word or a sequence of words may follow itself."""
MAX_SKIPPED = 0.75
"""Seconds of speech in a row that nothing was written for.

Of 210 utterances of AN4's test set and the demo's none has more than 0.66; of windows two to three
times as long as any of the training, which the models misread, 19 in 20 have 0.9 or more.
"""
MAX_BACK = 1.0
"""Seconds that attention may go back from the farthest word before.

The same utterances have 0.76 at most, and half of such windows over 1.2 (AN4) or 0.7 (demo).
"""

_SAME_SECONDS = 0.4  # two windows place the same word this closely, or it is another
_ALIKE = 0.5  # share of equal letters from which two words may be one, misread once


class Judgement(NamedTuple):
    """Signs that a window was not decoded well; times in seconds."""

    finished: bool  # False: the limit of steps ended it
    compression: float  # of the text by zlib
    repeats: int  # of the sequence of words that most often follows itself
    skipped: float  # longest stretch of speech that nothing was written for
    back: float  # the farthest that attention went back
    seconds: float  # of the window

    @property
    def looped(self) -> bool:
        """Whether the text repeats itself without end."""
        return not self.finished or self.compression > MAX_COMPRESSION or self.repeats > MAX_REPEATS

    @property
    def good(self) -> bool:
        """Whether there is no sign."""
        return not self.looped and self.skipped <= MAX_SKIPPED and self.back <= MAX_BACK

    @property
    def doubt(self) -> float:
        """Seconds that were probably not decoded well."""
        if self.looped:
            return self.seconds
        signs = (self.skipped, MAX_SKIPPED), (self.back, MAX_BACK)
        return min(self.seconds, sum(found for found, limit in signs if found > limit))


@dataclass(frozen=True)
class Piece:
    """A window with what was decoded of it."""

    window: Window
    hypotheses: list[Hypothesis]
    centres: np.ndarray  # [U] where each id of the best was heard, in seconds of the window
    judgement: Judgement


def centres(hypothesis: Hypothesis, frame: float) -> np.ndarray:
    """Where each id [U] was heard: the middle of its attention, in seconds of the window.

    The middle has half of the attention, summed over heads, on either side: far frames that get a
    little of it do not move it.

    Args:
        hypothesis: with its alignment.
        frame: seconds of one column of the alignment.
    """
    weight = hypothesis.alignment.float().sum(1).cumsum(-1).numpy()  # [U, T]
    if not weight.size:
        return np.zeros(len(hypothesis.ids), np.float32)
    middle = (weight < 0.5 * weight[:, -1:]).sum(-1)
    return ((middle + 0.5) * frame).astype(np.float32)


def judge(hypothesis: Hypothesis, heard: np.ndarray, window: Window, rate: int) -> Judgement:
    """Look for signs that a window looped, stopped early or lost its way.

    Args:
        hypothesis: the best of the window.
        heard: its :func:`centres` [U]; without attention, of one frame, they say nothing.
        window: the audio.
        rate: of the audio, in Hz.
    """
    data = hypothesis.text.encode()
    skipped = back = 0.0
    if hypothesis.alignment.shape[-1] > 1:
        written = heard[hypothesis.ids.numpy() != EOS]
        skipped = _skipped(written, window.speech)
        times = np.array([np.median(heard[a:b]) for _, a, b in _spans(hypothesis.text)])
        if len(times):
            back = float((np.maximum.accumulate(times) - times).max())
    return Judgement(
        hypothesis.finished,
        len(data) / len(zlib.compress(data)) if data else 0.0,
        repeats(hypothesis.text.split()),
        skipped,
        back,
        len(window.samples) / rate,
    )


def _skipped(written: np.ndarray, speech: np.ndarray) -> float:
    """The most seconds of speech between two neighbours of these times, and the edges."""
    edges = np.sort(written) / HOP_SECONDS
    places = np.clip(edges.astype(int), 0, len(speech))
    counts = np.add.reduceat(np.append(speech, False).astype(int), np.append(0, places))
    # Between equal edges reduceat gives one element, not none.
    counts[:-1][np.diff(np.append(0, places)) == 0] = 0
    return float(counts.max()) * HOP_SECONDS


def repeats(words: Sequence[str]) -> int:
    """How often the sequence of words that most often follows itself stands in a row."""
    most = min(1, len(words))
    for size in range(1, len(words) // 2 + 1):
        run = 0
        for i in range(size, len(words)):
            run = run + 1 if words[i] == words[i - size] else 0
            most = max(most, 1 + run // size)
    return most


def halves(window: Window, level: np.ndarray, rate: int, config: WindowConfig) -> list[Window]:
    """Cut a window near its middle: in the longest silence, or else overlapping; or not at all.

    Args:
        window: what was not decoded well.
        level: its levels, every 10 ms.
        rate: in Hz.
        config: lengths.

    Returns:
        two windows, or none if they would be too short.
    """
    size = len(window.samples)
    seconds = size / rate
    hop = round(HOP_SECONDS * rate)
    shortest = max(config.min_seconds, seconds / 4)
    # The overlap with the window before stays within the first half.
    low, high = max(shortest, window.overlap / rate), seconds - shortest
    if low > high:
        return []
    inner = [
        (a, b)
        for a, b in runs(~window.speech)
        if low <= (a + b) / 2 * HOP_SECONDS <= high and b - a >= 0.1 / HOP_SECONDS
    ]
    if inner:
        a, b = max(inner, key=lambda run: run[1] - run[0])
        end = start = (a + b) * hop // 2
    else:
        place = quietest(level, low, max(high, low + HOP_SECONDS)) * hop
        around = round(min(config.overlap_seconds, seconds / 4) * rate) // 2
        start, end = max(place - around, hop), min(place + around, size - hop)
    first = Window(window.start, window.samples[:end], window.speech[: end // hop], window.overlap)
    second = window.samples[start:], window.speech[start // hop :]
    return [first, Window(window.start + start, *second, end - start)]


class Spoken(NamedTuple):
    """A word and when, roughly."""

    text: str
    time: float


def words(piece: Piece, rate: int) -> list[tuple[Spoken, int, int]]:
    """The words of a piece, each with its first id and the one behind its last."""
    start = piece.window.start / rate
    return [
        (Spoken(word, start + float(np.median(piece.centres[a:b]))), a, b)
        for word, a, b in _spans(piece.hypotheses[0].text)
    ]


def _spans(text: str) -> list[tuple[str, int, int]]:
    """Words, each with the place of its first letter and the one behind its last."""
    return [(found[0], found.start(), found.end()) for found in re.finditer(r"[^ ]+", text)]


def seam(
    before: Sequence[Spoken], after: Sequence[Spoken], start: float, end: float
) -> tuple[int, int]:
    """Where to go over from one window's words to the next window's.

    Words that both have heard in the overlap are aligned by text and time. The cut is at the pair
    nearest the overlap's middle: what a window says near its own edge, where words are cut and
    context is missing, is left to the other. Without a pair it is in the longest pause.

    Args:
        before: the words of the earlier window, in order.
        after: those of the later.
        start: of the overlap.
        end: of the overlap.

    Returns:
        how many words of `before` to keep, and the index of the first of `after` to keep.
    """
    middle = (start + end) / 2
    pairs = _pairs(before, after, start, end)
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


def _pairs(
    before: Sequence[Spoken], after: Sequence[Spoken], start: float, end: float
) -> list[tuple[int, int]]:
    """Words of two windows that are the same, as the alignment of most likeness has them."""
    low, high = start - _SAME_SECONDS, end + _SAME_SECONDS
    rows = [i for i, word in enumerate(before) if word.time >= low]
    columns = [j for j, word in enumerate(after) if word.time <= high]
    best = np.zeros((len(rows) + 1, len(columns) + 1))
    like = np.zeros((len(rows), len(columns)))
    for r, i in enumerate(rows):
        for c, j in enumerate(columns):
            like[r, c] = _likeness(before[i], after[j])
            joined = best[r, c] + like[r, c] if like[r, c] else 0.0
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


def _likeness(a: Spoken, b: Spoken) -> float:
    """0 for words that cannot be the same, up to 1."""
    apart = abs(a.time - b.time) / _SAME_SECONDS
    if apart > 1:
        return 0.0
    ratio = 1.0
    if a.text != b.text:
        ratio = 0.8 * difflib.SequenceMatcher(None, a.text, b.text, autojunk=False).ratio()
        if ratio < 0.8 * _ALIKE:
            return 0.0
    return ratio - 0.5 * apart


def stitch(before: Piece, after: Piece, rate: int) -> tuple[Piece, Piece]:
    """Trim two neighbours so that no word of their overlap is lost or doubled."""
    if not after.window.overlap:
        return before, after
    left, right = words(before, rate), words(after, rate)
    start = after.window.start / rate
    kept, first = seam(
        [word for word, *_ in left],
        [word for word, *_ in right],
        start,
        start + after.window.overlap / rate,
    )
    if kept < len(left):
        before = _trimmed(before, 0, left[kept - 1][2] if kept else 0)
    if first:
        size = len(after.hypotheses[0].text)
        after = _trimmed(after, right[first][1] if first < len(right) else size, size)
    return before, after


def _trimmed(piece: Piece, start: int, end: int) -> Piece:
    """Only the ids from ``start`` to ``end``, and the end of sentence."""
    whole = piece.hypotheses[0]
    keep = np.zeros(len(whole.ids), bool)
    keep[start:end] = True
    keep |= whole.ids.numpy() == EOS
    index = np.flatnonzero(keep)
    hypothesis = replace(
        whole,
        text=whole.text[start:end],
        alignment=whole.alignment[index],
        ids=whole.ids[index],
        log_probs=whole.log_probs[index],
        heard=None if whole.heard is None else whole.heard[index],
    )
    return replace(piece, hypotheses=[hypothesis], centres=piece.centres[index])
