"""Reads audio files as mono float32 at 16 kHz, whole or in blocks.

Formats are decoded by `las.audio.sndfile` and `las.audio.ffmpeg`; damage is detected by
`las.audio.containers`.
"""

import math
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from las.audio import downmix, ffmpeg, sndfile
from las.audio import stream as streaming
from las.audio.arriving import copy, wav
from las.audio.stream import (
    MIN_SECONDS,
    UNKNOWN_LENGTH,
    AudioError,
    NotSupportedError,
    Stream,
    error,
)
from las.errors import shown

__all__ = [
    "MIN_SECONDS",
    "SAMPLE_RATE",
    "AudioError",
    "AudioInfo",
    "blocks",
    "error",
    "info",
    "load",
    "read",
    "seconds",
]

SAMPLE_RATE = 16000
"""Hz; what the models are trained on."""

_FIRST_SAMPLES = 1 << 22  # reserved before samples arrive, whatever the header says


@dataclass(frozen=True)
class AudioInfo:
    """Properties of an audio file.

    Attributes:
        num_samples: Samples per channel, at the file's own rate.
        sample_rate: Hz.
        channels: Number of channels.
        duration: Seconds.
    """

    num_samples: int
    sample_rate: int
    channels: int
    duration: float


def load(path: str | Path, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Read a file, average its channels and resample.

    The file is read in blocks, so that only the mono waveform grows with its length.

    Args:
        path: An audio file that libsndfile reads, or that ffmpeg reads where it is installed.
        sample_rate: Hz of the result.

    Returns:
        The waveform, float32 [S]; full scale is 1.

    Raises:
        AudioError: The file is missing, a directory, unreadable, empty, not audio, damaged,
            truncated, shorter than `MIN_SECONDS`, or has samples that are not numbers.
    """
    path = _checked(path)
    with open_stream(path) as stream:
        expected = UNKNOWN_LENGTH
        if stream.frames < UNKNOWN_LENGTH:
            expected = math.ceil(stream.frames * sample_rate / stream.rate)
        return _gather(_mono(path, stream, sample_rate), expected)


def read(
    path: str | Path, start: float = 0.0, seconds: float | None = None
) -> tuple[np.ndarray, int]:
    """Read a file, or a part of it, with its own rate and channels.

    Args:
        path: See :func:`load`.
        start: Seconds to skip.
        seconds: Maximum length; None reads to the end. What follows is not checked.

    Returns:
        The samples, float32 [S, channels], and their rate in Hz.

    Raises:
        AudioError: See :func:`load`.
    """
    path = _checked(path)
    with open_stream(path) as stream:
        first = math.floor(start * stream.rate + 0.5)
        end = UNKNOWN_LENGTH
        if seconds is not None:
            end = first + math.floor(seconds * stream.rate + 0.5)
        length, taken = 0, [np.empty((0, stream.channels), np.float32)]
        for block in streaming.checked(path, stream):
            taken.append(block[max(0, first - length) : end - length])
            length += len(block)
            if length >= end:
                break
        return np.concatenate(taken), stream.rate


def blocks(
    source: str | Path | BinaryIO,
    sample_rate: int = SAMPLE_RATE,
    notes: list[str] | None = None,
    waiting: Callable[[], None] | None = None,
) -> Iterator[np.ndarray]:
    """The samples of :func:`load` in blocks of any size, in constant memory.

    Args:
        source: See :func:`load`; or a binary stream such as standard input. A stream is copied to
            a temporary file, as damage is detected in most formats only by seeking; WAV is read
            while it arrives.
        sample_rate: Hz of the result.
        notes: list to which notes for the user are added, at the end.
        waiting: called whenever samples of a stream have to be waited for.

    Yields:
        Float32 [n], at least one sample each.

    Raises:
        AudioError: See :func:`load`. Damage may be detected only after some blocks.
    """
    if isinstance(source, str | Path):
        arriving = copy.of(source)
        live = wav.opened(Path(source), arriving, waiting) if arriving is not None else None
        if live is not None:
            yield from _mono(Path(source), live, sample_rate)
            return
        path = _checked(source)
        with open_stream(path) as stream:
            yield from _mono(path, stream, sample_rate)
            if notes is not None:
                notes += stream.notes
        return
    name = shown_name(source)
    with copied(source, name) as path:
        try:
            yield from blocks(path, sample_rate, notes, waiting)
        except AudioError as problem:
            raise AudioError(str(problem).replace(str(path), shown(name), 1)) from None


@contextmanager
def copied(source: BinaryIO, name: Path) -> Iterator[Path]:
    """Copy a stream to an unnamed temporary file, which disappears with this process.

    Args:
        source: the stream.
        name: of the stream, for messages.

    Yields:
        the path to open with the functions of this module, which wait for what they need. If the
        stream cannot be read, or the disk is full, they raise an AudioError.
    """
    with (
        tempfile.TemporaryFile(prefix="las-") as file,
        copy.arriving(source, file, name) as path,
    ):
        yield path


@contextmanager
def open_stream(path: Path) -> Iterator[Stream]:
    """Open a file with libsndfile, else with ffmpeg.

    Raises:
        AudioError: neither reads it, or it is damaged (on opening, or while blocks are read).
    """
    try:
        with sndfile.open_stream(path) as stream:
            yield stream
        return
    except NotSupportedError as problem:
        unknown = problem
    except OSError as problem:  # a failing disk or server
        what = f"cannot be read ({problem.strerror or problem})"
        raise error(path, what, "copy it to another disk, or fetch it again") from None
    program = ffmpeg.program()
    if program is None:
        what = f"not an audio file, or libsndfile does not know the codec ({unknown})"
        cure = "install ffmpeg, or convert it to wav or flac"
        if unknown.damaged:
            what = f"cannot be decoded by libsndfile ({unknown})"
            cure = "fetch it again, or install ffmpeg, which may know its codec"
        raise error(path, what, cure)
    with ffmpeg.open_stream(path, program) as stream:
        yield stream


def shown_name(source: str | Path | BinaryIO) -> Path:
    """The path of a source; the name of a stream, if it has one."""
    if isinstance(source, str | Path):
        return Path(source)
    name = getattr(source, "name", None)
    return Path(name if isinstance(name, str) and name else "<stream>")


def info(path: str | Path) -> AudioInfo:
    """Read the length, rate and channels of a file from its header.

    A file whose header has no length (FLAC written to a pipe, MP3 without a Xing header, formats of
    ffmpeg) is decoded to count samples. Damage after the header is detected by `load`, not here.

    Args:
        path: See :func:`load`.

    Raises:
        AudioError: The file is missing, a directory, unreadable, empty, not audio, or shorter than
            its header says.
    """
    path = _checked(path)
    with open_stream(path) as stream:
        frames = _frames(stream)
    return AudioInfo(frames, stream.rate, stream.channels, frames / stream.rate)


def seconds(path: str | Path, most: float = math.inf) -> float:
    """The duration of a file as :func:`info` finds it, but decoding little more than ``most``.

    Args:
        path: See :func:`load`.
        most: Seconds from which on it does not matter how long the file is.

    Returns:
        Seconds; of a longer file any number above ``most``.

    Raises:
        AudioError: See :func:`info`.
    """
    path = _checked(path)
    with open_stream(path) as stream:
        return _frames(stream, most * stream.rate) / stream.rate


def _frames(stream: Stream, most: float = math.inf) -> int:
    """Frames of a stream by its header, else counted until there are more than ``most``."""
    if stream.frames < UNKNOWN_LENGTH:
        return stream.frames
    frames = 0
    for block in stream.blocks:
        frames += len(block)
        if frames > most:
            break
    return frames


def resampled(source: Iterable[np.ndarray], rate: int, target: int) -> Iterator[np.ndarray]:
    """Resample blocks of mono samples; the result does not depend on the blocks.

    The samples are those of ``librosa.resample`` of the whole recording (soxr in high quality, the
    length rounded up).

    Args:
        source: blocks at ``rate`` Hz.
        rate: of the source.
        target: Hz of the result.
    """
    if rate == target:
        yield from source
        return
    import soxr  # imported here, as most corpora need no resampling

    stream = soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ")
    read = written = 0
    for block in source:
        found = stream.resample_chunk(np.ascontiguousarray(block, np.float32))
        read, written = read + len(block), written + len(found)
        if len(found):
            yield found
    found = stream.resample_chunk(np.empty(0, np.float32), last=True)
    missing = math.ceil(read * target / rate) - written
    if missing > 0:
        yield np.pad(found, (0, max(0, missing - len(found))))[:missing]


def _mono(path: Path, stream: Stream, sample_rate: int) -> Iterator[np.ndarray]:
    whole = streaming.checked(path, stream)
    yield from resampled(downmix.mono(whole, stream.rate), stream.rate, sample_rate)


def _checked(path: str | Path) -> Path:
    """Raise an AudioError for what the file system refuses, before a library opens the file."""
    path = Path(path)
    if (arriving := copy.of(path)) is not None:
        arriving.wait()
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise error(path, "is a directory", "name an audio file in it")
        if not stat.S_ISREG(status.st_mode):
            cure = "save the audio to a file first, or pipe it into `las transcribe -`"
            raise error(path, "is not a regular file", cure)
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise error(path, "no such file", "check the path") from None
    except PermissionError:
        raise error(path, "permission denied", "make it readable for this user") from None
    except (OSError, ValueError) as problem:
        what = getattr(problem, "strerror", None) or str(problem)
        raise error(path, f"cannot be opened ({what})", "check the path") from None
    if status.st_size == 0:
        raise error(path, "is empty (0 bytes)", "fetch or record it again")
    return path


def _gather(source: Iterable[np.ndarray], expected: int) -> np.ndarray:
    """Concatenate blocks [n] to one array [S]; the header announces ``expected`` samples."""
    whole = np.empty(min(expected, _FIRST_SAMPLES), np.float32)
    length = 0
    for block in source:
        end = length + len(block)
        if end > len(whole):  # not beyond the announced length, unless there are more samples
            whole.resize(max(end, min(expected, 2 * len(whole))), refcheck=False)
        whole[length:end] = block
        length = end
    whole.resize(length, refcheck=False)
    return whole
