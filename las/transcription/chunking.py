"""Blocks of samples -> windows to decode: cut in silences, overlapping where there is none.

Works on the samples of one window at a time, so that memory does not grow with the audio; where
the cuts fall follows from the samples alone, not from how they come in blocks.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from las.audio.levels import HOP_SECONDS, SILENT_DBFS, levels, quietest, runs
from las.config import ModelConfig, Settings

Seconds = Annotated[float, Field(gt=0)]

_FLOOR_PERCENTILE = 10  # of the levels of a window: what is there when nobody speaks
_FLOOR_DB = 6.0  # speech is this much above that
_RANGE_DB = 12.0  # what is this close to the loudest is speech, however loud the noise
_SHORT = 100  # levels, of 1 s: too few to tell speech from noise
_STEADY_DB = 4.0  # noise and hum vary less in seconds; speech varies by 20 dB, in noise by 8


class WindowConfig(Settings):
    """Windows of long audio. Lengths are in seconds, levels in dB.

    Audio of at most ``max_seconds`` is one window, whatever it holds.
    """

    max_seconds: Seconds = 20.0  # no window is longer; about the longest of the training
    target_seconds: Seconds = 6.0  # a window as long as this ends in the next silence
    min_seconds: Seconds = 1.5  # none ends in a silence before, or is split again below twice this
    silence_seconds: Seconds = 0.25  # shorter silences are not cut
    silence_db: Seconds = 35.0  # silence is this much below the loudest of a window
    margin_seconds: Seconds = 0.2  # of a silence that is left around speech, at most
    overlap_seconds: Seconds = 2.0  # of windows between which there is no silence
    silent_dbfs: float = SILENT_DBFS  # audio that stays below is silence, and is not decoded

    @model_validator(mode="after")
    def _check(self) -> "WindowConfig":
        if self.overlap_seconds > self.max_seconds / 2:
            raise ValueError(
                f"overlap_seconds {self.overlap_seconds:g} is more than half of max_seconds "
                f"{self.max_seconds:g}"
            )
        if not self.min_seconds <= self.target_seconds <= self.max_seconds:
            raise ValueError("min_seconds, target_seconds and max_seconds are not in this order")
        return self

    @classmethod
    def of(cls, model: ModelConfig) -> "WindowConfig":
        """Windows as long as what a model was trained on, as far as its folder tells."""
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
class Window:
    """A stretch of audio to decode at once; positions are in samples of the file."""

    start: int
    samples: np.ndarray  # [S]
    speech: np.ndarray  # [S / hop] whether there is speech, every 10 ms
    overlap: int = 0  # samples at its start that the window before has too

    @property
    def end(self) -> int:
        """Behind its last sample."""
        return self.start + len(self.samples)


def threshold(level: np.ndarray, config: WindowConfig, steady: bool = True) -> float:
    """The level in dB that only speech is above, by the levels [T] of a stretch of audio.

    Silence is what is ``silence_db`` below the loudest, or hardly above the noise, which is the
    level that a tenth of the time stays below.

    Args:
        level: dB of full scale, every 10 ms, at least one.
        config: thresholds.
        steady: whether audio of over a second that hardly varies counts as noise, not speech.
    """
    loudest = float(level.max())
    if loudest < config.silent_dbfs:
        return config.silent_dbfs
    if steady and len(level) > _SHORT:
        inner = level[3:-3]  # without the edges, where half of a frame is not audio
        if inner.max() - np.percentile(inner, _FLOOR_PERCENTILE) < _STEADY_DB:
            return loudest + _STEADY_DB
    floor = float(np.percentile(level, _FLOOR_PERCENTILE))
    return min(max(loudest - config.silence_db, floor + _FLOOR_DB), loudest - _RANGE_DB)


def split(blocks: Iterable[np.ndarray], rate: int, config: WindowConfig) -> Iterator[Window]:
    """Cut audio into windows; what lies between them is silent.

    A window that has reached ``target_seconds`` ends in the next silence. If none comes before
    ``max_seconds``, it ends in its longest silence since ``min_seconds``. If it has none, it ends
    where it is quietest in its last quarter, and the next starts ``overlap_seconds`` before.

    Args:
        blocks: mono samples, in order.
        rate: of the samples, in Hz.
        config: lengths and thresholds.
    """
    yield from _Splitter(blocks, rate, config).windows()


class _Splitter:
    """The samples that are still to be put into windows."""

    def __init__(self, blocks: Iterable[np.ndarray], rate: int, config: WindowConfig) -> None:
        self.source = iter(blocks)
        self.rate, self.config = rate, config
        self.hop = round(HOP_SECONDS * rate)
        self.limit = round(config.max_seconds * rate)
        self.parts: list[np.ndarray] = []
        self.held = 0  # samples in the parts
        self.origin = 0  # position of their first
        self.ended = False

    def windows(self) -> Iterator[Window]:
        view = self._view()
        if self._last(view):
            if not len(view):
                return
            level = levels(view, self.rate)
            speech = level > threshold(level, self.config, steady=False)
            if speech.any():
                yield Window(0, view, speech)
            return
        overlap = 0
        before = self.config.silent_dbfs
        while len(view := self._view()) > overlap:
            level = levels(view, self.rate)
            limit = threshold(level, self.config)
            # What is too short to tell goes by what was before it.
            before = limit if len(level) > _SHORT else max(limit, before)
            speech = level > before
            margin = round(self.config.margin_seconds * self.rate)
            heard = np.flatnonzero(speech).tolist()
            if not heard or heard[-1] * self.hop < overlap:
                # Speech may start at the very end: its margin stays.
                gone = len(view) if self._last(view) else max(self.hop, len(view) - margin)
                self._drop(max(gone, overlap))
                overlap = 0
                continue
            if not overlap and heard[0] * self.hop - margin >= self.hop:
                self._drop(heard[0] * self.hop - margin)
                continue
            if self._last(view):
                end = min(len(view), (heard[-1] + 1) * self.hop + margin)
                yield self._window(view[:end], speech, overlap)
                return
            end, following = self._cut(level, speech, overlap)
            yield self._window(view[:end], speech, overlap)
            overlap = max(0, end - following)
            self._drop(following)

    def _cut(self, level: np.ndarray, speech: np.ndarray, overlap: int) -> tuple[int, int]:
        """Where the window ends, and where the next may start."""
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
        following = quietest(level, wanted - around, wanted + around)
        return end * self.hop, following * self.hop

    def _window(self, samples: np.ndarray, speech: np.ndarray, overlap: int) -> Window:
        # A copy, so that the rest of the view can go.
        return Window(self.origin, samples.copy(), speech[: len(samples) // self.hop + 1], overlap)

    def _view(self) -> np.ndarray:
        """The next samples, as many as a window may have (and one that is not looked at)."""
        while not self.ended and self.held <= self.limit:
            block = next(self.source, None)
            if block is None:
                self.ended = True
            else:
                self.parts.append(block)
                self.held += len(block)
        whole = np.concatenate(self.parts) if self.parts else np.empty(0, np.float32)
        self.parts = [whole]
        return whole[: self.limit]

    def _last(self, view: np.ndarray) -> bool:
        return self.ended and self.held == len(view)

    def _drop(self, count: int) -> None:
        count = min(count, self.held)
        (whole,) = self.parts
        self.parts = [whole[count:].copy()]
        self.origin += count
        self.held -= count
