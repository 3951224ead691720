"""Transcripts of chunks -> segments that fit subtitles, and the whole transcription."""

import textwrap
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from las.audio.reader import SAMPLE_RATE
from las.transcription.quality import compression_ratio
from las.transcription.transcript import ChunkTranscript, Transcript
from las.transcription.types import Segment, Transcription, Word
from las.transcription.word_timestamps import finite_log_probs, timed_words, word_spans
from las.transcription.writers.subtitles import LINE

_LINES = 2  # of subtitles in a segment, at most
_SECONDS = 10.0  # of a segment, at most
_PAUSE = 0.7  # seconds between words that end a segment
_PAUSE_WEIGHT = 2.0  # of a pause of a second, against parts of unequal length


def transcription(
    transcript: Transcript, rate: int = SAMPLE_RATE, language: str = "en"
) -> Transcription:
    """Words and segments of a file.

    No segment crosses the edge of a chunk. Times are rounded to milliseconds, never decrease and
    lie within the file.

    Args:
        transcript: of the file; where its chunks have no ``words``, they need alignments.
        rate: of the model, in Hz: that of the chunks' samples.
        language: what the model writes, by ISO 639-1.
    """
    segments = SegmentMaker(rate)
    whole = [s for chunk in transcript.chunks for s in segments.of(chunk, transcript.seconds)]
    return Transcription(
        " ".join(segment.text for segment in whole), whole, language, transcript.seconds
    )


class SegmentMaker:
    """The segments of a file, chunk by chunk; times as in :func:`transcription`.

    Args:
        rate: of the model, in Hz.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._count, self._clock = 0, 0.0

    def of(self, chunk: ChunkTranscript, seconds: float) -> list[Segment]:
        """The segments of the next chunk of a file that is at least so long."""
        words = chunk.words
        if words is None:
            words = timed_words(chunk.hypotheses[0], chunk.frame, chunk.start / self.rate)
        words, self._clock = _in_order(words, self._clock, seconds)
        found = _segments(chunk, words, round(chunk.start / self.rate * 100), self._count)
        self._count += len(found)
        return found


def _in_order(words: list[Word], clock: float, seconds: float) -> tuple[list[Word], float]:
    """Words whose times neither decrease nor leave the file, and the last of the times."""
    ordered = []
    for word in words:
        start = min(max(round(word.start, 3), clock), seconds)
        clock = min(max(round(word.end, 3), start), seconds)
        ordered.append(replace(word, start=start, end=clock))
    return ordered, clock


def _segments(chunk: ChunkTranscript, words: list[Word], seek: int, first_id: int) -> list[Segment]:
    hypothesis = chunk.hypotheses[0]
    spans = word_spans(hypothesis.text)
    if len(spans) != len(words):
        raise ValueError(f"{len(words)} words have times of the {len(spans)} in the text")
    log_probs = finite_log_probs(hypothesis)
    ids = hypothesis.ids.tolist()
    segments: list[Segment] = []
    for group in _groups(words):
        first, last = spans[group.start][0], spans[group.stop - 1][1]
        inside = words[group.start : group.stop]
        text = " ".join(word.word for word in inside)
        segments.append(
            Segment(
                id=first_id + len(segments),
                seek=seek,
                start=inside[0].start,
                end=inside[-1].end,
                text=text,
                tokens=ids[first:last],
                temperature=0.0,
                # With what ends it, a space or the end of sentence, as whisper's.
                avg_logprob=float(np.mean(log_probs[first : last + 1])),
                compression_ratio=compression_ratio(text),
                words=inside,
            )
        )
    return segments


def _groups(words: Sequence[Word]) -> list[range]:
    """The words of each segment: split at pauses, and again while a segment is too long."""
    groups: list[range] = []
    start = 0
    for index in range(1, len(words) + 1):
        if index == len(words) or words[index].start - words[index - 1].end >= _PAUSE:
            groups += _fitting(words, range(start, index))
            start = index
    return groups


def _fitting(words: Sequence[Word], group: range) -> list[range]:
    if len(group) == 1 or _fits(words[group.start : group.stop]):
        return [group]
    lengths = np.cumsum([len(words[i].word) + 1 for i in group])
    unequal = np.abs(2 * lengths[:-1] - lengths[-1]) / lengths[-1]
    pauses = np.array([words[i + 1].start - words[i].end for i in group[:-1]])
    cut = group.start + 1 + int(np.argmin(unequal - _PAUSE_WEIGHT * pauses))
    left, right = range(group.start, cut), range(cut, group.stop)
    return _fitting(words, left) + _fitting(words, right)


def _fits(words: Sequence[Word]) -> bool:
    text = " ".join(word.word for word in words)
    lines = textwrap.wrap(text, LINE, break_long_words=False, break_on_hyphens=False)
    return len(lines) <= _LINES and words[-1].end - words[0].start <= _SECONDS
