"""Reads the recordings of manifests and shards through `las.audio.reader`, as a backend of lhotse.

So what `las prepare` accepted is read in the same way in training.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import Recording
from lhotse.audio.backend import LibsndfileBackend, set_current_audio_backend
from lhotse.cut import Cut

from las.audio import downmix, reader
from las.errors import LASError, shown

_SAME_SECONDS = 0.025  # tolerance of lhotse between a file and its manifest
_MEMORY = Path("utterance")


class LASBackend(LibsndfileBackend):
    """Reads files and utterances of shards with `las.audio.reader`; all else as lhotse does."""

    def read_audio(
        self,
        path_or_fd: Any,
        offset: float = 0.0,
        duration: float | None = None,
        force_opus_sampling_rate: int | None = None,
    ) -> tuple[np.ndarray, int]:
        """Samples [channels, S] and their sample rate; see lhotse.

        Raises:
            AudioError: the file gives no usable audio.
        """
        if isinstance(path_or_fd, io.BytesIO):
            with reader.copied(path_or_fd, _MEMORY) as copy:
                samples, rate = reader.read(copy, offset, duration)
            return samples.T, rate
        if not isinstance(path_or_fd, str | Path) or ".tar/" in str(path_or_fd):
            return super().read_audio(path_or_fd, offset, duration, force_opus_sampling_rate)
        samples, rate = reader.read(path_or_fd, offset, duration)
        return samples.T, rate


set_current_audio_backend(LASBackend())


def waveform(cut: Cut, sample_rate: int) -> np.ndarray:
    """The samples of a cut, its channels averaged: float32 [S].

    Args:
        cut: of recordings in files, or of a shard.
        sample_rate: Hz of the result.

    Raises:
        LASError: a file was deleted, changed or damaged; the message names it.
    """
    try:
        if cut.sampling_rate != sample_rate:
            cut = cut.resample(sample_rate)
        samples = cut.load_audio()
    except Exception as problem:  # various types, for a file that has changed
        raise _reason(cut, problem) from None
    if len(samples) == 1:
        return samples.mean(0, dtype="float32")
    return np.concatenate(list(downmix.mono([samples.T], sample_rate)))


def _reason(cut: Cut, problem: BaseException) -> LASError:
    """The error that names the file that caused it."""
    again = "prepare the data again"
    recordings = list(of_cut(cut))
    if any(recording.sources[0].type == "memory" for recording in recordings):
        return _reason_in_shard(cut, problem, again)
    cause: BaseException | None = problem
    while cause is not None:  # lhotse wraps the original error
        if isinstance(cause, reader.AudioError) and cause.path is not None:
            return reader.error(cause.path, cause.what, again)
        cause = cause.__context__
    files = [found for found in recordings if found.sources[0].type == "file"]
    for recording in files:
        path = Path(str(recording.sources[0].source))
        try:
            found = reader.info(path)
        except reader.AudioError as error:
            return reader.error(path, error.what, again)
        seconds, channels = _before(recording), recording.num_channels
        if abs(found.duration - seconds) > _SAME_SECONDS or found.channels != channels:
            what = f"has changed: {found.duration:.3f} s and {found.channels} channels, and the "
            what += f"manifest says {seconds:.3f} s and {channels}"
            return reader.error(path, what, again)
    name = shown(str(files[0].sources[0].source)) if files else f"utterance {cut.id}"
    line = " ".join(str(problem).split())[:200]
    return LASError(f"{name}: cannot read the audio ({line}); {again}")


def _reason_in_shard(cut: Cut, problem: BaseException, again: str) -> LASError:
    """The error that names the shard, and the utterance."""
    for part in [track.cut for track in getattr(cut, "tracks", [])] or [cut]:
        recording = getattr(part, "recording", None)
        if recording is None:  # the silence between joined utterances
            continue
        where = f"{shown(part.shard)}: the audio of utterance {part.id}"
        source = recording.sources[0]
        try:
            with reader.copied(io.BytesIO(source.source), _MEMORY) as path:
                found = reader.info(path)
                samples, _ = reader.read(path)
        except reader.AudioError as error:
            return LASError(f"{where} {error.what}; {again}")
        rate, seconds = _rate_before(recording), _before(recording)
        if found.sample_rate != rate or abs(len(samples) / rate - seconds) > _SAME_SECONDS:
            return LASError(
                f"{where} has changed: {len(samples) / found.sample_rate:.3f} s at "
                f"{found.sample_rate} Hz, and the shard says {seconds:.3f} s at {rate} Hz; {again}"
            )
    line = " ".join(str(problem).split())[:200]
    return LASError(f"{shown(cut.id)}: cannot read the audio of the shard ({line}); {again}")


def _before(recording: Recording) -> float:
    """Seconds of a recording before its speed was changed."""
    seconds = recording.duration
    for change in recording.transforms or []:
        found = change if isinstance(change, dict) else change.to_dict()
        seconds *= found.get("kwargs", {}).get("factor", 1.0)
    return seconds


def _rate_before(recording: Recording) -> int:
    """The sample rate of a recording before it was changed, in Hz."""
    for change in recording.transforms or []:
        found = change if isinstance(change, dict) else change.to_dict()
        if "source_sampling_rate" in found.get("kwargs", {}):
            return int(found["kwargs"]["source_sampling_rate"])
    return int(recording.sampling_rate)


def of_cut(cut: Cut) -> Iterator[Recording]:
    """The original recordings of a cut."""
    for part in [track.cut for track in getattr(cut, "tracks", [])] or [cut]:
        recording = getattr(part, "recording", None)
        if recording is not None:
            yield recording
