"""Decoding by libsndfile (soundfile): wav, flac, ogg, opus, mp3, NIST SPHERE, aiff and more."""

import io
import os
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from las.audio import containers, mpeg, mute_stderr, riff, stream
from las.audio.spliced import Part, Spliced
from las.audio.stream import UNKNOWN_LENGTH, NotSupportedError, Stream, cut_short, error

MIN_RATE = 2000
"""Hz; a wrong header of 1 Hz would be resampled to 16,000 times the size."""
_MP3_SLACK = 2 * 1152  # some encoders count the Xing frame or the last, incomplete one
# Codes of libsndfile: "not recognised", "encoding not supported" and (an .mp3) "not MPEG".
_NOT_SUPPORTED = frozenset({1, 4, 7})
# Log of libsndfile, of W64 (riff), WAV and CAF (data), AIFF (SSND), AU (Data Size); of RF64.
_BYTES_MISSING = re.compile(
    r"^\s*(?:riff|data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE
)
_RF64_FRAMES = re.compile(r"frame count (\d+) does not match .*'ds64' chunk of (\d+)")


@contextmanager
def open_stream(path: Path) -> Iterator[Stream]:
    """Open a file with libsndfile.

    Raises:
        NotSupportedError: libsndfile does not open it.
        AudioError: The file is damaged (on opening, or while blocks are read).
    """
    with path.open("rb") as raw:
        parts: Sequence[Part | None] = containers.parts(path, raw) or [None]
        with _decoding(path), _opened(path, raw, parts[0]) as file:
            if len(parts) == 1:
                frames, blocks, slack = file.frames, _blocks(file), _slack(file)
            else:
                frames, blocks, slack = UNKNOWN_LENGTH, _joined(path, raw, file, parts), 0
            yield Stream(file.samplerate, file.channels, frames, blocks, slack)


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Convert errors of libsndfile while blocks are read."""
    try:
        yield
    except soundfile.LibsndfileError as problem:
        what = f"cannot be decoded ({problem.error_string.rstrip('.')})"
        raise error(path, what, "fetch it again: it is damaged or cut short") from None


class _Reader(soundfile.SoundFile):
    """Reads sequentially.

    soundfile seeks to the current position after every block, which loses MP3 frames at the edge of
    the block and fails for a FLAC of unknown length. Messages of mpg123 (part of libsndfile) about
    damaged MP3 files are suppressed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with mute_stderr.c_stderr():
            super().__init__(*args, **kwargs)

    def read(self, *args: Any, **kwargs: Any) -> np.ndarray:
        with mute_stderr.c_stderr():
            return super().read(*args, **kwargs)

    def seekable(self) -> bool:
        return False


def _blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    frames = max(1, stream.BLOCK_SAMPLES // file.channels)
    while len(block := file.read(frames, dtype="float32", always_2d=True)):
        yield block


def _slack(file: soundfile.SoundFile) -> int:
    """Samples by which the length in the header may be too large."""
    return _MP3_SLACK if file.format == "MP3" else 0


def _joined(
    path: Path, raw: BinaryIO, first: soundfile.SoundFile, parts: Sequence[Part | None]
) -> Iterator[np.ndarray]:
    """The blocks of all parts; the first is open."""
    yield from _whole(path, first)
    yield from following(path, raw, (first.samplerate, first.channels), parts)


def following(
    path: Path, raw: BinaryIO, shape: tuple[int, int], parts: Sequence[Part | None]
) -> Iterator[np.ndarray]:
    """The blocks of all parts but the first.

    Args:
        path: of the file, for messages.
        raw: the open file.
        shape: rate and channels of the first part.
        parts: see `las.audio.containers.parts`.

    Raises:
        AudioError: a part cannot be decoded, or is of another shape.
    """
    for number, part in enumerate(parts[1:], start=2):
        try:
            with _opened(path, raw, part) as file:
                if (own := (file.samplerate, file.channels)) != shape:
                    shapes = [f"{rate} Hz, {channels} channels" for rate, channels in (own, shape)]
                    what = f"part {number} of {len(parts)} has {shapes[0]}, the first {shapes[1]}"
                    raise error(path, what, "split it into its parts, or convert them to one rate")
                yield from _whole(path, file)
        except NotSupportedError as problem:
            what = f"part {number} of {len(parts)} cannot be decoded ({problem})"
            raise error(path, what, "fetch it again, or convert it to wav or flac") from None


def _whole(path: Path, file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    length = 0
    for block in _blocks(file):
        length += len(block)
        yield block
    if file.frames < UNKNOWN_LENGTH and length < file.frames - _slack(file):
        raise cut_short(path, f"{length} of {file.frames} samples of a part are there")


@contextmanager
def _opened(path: Path, raw: BinaryIO, part: Part | None) -> Iterator[soundfile.SoundFile]:
    """A file, or a part of it.

    Raises:
        NotSupportedError: libsndfile does not open it.
        AudioError: its header is not plausible.
    """
    if part is None:
        if path.suffix.lower() == ".raw":  # soundfile expects raw samples by this suffix
            raise NotSupportedError("raw samples have no sample rate")
        with _reader(path, raw, os.fsencode(path)) as file:
            if file.format != "MP3":
                yield file
                return
        part = Part((range(raw.seek(0, io.SEEK_END)),), mp3=True)
    spliced = Spliced(raw, part.pieces)
    if not part.mp3:
        with _reader(path, raw, spliced) as file:
            yield file
        return
    # For a path, libsndfile estimates the length of an MP3 without a Xing header by the bit rate of
    # the first frame and stops there: after a third, for speech at a variable bit rate. From a pipe
    # it reads to the end.
    with _piped(spliced) as descriptor, _reader(path, raw, descriptor) as file:
        yield file


def _reader(path: Path, raw: BinaryIO, source: bytes | int | Spliced) -> _Reader:
    """Open a source and check its header."""
    try:
        file = _Reader(source, closefd=False)
    except soundfile.LibsndfileError as problem:
        damaged = problem.code not in _NOT_SUPPORTED and not containers.checks_structure(raw)
        raise NotSupportedError(problem.error_string.rstrip("."), damaged) from None
    if file.samplerate < MIN_RATE:
        what = f"the header gives a sample rate of {file.samplerate} Hz"
        raise error(path, what, "convert it to wav or flac with the right rate")
    if short := _shortage(path, file):
        raise cut_short(path, short)
    return file


@contextmanager
def _piped(source: BinaryIO | Spliced) -> Iterator[int]:
    """A pipe with the content of a file, without an ID3v2 tag at its start."""
    reading, writing = os.pipe()

    def feed() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb") as pipe:
            source.seek(mpeg.tag_end(source.read(10)))
            shutil.copyfileobj(source, pipe)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        yield reading
    finally:
        os.close(reading)
        feeder.join()


def _shortage(path: Path, file: soundfile.SoundFile) -> str | None:
    """What is missing in a truncated file that libsndfile reads without an error."""
    log = file.extra_info
    if file.format == "OGG" and "lacks an end-of-stream bit" in log:
        return "its last page is missing"
    for line in _BYTES_MISSING.finditer(log):
        says, has = int(line[1]), int(line[2])
        if has < says < riff.STREAMED_BYTES:
            return f"{has} of {says} bytes are there"
    found = _RF64_FRAMES.search(log)
    if found and int(found[1]) < int(found[2]) < UNKNOWN_LENGTH:
        return f"{found[1]} of {found[2]} samples are there"
    if file.format == "NIST":
        with path.open("rb") as raw:
            header = raw.read(1024).decode("ascii", "replace")
        found = re.search(r"sample_count -i (\d+)", header)
        if found and file.frames < int(found[1]):
            return f"{file.frames} of {found[1]} samples are there"
    return None
