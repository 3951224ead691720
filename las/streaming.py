"""An audio file -> blocks of samples at its own rate, or an error that says what to do about it.

libsndfile (through soundfile) reads wav, flac, ogg, opus, mp3, NIST SPHERE, aiff and more; for
the rest the program ffmpeg is used where it is installed. A damaged file is an error and never
just its first part, as far as its format lets the damage be seen: raw frames of AAC, AC-3 or MP2,
an MP3 without a Xing header, and a WAV written to a pipe do not say how long they should be.

Knows nothing of resampling: `las.audio` does that, and is what other modules use.
"""

import os
import re
import shutil
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile

from las import quiet
from las.errors import LASError

MIN_SECONDS = 0.05
"""Shorter audio is refused: it holds a few frames at most, and no word."""
UNKNOWN_LENGTH = 1 << 62
"""Frames of a stream that does not tell; libsndfile's SF_COUNT_MAX is above this."""

_MIN_RATE = 2000  # Hz; a header that lies with 1 Hz would be resampled to 16,000 times its size
_MAX_LEVEL = 1e10  # full scale is 1 (2**31 in integers kept as floats); above, powers overflow
_BLOCK_SAMPLES = 1 << 18  # read at once, over all channels
_MP3_SLACK = 2 * 1152  # some encoders count the Xing frame or the last, partial one
# libsndfile's codes for "not recognised", "encoding not supported" and (an .mp3) "not MPEG".
_NOT_SUPPORTED = frozenset({1, 4, 7})
_STREAMED_BYTES = 0x7FFF0000  # sizes from here up are placeholders of programs that write to pipes
# libsndfile's log of W64 (riff), WAV and CAF (data), AIFF (SSND), AU (Data Size); of RF64.
_BYTES_MISSING = re.compile(
    r"^\s*(?:riff|data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE
)
_RF64_FRAMES = re.compile(r"frame count (\d+) does not match .*'ds64' chunk of (\d+)")
_FFMPEG_SECONDS = 600.0  # without a block
# Containers only: playlists, scripts and pictures, which may name other files, stay shut.
_FFMPEG_FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,eac3,flac,flv,gsm,loas,matroska,mov,mp3,"
    "mpc,mpc8,mpeg,mpegts,nistsphere,ogg,rm,shn,tak,tta,voc,w64,wav,webm,wv"
)


class AudioError(LASError):
    """A file that gives no usable audio; the message is one line with the file and the cure."""


class NotSupportedError(Exception):
    """libsndfile does not know the format: another program may."""


@dataclass
class Stream:
    """An open source: `blocks` yields float32 [n, channels], `frames` in all if that is known."""

    rate: int
    channels: int
    frames: int
    blocks: Iterator[np.ndarray]
    slack: int = 0


class _Reader(soundfile.SoundFile):
    """Reads from front to back.

    soundfile seeks to the present place after every block, which loses MP3 frames at the block's
    edge and fails for a FLAC of unknown length. What mpg123, which is inside libsndfile, prints
    about a damaged MP3 is not let through: an error is one line.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with quiet.c_stderr():
            super().__init__(*args, **kwargs)

    def read(self, *args: Any, **kwargs: Any) -> np.ndarray:
        with quiet.c_stderr():
            return super().read(*args, **kwargs)

    def seekable(self) -> bool:
        return False


@contextmanager
def open_stream(path: Path) -> Iterator[Stream]:
    """Open a file with libsndfile, or else with ffmpeg.

    Raises:
        AudioError: neither reads it, or it is damaged (on opening, or while blocks are read).
    """
    try:
        with libsndfile(path) as stream:
            yield stream
        return
    except NotSupportedError as problem:
        unknown = problem
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        what = f"not an audio file that libsndfile reads ({unknown})"
        raise error(path, what, "convert it to wav or flac, or install ffmpeg")
    with _ffmpeg(path, ffmpeg) as stream:
        yield stream


def mono(path: Path, stream: Stream) -> Iterator[np.ndarray]:
    """Average the channels of every block: float32 [n] at the stream's own rate.

    Raises:
        AudioError: at the end, if samples are missing, not numbers, or too few. No block follows
            one that holds a sample that is not a number.
    """
    length = bad = 0
    for block in stream.blocks:
        with np.errstate(invalid="ignore", over="ignore"):
            bad += block.size - int(np.count_nonzero(np.abs(block) <= _MAX_LEVEL))
            averaged = np.mean(block, axis=1)
        length += len(block)
        if not bad:
            yield averaged
    if stream.frames < UNKNOWN_LENGTH and length < stream.frames - stream.slack:
        raise _cut_short(path, f"{length} of {stream.frames} samples are there")
    if length == 0:
        raise error(path, "holds no samples", "fetch or record it again")
    if bad:
        what = f"holds {bad} samples that are NaN, infinite or beyond {_MAX_LEVEL:g}"
        raise error(path, what, "write it again from its source")
    if length < MIN_SECONDS * stream.rate:
        what = f"lasts only {1000 * length / stream.rate:.3g} ms"
        raise error(path, what, f"give at least {1000 * MIN_SECONDS:g} ms of audio")


def error(path: Path, what: str, cure: str) -> AudioError:
    """An error of one line."""
    text = str(path)
    shown = text if text.isprintable() else ascii(text)
    return AudioError(f"{shown}: {' '.join(what.split())}; {cure}")


def _cut_short(path: Path, what: str) -> AudioError:
    cure = "fetch it again, or convert what is left of it to wav"
    return error(path, f"the file is cut short ({what})", cure)


# --- libsndfile -----------------------------------------------------------------------------


@contextmanager
def libsndfile(path: Path) -> Iterator[Stream]:
    """Open a file with libsndfile.

    Raises:
        NotSupportedError: libsndfile does not know the format or the encoding.
        AudioError: It does, but the file is damaged (on opening, or while blocks are read).
    """
    opened = False
    try:
        with _opened(path) as file:
            opened = True
            if file.samplerate < _MIN_RATE:
                what = f"the header gives a sample rate of {file.samplerate} Hz"
                raise error(path, what, "convert it to wav or flac with the right rate")
            if short := _shortage(path, file):
                raise _cut_short(path, short)
            slack = _MP3_SLACK if file.format == "MP3" else 0
            blocks = _sndfile_blocks(file)
            yield Stream(file.samplerate, file.channels, file.frames, blocks, slack)
    except soundfile.LibsndfileError as problem:  # on opening, or while the caller takes blocks
        what = problem.error_string.rstrip(".")
        if not opened and problem.code in _NOT_SUPPORTED:
            raise NotSupportedError(what) from None
        cure = "fetch it again: it is damaged or cut short"
        raise error(path, f"cannot be decoded ({what})", cure) from None


def _sndfile_blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    frames = max(1, _BLOCK_SAMPLES // file.channels)
    while len(block := file.read(frames, dtype="float32", always_2d=True)):
        yield block


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    if path.suffix.lower() == ".raw":  # soundfile takes it as headerless, whatever it holds
        raise NotSupportedError("raw samples do not tell their rate")
    with _Reader(os.fsencode(path)) as file:
        if file.format != "MP3":
            yield file
            return
    # From a path, libsndfile guesses the length of an MP3 that has no Xing header from the first
    # frame's bit rate and stops there: a third of the way in, for speech at a variable rate. From
    # a pipe it reads to the end.
    with _piped(path) as descriptor, _Reader(descriptor, closefd=False) as file:
        yield file


@contextmanager
def _piped(path: Path) -> Iterator[int]:
    """A descriptor from which the file can be read, without an ID3v2 tag at its front."""
    source, sink = os.pipe()

    def feed() -> None:
        with suppress(BrokenPipeError), os.fdopen(sink, "wb") as pipe, path.open("rb") as file:
            head = file.read(10)
            start = 0
            if head[:3] == b"ID3" and len(head) == 10:  # id3.org: sizes have 7 bits a byte
                size = sum(
                    byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)
                )
                start = len(head) + size + (10 if head[5] & 0x10 else 0)  # 0x10: a footer
            file.seek(start)
            shutil.copyfileobj(file, pipe)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        yield source
    finally:
        os.close(source)
        feeder.join()


def _shortage(path: Path, file: soundfile.SoundFile) -> str | None:
    """Say what is missing where libsndfile sees that a file is cut short and reads on quietly."""
    log = file.extra_info
    if file.format == "OGG" and re.search(
        "lacks an end-of-stream bit|Junk after the last page", log
    ):
        return "its last page is not whole"
    for line in _BYTES_MISSING.finditer(log):
        says, has = int(line[1]), int(line[2])
        if has < says < _STREAMED_BYTES:
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


# --- ffmpeg ---------------------------------------------------------------------------------


@contextmanager
def _ffmpeg(path: Path, ffmpeg: str) -> Iterator[Stream]:
    """Decode a file with ffmpeg, every channel at the file's own rate, as an AU stream.

    AU has the shortest header that tells the rate and the channels; averaging and resampling are
    then the same for every format. `file:` keeps a name such as `-x.m4a` or `http:x` a name.

    Raises:
        AudioError: ffmpeg cannot read the file, complains about it or hangs.
    """
    command = [ffmpeg, "-nostdin", "-v", "error", "-xerror", "-err_detect", "explode"]
    command += ["-protocol_whitelist", "file,pipe", "-format_whitelist", _FFMPEG_FORMATS]
    command += ["-i", f"file:{path}", "-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
        )
        assert process.stdout is not None
        try:
            header = _read(process, 24)
            if len(header) < 24:
                raise _ffmpeg_error(path, process, log)
            _, offset, _, _, rate, channels = struct.unpack(">4s5I", header)
            _read(process, offset - 24)
            blocks = _ffmpeg_blocks(path, process, log, channels)
            yield Stream(rate, channels, UNKNOWN_LENGTH, blocks)
        finally:
            process.kill()
            process.stdout.close()
            process.wait()


def _read(process: subprocess.Popen[bytes], size: int) -> bytes:
    """Read so many bytes, fewer at the end; a program that hangs is ended.

    What passes between two reads does not count: who takes blocks may be slow.
    """
    assert process.stdout is not None
    timer = threading.Timer(_FFMPEG_SECONDS, process.kill)
    timer.start()
    try:
        return process.stdout.read(size)
    finally:
        timer.cancel()


def _ffmpeg_blocks(
    path: Path, process: subprocess.Popen[bytes], log: IO[bytes], channels: int
) -> Iterator[np.ndarray]:
    frame_bytes = 4 * channels
    while data := _read(process, max(1, _BLOCK_SAMPLES // channels) * frame_bytes):
        whole = len(data) - len(data) % frame_bytes
        yield np.frombuffer(data[:whole], ">f4").astype(np.float32).reshape(-1, channels)
    if process.wait() != 0 or log.seek(0, os.SEEK_END):
        raise _ffmpeg_error(path, process, log)


def _ffmpeg_error(path: Path, process: subprocess.Popen[bytes], log: IO[bytes]) -> AudioError:
    if process.wait() < 0:
        what = f"ffmpeg gave nothing for {_FFMPEG_SECONDS:g} s"
        return error(path, what, "convert it to wav or flac by hand")
    log.seek(0)
    lines = log.read(4000).decode(errors="replace").replace(f"file:{path}: ", "").splitlines()
    first = re.sub(r"^\[[^]]*\] ", "", lines[0]) if lines else f"exit status {process.returncode}"
    what = f"not an audio file that libsndfile or ffmpeg reads whole (ffmpeg: {first})"
    return error(path, what, "check that it is audio and complete, or convert it to wav or flac")
