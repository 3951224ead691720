"""Hypotheses -> words with times and probabilities, from the alignment alone.

A character's row of attention says where it was heard, but not every row does: some peak on the
first frames or nowhere, because the speller knew what to write. So the rows are the emissions of a
hidden Markov model whose states are frames and that only moves ahead, by about as much as a
character lasts or by any amount in a pause. Its posterior (forward-backward, Rabiner 1989) takes
sharp rows at their word and places the others between them. Measured against the rows' peaks and
means, and dynamic time warping as in openai/whisper: docs/decisions.md.
"""

import itertools
import re

import numpy as np

from las.hypothesis import Hypothesis
from las.results import Word

_FLOOR = 0.2  # share of a row that is believed to be spread over all frames
_PAUSE, _PAUSE_IN_WORD = 0.3, 0.02  # share of the moves that may be of any length
_SPREAD = 0.7  # of the logarithm of the other moves
_SHORTEST, _LONGEST = 0.04, 0.1  # seconds that a character lasts on average
# Attention peaks within a sound, not at its edges; so much of it is before and after, in seconds.
_LEAD = 0.08
_TAIL = 0.1
_SHARE = 0.2  # where two words touch: of the way from the last character to the next word's first
_LEAST_LOG_PROB = -100.0  # keeps means finite


def timed_words(hypothesis: Hypothesis, frame: float, offset: float) -> list[Word]:
    """The words of a hypothesis, when they were said and how sure the model is.

    Args:
        hypothesis: what was written, with its alignment over the memory.
        frame: seconds of one column of the alignment.
        offset: seconds from the start of the file to that of the alignment.

    Returns:
        A word for each stretch of characters without a space. Times never go back, and lie
        between ``offset`` and the end of the alignment; only where the alignment has too few
        frames may a word start where it ends. The probability is the geometric mean over the
        word's characters and what ends it, a space or the end of sentence, if that was written:
        that nothing more follows is a part of having heard a word.

    Raises:
        ValueError: there is text but its alignment has no frames.
    """
    attention = hypothesis.alignment.double().mean(1).numpy()[: len(hypothesis.text)]
    spans = word_spans(hypothesis.text)
    if not spans:
        return []
    if attention.shape[1] == 0:
        raise ValueError("a hypothesis without the frames of its alignment has no times")
    gaps = np.array([" " in pair for pair in itertools.pairwise(" " + hypothesis.text)])
    centres = positions(attention, frame, gaps)
    times = _edges(centres, spans, attention.shape[1], frame)
    return [
        Word(hypothesis.text[first:last], offset + start, offset + end, probability)
        for (first, last), (start, end), probability in zip(
            spans, times, word_probabilities(hypothesis), strict=True
        )
    ]


def word_probabilities(hypothesis: Hypothesis) -> list[float]:
    """How sure the speller is of each word; see :func:`timed_words`."""
    log_probs = finite_log_probs(hypothesis)
    return [
        float(np.exp(np.minimum(log_probs[first : last + 1].mean(), 0.0)))
        for first, last in word_spans(hypothesis.text)
    ]


def word_spans(text: str) -> list[tuple[int, int]]:
    """First character of each word, and the one after its last."""
    return [match.span() for match in re.finditer("[^ ]+", text)]


def finite_log_probs(hypothesis: Hypothesis) -> np.ndarray:
    """Log-probabilities [U] of what was written, no lower than -100, so that means are finite."""
    found = np.nan_to_num(hypothesis.log_probs.double().numpy(), nan=_LEAST_LOG_PROB)
    return np.maximum(found, _LEAST_LOG_PROB)


def positions(attention: np.ndarray, frame: float, gaps: np.ndarray) -> np.ndarray:
    """Where each character was heard, in frames: never before the one before it.

    Args:
        attention: [U, T] of each character over the memory; rows need not be distributions.
        frame: seconds of one frame.
        gaps: [U] whether a pause may come before a character.

    Returns:
        [U] medians of the posterior, between 0 and T.
    """
    U, T = attention.shape
    if T == 1:  # no alignment at all (attention "none"): evenly
        return (np.arange(U) + 0.5) / U
    rows = np.nan_to_num(attention, nan=0.0, posinf=0.0, neginf=0.0).clip(min=0.0)
    rows = rows / np.maximum(rows.sum(1, keepdims=True), 1e-9)
    emissions = (1 - _FLOOR) * rows + _FLOOR / T
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
    cumulated = np.cumsum(forward * backward, 1)
    cumulated = np.pad(cumulated / cumulated[:, -1:], ((0, 0), (1, 0)))
    edges = np.arange(T + 1)
    medians = [float(np.interp(0.5, row, edges)) for row in cumulated]
    return np.maximum.accumulate(medians)  # they never go back but by rounding


def _edges(
    centres: np.ndarray, spans: list[tuple[int, int]], frames: int, frame: float
) -> list[tuple[float, float]]:
    """Starts and ends of words in seconds, from the frames [U] of their characters."""
    seconds = centres * frame
    times = [[seconds[a] - _LEAD, seconds[b - 1] + _TAIL] for a, b in spans]
    for (_, last), (first, _), left, right in zip(spans, spans[1:], times, times[1:], strict=False):
        if left[1] > right[0]:
            ends = seconds[last - 1]
            left[1] = right[0] = ends + _SHARE * (seconds[first] - ends)
    return [
        (float(np.clip(start, 0.0, frames * frame)), float(np.clip(end, 0.0, frames * frame)))
        for start, end in times
    ]
