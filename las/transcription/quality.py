"""Signs that a chunk was decoded badly: loops, missing text, attention that goes back.

Times are in seconds of the chunk.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from las.audio.levels import HOP_SECONDS
from las.decoding.hypothesis import Hypothesis
from las.text.characters import EOS
from las.transcription.chunking import Chunk
from las.transcription.word_timestamps import word_spans

MAX_COMPRESSION = 2.4
"""Bytes of a text to bytes of its zlib form, above which it repeats itself (as in whisper)."""
MAX_REPEATS = 4
"""Times that a word or a sequence of words may follow itself."""
MAX_UNTRANSCRIBED_SECONDS = 0.75
"""Seconds of speech in a row without text.

Of 210 utterances of AN4's test set and the demo's none has more than 0.66; of chunks two to three
times as long as any training utterance, which the models misread, 19 in 20 have 0.9 or more.
"""
MAX_BACKWARD_SECONDS = 1.0
"""Seconds that attention may go back from the farthest word before.

The same utterances have 0.76 at most, and half of such chunks over 1.2 (AN4) or 0.7 (demo).
"""


class Quality(NamedTuple):
    """Measures of how well a chunk was decoded; times in seconds."""

    finished: bool  # False: the limit of steps ended it
    compression: float  # of the text by zlib
    repeats: int  # of the sequence of words that most often follows itself
    untranscribed_seconds: float  # longest stretch of speech without text
    backward_seconds: float  # the farthest that attention went back
    seconds: float  # of the chunk

    @property
    def looped(self) -> bool:
        """Whether the text repeats itself without end."""
        return not self.finished or self.compression > MAX_COMPRESSION or self.repeats > MAX_REPEATS

    @property
    def good(self) -> bool:
        """Whether no measure is beyond its limit."""
        return (
            not self.looped
            and self.untranscribed_seconds <= MAX_UNTRANSCRIBED_SECONDS
            and self.backward_seconds <= MAX_BACKWARD_SECONDS
        )

    @property
    def doubtful_seconds(self) -> float:
        """Seconds that were probably not decoded well."""
        if self.looped:
            return self.seconds
        measures = (
            (self.untranscribed_seconds, MAX_UNTRANSCRIBED_SECONDS),
            (self.backward_seconds, MAX_BACKWARD_SECONDS),
        )
        return min(self.seconds, sum(found for found, limit in measures if found > limit))


def attention_centres(hypothesis: Hypothesis, frame: float) -> np.ndarray:
    """The centre of attention of each id [U], in seconds of the chunk.

    It is the median of the attention, summed over heads: distant frames of little weight do not
    move it.

    Args:
        hypothesis: with its alignment.
        frame: seconds of one column of the alignment.
    """
    weight = hypothesis.alignment.float().sum(1).cumsum(-1).numpy()  # [U, T]
    if not weight.size:
        return np.zeros(len(hypothesis.ids), np.float32)
    middle = (weight < 0.5 * weight[:, -1:]).sum(-1)
    return ((middle + 0.5) * frame).astype(np.float32)


def assess(hypothesis: Hypothesis, centres: np.ndarray, chunk: Chunk, rate: int) -> Quality:
    """Measure how well a chunk was decoded.

    Args:
        hypothesis: the best of the chunk.
        centres: its :func:`attention_centres` [U]; without attention, of one frame, they are not
            used.
        chunk: the audio.
        rate: of the audio, in Hz.
    """
    untranscribed = backward = 0.0
    if hypothesis.alignment.shape[-1] > 1:
        untranscribed = _untranscribed(centres[hypothesis.ids.numpy() != EOS], chunk.speech)
        times = np.array([np.median(centres[a:b]) for a, b in word_spans(hypothesis.text)])
        if len(times):
            backward = float((np.maximum.accumulate(times) - times).max())
    return Quality(
        hypothesis.finished,
        compression_ratio(hypothesis.text),
        count_repeats(hypothesis.text.split()),
        untranscribed,
        backward,
        len(chunk.samples) / rate,
    )


def _untranscribed(times: np.ndarray, speech: np.ndarray) -> float:
    """The most seconds of speech between neighbouring times of characters, or before and after."""
    edges = np.sort(times) / HOP_SECONDS
    places = np.clip(edges.astype(int), 0, len(speech))
    counts = np.add.reduceat(np.append(speech, False).astype(int), np.append(0, places))
    # Between equal edges reduceat gives one element, not none.
    counts[:-1][np.diff(np.append(0, places)) == 0] = 0
    return float(counts.max()) * HOP_SECONDS


def compression_ratio(text: str) -> float:
    """Bytes of a text over those of its zlib form, as whisper counts them; 0 without text."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def count_repeats(words: Sequence[str]) -> int:
    """How often the sequence of words that most often follows itself stands in a row."""
    most = min(1, len(words))
    for size in range(1, len(words) // 2 + 1):
        run = 0
        for i in range(size, len(words)):
            run = run + 1 if words[i] == words[i - size] else 0
            most = max(most, 1 + run // size)
    return most
