"""Hypotheses -> words with times and probabilities.

Characters are at the times of the CTC head (`las.transcription.character_times`). Where it does not
support the text, or was not asked, they are where attention was. Not every row of attention is
usable: some peak on the first frames or are flat, because the speller knew what to write. So the
rows are the emissions of a hidden Markov model whose states are frames and that only moves forward,
by about the length of a character, or by any amount in a pause. Its posterior (forward-backward,
Rabiner 1989) keeps sharp rows where they are and places the others between them.

Neither source gives word boundaries next to a pause: both are early, by 0.1 to 0.2 s. There the
energy onsets and offsets are used. Measured: docs/decisions.md, `benchmarks.system.word_times`.
"""

import itertools
import re

import numpy as np

from las.audio.activity import HOP_SECONDS
from las.audio.levels import runs
from las.decoding.hypothesis import Hypothesis
from las.transcription.character_times import medians
from las.transcription.types import Word

_FLAT_SHARE = 0.2  # of a row of attention that is taken as spread over all frames
_PAUSE, _PAUSE_IN_WORD = 0.3, 0.02  # share of the moves that may be of any length
_SPREAD = 0.7  # of the logarithm of the other moves
_SHORTEST, _LONGEST = 0.04, 0.1  # seconds that a character lasts on average
_PAUSE_SECONDS = 0.1  # of silence; before a T within a word there is less
_REACH = 0.4  # seconds from a pause to the character next to it, at most
# Where no pause is next to a word: of attention, which peaks within a character, and of CTC.
# The seconds of a character before and after its centre; and where the next word starts, as a
# share of the way to it from the last character.
_Margins = tuple[float, float, float]
_BY_ATTENTION: _Margins = (0.08, 0.1, 0.2)
_BY_CTC: _Margins = (0.03, 0.08, 0.7)
_MIN_LOG_PROB = -100.0  # keeps means finite


def timed_words(hypothesis: Hypothesis, frame: float, offset: float) -> list[Word]:
    """The words of a hypothesis with their times and probabilities.

    Args:
        hypothesis: with its alignment over the memory.
        frame: seconds of one column of the alignment.
        offset: seconds from the start of the file to that of the alignment.

    Returns:
        A word for each stretch of characters without a space. Times never decrease, and lie
        between ``offset`` and the end of the alignment; only where the alignment has too few
        frames may a word start where it ends. The probability is the geometric mean over the
        word's characters and what ends it, a space or the end of sentence, if that was written:
        to be sure of a word is to be sure that it is complete.

    Raises:
        ValueError: there is text but its alignment has no frames.
    """
    spans = word_spans(hypothesis.text)
    if not spans:
        return []
    frames = hypothesis.alignment.shape[2]
    if frames == 0:
        raise ValueError("a hypothesis without the frames of its alignment has no times")
    seconds = frames * frame
    activity = np.ones(0, bool) if hypothesis.activity is None else hypothesis.activity.numpy()
    if hypothesis.ctc_times is not None:
        centres, margins = hypothesis.ctc_times.double().numpy().clip(0.0, seconds), _BY_CTC
    else:
        attention = hypothesis.alignment.double().mean(1).numpy()[: len(hypothesis.text)]
        gaps = np.array([" " in pair for pair in itertools.pairwise(" " + hypothesis.text)])
        centres, margins = positions(attention, frame, gaps) * frame, _BY_ATTENTION
    times = _boundaries(centres, spans, activity, margins, seconds)
    return [
        Word(hypothesis.text[first:last], offset + start, offset + end, probability)
        for (first, last), (start, end), probability in zip(
            spans, times, word_probabilities(hypothesis), strict=True
        )
    ]


def word_probabilities(hypothesis: Hypothesis) -> list[float]:
    """The speller's probability of each word; see :func:`timed_words`."""
    log_probs = finite_log_probs(hypothesis)
    return [
        float(np.exp(np.minimum(log_probs[first : last + 1].mean(), 0.0)))
        for first, last in word_spans(hypothesis.text)
    ]


def word_spans(text: str) -> list[tuple[int, int]]:
    """The index of the first character of each word, and of the one after its last."""
    return [match.span() for match in re.finditer("[^ ]+", text)]


def finite_log_probs(hypothesis: Hypothesis) -> np.ndarray:
    """Log-probabilities [U] of the ids, no lower than -100, so that means are finite."""
    found = np.nan_to_num(hypothesis.log_probs.double().numpy(), nan=_MIN_LOG_PROB)
    return np.maximum(found, _MIN_LOG_PROB)


def positions(attention: np.ndarray, frame: float, gaps: np.ndarray) -> np.ndarray:
    """The place of each character in frames, by attention; they never decrease.

    Args:
        attention: [U, T] of each character over the memory; rows need not be distributions.
        frame: seconds of one frame.
        gaps: [U] whether a pause is likely before a character.

    Returns:
        [U] medians of the posterior, between 0 and T.
    """
    U, T = attention.shape
    if T == 1:  # no alignment at all (attention "none"): evenly
        return (np.arange(U) + 0.5) / U
    rows = np.nan_to_num(attention, nan=0.0, posinf=0.0, neginf=0.0).clip(min=0.0)
    rows = rows / np.maximum(rows.sum(1, keepdims=True), 1e-9)
    emissions = (1 - _FLAT_SHARE) * rows + _FLAT_SHARE / T
    mean = min(max(T / (U + 1), _SHORTEST / frame), _LONGEST / frame)
    moves = np.arange(min(T, int(8 * mean) + 2)) + 0.5
    kernel = np.exp(-0.5 * (np.log(moves / mean) / _SPREAD) ** 2)
    kernel /= max(kernel.sum(), 1e-9)
    pauses = np.where(gaps, _PAUSE, _PAUSE_IN_WORD)

    def move(x: np.ndarray, pause: float) -> np.ndarray:
        return (1 - pause) * np.convolve(x, kernel)[:T] + pause / T * np.cumsum(x)

    forward = np.empty((U, T))
    backward = np.ones((U, T))
    forward[0] = emissions[0]
    for u in range(1, U):
        forward[u] = move(forward[u - 1] / forward[u - 1].sum(), pauses[u]) * emissions[u]
    for u in range(U - 2, -1, -1):
        row = move((backward[u + 1] * emissions[u + 1])[::-1], pauses[u + 1])[::-1]
        backward[u] = row / row.max()
    return medians(forward * backward)


def _boundaries(
    centres: np.ndarray,
    spans: list[tuple[int, int]],
    activity: np.ndarray,
    margins: _Margins,
    seconds: float,
) -> list[tuple[float, float]]:
    """Starts and ends of words, from the times [U] of their characters."""
    lead, tail, way = margins
    firsts = [float(centres[a]) for a, _ in spans]
    lasts = [float(centres[b - 1]) for _, b in spans]
    low, high = np.array([-np.inf, *lasts]), np.array([*firsts, np.inf])
    starts, ends = [], []
    for left, right, silences in zip(
        low.tolist(), high.tolist(), _silences(activity, low, high), strict=True
    ):
        end, start = left + tail, right - lead
        if end > start:
            end = start = left + way * (right - left)
        # The first of the pauses between two words ends one, the last starts the other.
        if silences and silences[0][0] - left < _REACH:
            end = silences[0][0]
        if silences and right - silences[-1][1] < _REACH:
            start = silences[-1][1]
        ends.append(end)
        starts.append(start)
    times = np.stack([starts[:-1], ends[1:]], 1).clip(0.0, seconds)
    times = np.maximum.accumulate(times.ravel()).reshape(-1, 2)
    return [(float(start), float(end)) for start, end in times]


def _silences(
    activity: np.ndarray, low: np.ndarray, high: np.ndarray
) -> list[list[tuple[float, float]]]:
    """The pauses between a character at low [N] and the next word's at high [N], for each N.

    A silence belongs to the gap between words that it overlaps most; one at the start of the audio
    is before all words, whatever the times of their characters, and one at the end after them. Of
    silences so short that they occur within words, too, only the longest of a gap counts.
    """
    found: list[list[tuple[float, float]]] = [[] for _ in low]
    short: list[list[tuple[float, float]]] = [[] for _ in low]
    for first, last in runs(~activity):
        a, b = first * HOP_SECONDS, last * HOP_SECONDS
        from_a, to_b = a if first > 0 else -np.inf, b if last < len(activity) else np.inf
        overlap = np.minimum(to_b, high) - np.maximum(from_a, low)
        place = int(overlap.argmax())
        if overlap[place] > 0:
            certain = b - a >= _PAUSE_SECONDS or np.isinf(to_b - from_a)
            (found if certain else short)[place].append((a, b))
    return [
        long or ([max(brief, key=lambda pair: pair[1] - pair[0])] if brief else [])
        for long, brief in zip(found, short, strict=True)
    ]
