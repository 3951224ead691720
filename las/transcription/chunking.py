"""Audio blocks -> chunks to decode: cut in silences, overlapping where there is none.

Only the samples of one chunk are held at a time, so that memory does not grow with the audio. The
cuts depend on the samples alone, not on how they are divided into blocks.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from las.audio.levels import HOP_SECONDS, SILENT_DBFS, levels, quietest, runs
from las.config import ModelConfig, Settings

Seconds = Annotated[float, Field(gt=0)]

_NOISE_PERCENTILE = 10  # of the levels of a chunk: the noise between words
_NOISE_DB = 6.0  # speech is this much above the noise
_LOUD_DB = 12.0  # what is this close to the loudest level is speech, however loud the noise
_MIN_LEVELS = 100  # of 10 ms; fewer do not tell speech from noise
_STEADY_DB = 4.0  # noise and hum vary less in seconds; speech varies by 20 dB, in noise by 8
_MIN_SPLIT_SILENCE = 0.1  # seconds of a silence in which a chunk is split in half


class ChunkingConfig(Settings):
    """Chunks of long audio. Lengths are in seconds, levels in dB.

    Audio of at most ``max_seconds`` is one chunk, whatever it holds.
    """

    max_seconds: Seconds = 20.0  # no chunk is longer; about the longest training utterance
    target_seconds: Seconds = 6.0  # a chunk of this length ends in the next silence
    min_seconds: Seconds = 1.5  # a silence before this ends no chunk; nor are halves any shorter
    silence_seconds: Seconds = 0.25  # shorter silences are not cut
    silence_db: Seconds = 35.0  # silence is this much below the loudest level of a chunk
    margin_seconds: Seconds = 0.2  # of silence to keep around speech, at most
    overlap_seconds: Seconds = 2.0  # of chunks between which there is no silence
    silent_dbfs: float = SILENT_DBFS  # audio that stays below is silence, and is not decoded

    @model_validator(mode="after")
    def _check(self) -> "ChunkingConfig":
        if self.overlap_seconds > self.max_seconds / 2:
            raise ValueError(
                f"overlap_seconds {self.overlap_seconds:g} is more than half of max_seconds "
                f"{self.max_seconds:g}"
            )
        if not self.min_seconds <= self.target_seconds <= self.max_seconds:
            raise ValueError("min_seconds, target_seconds and max_seconds are not in this order")
        return self

    @classmethod
    def for_model(cls, model: ModelConfig) -> "ChunkingConfig":
        """Chunks as long as the model's training utterances, if its folder tells their length."""
        longest = model.longest_seconds
        if longest is None:
            return cls()
        defaults = cls()
        return cls(
            max_seconds=longest,
            target_seconds=min(defaults.target_seconds, 0.4 * longest),
            min_seconds=min(defaults.min_seconds, 0.4 * longest),
            overlap_seconds=min(defaults.overlap_seconds, 0.3 * longest),
        )


@dataclass(frozen=True)
class Chunk:
    """A stretch of audio to decode at once; positions are in samples of the file."""

    start: int
    samples: np.ndarray  # [S]
    speech: np.ndarray  # [S / hop] whether there is speech, every 10 ms
    overlap: int = 0  # samples at its start that the previous chunk has, too
    overlapped: bool = False  # whether the next chunk may begin before its end

    @property
    def end(self) -> int:
        """The position after its last sample."""
        return self.start + len(self.samples)


def threshold(level: np.ndarray, config: ChunkingConfig, steady: bool = True) -> float:
    """The level in dB above which there is speech, from the levels [T] of a stretch of audio.

    Silence is ``silence_db`` below the loudest level, or close to the noise: the level that a
    tenth of the time stays below.

    Args:
        level: dB of full scale, every 10 ms, at least one.
        config: thresholds.
        steady: whether audio of over a second that hardly varies counts as noise, not speech.
    """
    loudest = float(level.max())
    if loudest < config.silent_dbfs:
        return config.silent_dbfs
    if steady and len(level) > _MIN_LEVELS:
        inner = level[3:-3]  # without the edges, where half of a frame is padding
        if inner.max() - np.percentile(inner, _NOISE_PERCENTILE) < _STEADY_DB:
            return loudest + _STEADY_DB
    noise = float(np.percentile(level, _NOISE_PERCENTILE))
    return min(max(loudest - config.silence_db, noise + _NOISE_DB), loudest - _LOUD_DB)


def split(blocks: Iterable[np.ndarray], rate: int, config: ChunkingConfig) -> Iterator[Chunk]:
    """Cut audio into chunks; what lies between them is silent.

    A chunk that has reached ``target_seconds`` ends in the next silence. If none comes before
    ``max_seconds``, it ends in its longest silence since ``min_seconds``. If it has none, it ends
    where it is quietest in its last quarter, and the next starts ``overlap_seconds`` before.

    Args:
        blocks: mono samples, in order.
        rate: of the samples, in Hz.
        config: lengths and thresholds.
    """
    yield from _Splitter(blocks, rate, config).chunks()


class _Splitter:
    """The samples that are not in a chunk yet."""

    def __init__(self, blocks: Iterable[np.ndarray], rate: int, config: ChunkingConfig) -> None:
        self.source = iter(blocks)
        self.rate, self.config = rate, config
        self.hop = round(HOP_SECONDS * rate)
        self.limit = round(config.max_seconds * rate)
        self.buffer: list[np.ndarray] = []
        self.buffered = 0  # samples in the buffer
        self.position = 0  # of their first in the file
        self.exhausted = False  # all blocks are read

    def chunks(self) -> Iterator[Chunk]:
        view = self._view()
        if self._is_last(view):
            if not len(view):
                return
            level = levels(view, self.rate)
            speech = level > threshold(level, self.config, steady=False)
            if speech.any():
                yield Chunk(0, view, speech)
            return
        overlap = 0
        last_limit = self.config.silent_dbfs
        while len(view := self._view()) > overlap:
            level = levels(view, self.rate)
            limit = threshold(level, self.config)
            # Too short to estimate the noise floor: the threshold of the audio before it counts.
            last_limit = limit if len(level) > _MIN_LEVELS else max(limit, last_limit)
            speech = level > last_limit
            margin = round(self.config.margin_seconds * self.rate)
            frames = np.flatnonzero(speech).tolist()
            if not frames or frames[-1] * self.hop < overlap:
                # Speech may start at the very end: its margin stays.
                silent = len(view) if self._is_last(view) else max(self.hop, len(view) - margin)
                self._drop(max(silent, overlap))
                overlap = 0
                continue
            if not overlap and frames[0] * self.hop - margin >= self.hop:
                self._drop(frames[0] * self.hop - margin)
                continue
            if self._is_last(view):
                end = min(len(view), (frames[-1] + 1) * self.hop + margin)
                yield self._chunk(view[:end], speech, overlap, False)
                return
            end, next_start = self._cut(level, speech, overlap)
            yield self._chunk(view[:end], speech, overlap, next_start < end)
            overlap = max(0, end - next_start)
            self._drop(next_start)

    def _cut(self, level: np.ndarray, speech: np.ndarray, overlap: int) -> tuple[int, int]:
        """Where the chunk ends, and where the next may start."""
        margin = round(self.config.margin_seconds * self.rate)
        earliest = max(self.config.min_seconds * self.rate, overlap) / self.hop
        shortest = self.config.silence_seconds / HOP_SECONDS
        silences = [(a, b) for a, b in runs(~speech) if b - a >= shortest and a >= earliest]
        late = [run for run in silences if run[0] * HOP_SECONDS >= self.config.target_seconds]
        if silences:
            start, end = late[0] if late else max(silences, key=lambda run: run[1] - run[0])
            first, last = start * self.hop, min(self.limit, end * self.hop)
            middle = (first + last) // 2
            return min(first + margin, middle), max(last - margin, middle)
        end = quietest(level, 0.75 * self.config.max_seconds, self.config.max_seconds - 0.05)
        wanted = end * HOP_SECONDS - self.config.overlap_seconds
        around = 0.25 * self.config.overlap_seconds
        next_start = quietest(level, wanted - around, wanted + around)
        return end * self.hop, next_start * self.hop

    def _chunk(
        self, samples: np.ndarray, speech: np.ndarray, overlap: int, overlapped: bool
    ) -> Chunk:
        # A copy, so that the rest of the view can be freed.
        inside = speech[: len(samples) // self.hop + 1]
        return Chunk(self.position, samples.copy(), inside, overlap, overlapped)

    def _view(self) -> np.ndarray:
        """The next samples, as many as a chunk may have (one more is read, to know the end)."""
        while not self.exhausted and self.buffered <= self.limit:
            block = next(self.source, None)
            if block is None:
                self.exhausted = True
            else:
                self.buffer.append(block)
                self.buffered += len(block)
        whole = np.concatenate(self.buffer) if self.buffer else np.empty(0, np.float32)
        self.buffer = [whole]
        return whole[: self.limit]

    def _is_last(self, view: np.ndarray) -> bool:
        return self.exhausted and self.buffered == len(view)

    def _drop(self, count: int) -> None:
        count = min(count, self.buffered)
        (whole,) = self.buffer
        self.buffer = [whole[count:].copy()]
        self.position += count
        self.buffered -= count


def halves(chunk: Chunk, rate: int, config: ChunkingConfig) -> list[Chunk]:
    """Split a chunk near its middle: in the longest silence, or else with an overlap.

    Args:
        chunk: what was not decoded well.
        rate: in Hz.
        config: lengths.

    Returns:
        two chunks, or none if they would be too short.
    """
    size = len(chunk.samples)
    seconds = size / rate
    hop = round(HOP_SECONDS * rate)
    shortest = max(config.min_seconds, seconds / 4)
    # The overlap with the previous chunk stays within the first half.
    low, high = max(shortest, chunk.overlap / rate), seconds - shortest
    if low > high:
        return []
    silences = [
        (a, b)
        for a, b in runs(~chunk.speech)
        if low <= (a + b) / 2 * HOP_SECONDS <= high and b - a >= _MIN_SPLIT_SILENCE / HOP_SECONDS
    ]
    if silences:
        a, b = max(silences, key=lambda run: run[1] - run[0])
        end = start = (a + b) * hop // 2
    else:
        level = levels(chunk.samples, rate)
        place = quietest(level, low, max(high, low + HOP_SECONDS)) * hop
        around = round(min(config.overlap_seconds, seconds / 4) * rate) // 2
        start, end = max(place - around, hop), min(place + around, size - hop)
    first = chunk.samples[:end], chunk.speech[: end // hop]
    second = chunk.samples[start:], chunk.speech[start // hop :]
    return [
        Chunk(chunk.start, *first, chunk.overlap, start < end),
        Chunk(chunk.start + start, *second, end - start, chunk.overlapped),
    ]
