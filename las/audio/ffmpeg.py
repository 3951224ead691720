"""Decoding by the program ffmpeg, if it is installed, of formats that libsndfile does not read.

Only messages about the audio are errors; those about a video or a cover picture are ignored.
"""

import os
import re
import shutil
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from las.audio import containers
from las.audio import stream as streaming
from las.audio.stream import UNKNOWN_LENGTH, AudioError, Stream, cut_short, error

_SECONDS = 600.0  # maximum time without a block
# Containers only, no playlists, scripts or pictures, which may refer to other files.
_FORMATS = (
    "aac,ac3,act,adx,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,gsm,gxf,iff,"
    "ircam,loas,matroska,mlp,mov,mp3,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nut,ogg,oma,qcp,rm,rso,"
    "shn,sln,sox,tak,truehd,tta,voc,w64,wav,webm,wsaud,wtv,wv,xwma"
)
# Keeps samples at the times of the file: audio may start after the video, or have gaps, which
# become silence. If time goes back, as in concatenated files, it continues instead, so that no
# sample is dropped. st(0) is the sample where the next frame continues; st(1) is added to times.
_TIMES = (
    "asetpts='st(2,if(isnan(PTS),ld(0),PTS+ld(1)));"
    "st(2,if(eq(N,0),ld(2),if(lt(ld(2),ld(0)-0.1*SR){leap},0*st(1,ld(1)+ld(0)-ld(2))+ld(0),"
    "if(gt(ld(2),ld(0)+0.1*SR),ld(2),ld(0)))));st(0,ld(2)+NB_SAMPLES);ld(2)',"
    "aresample=async=1:first_pts=0"
)
_LEAP = "+gt(ld(2),ld(0)+10*SR)"  # a jump of the clock, which ffmpeg does not fill either
_CLOCKS = (b"\x47", b"\0\0\1\xba")  # MPEG streams start at an arbitrary time
_ZEROS = (b"\x1aE\xdf\xa3",)  # in Matroska, as in MP4, time 0 is the start of the file
_STREAM = re.compile(r"^\[info\]   Stream #0:(\d+)\S*: (\w+): (\w+)(.*)$", re.MULTILINE)
_TAKEN = re.compile(r"^\[info\]   Stream #0:(\d+) -> #0:0 ", re.MULTILINE)
_DURATION = re.compile(r"^\[info\]   Duration: (\d+):(\d+):([\d.]+)", re.MULTILINE)
_START = re.compile(r"^\[info\]   Duration: [^,]*, start: (-?[\d.]+)", re.MULTILINE)
_BAD = re.compile(r"^(?:\[(\S+) @ [^]]*\] )*\[(?:error|fatal|panic)\] (.*)$", re.MULTILINE)
_LOG_BYTES = 1 << 20  # of the log that are read


def program() -> str | None:
    """The path of ffmpeg; None if it is not installed."""
    return shutil.which("ffmpeg")


@contextmanager
def open_stream(path: Path, ffmpeg: str) -> Iterator[Stream]:
    """Decode a file with ffmpeg, every channel at the file's own rate, as an AU stream.

    AU has the shortest header with rate and channels. Downmix and resampling are then the same for
    all formats. Of several audio tracks ffmpeg takes the default one.

    Raises:
        AudioError: ffmpeg cannot read the file, complains about it or hangs.
    """
    # As standard input, because the file may have no name.
    with path.open("rb") as given, tempfile.TemporaryFile() as log:
        command = _command(path, ffmpeg, given)
        process = subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=log)
        assert process.stdout is not None
        try:
            header = _read(process, 24)
            if len(header) < 24:
                raise _error(path, process, log)
            _, offset, _, _, rate, channels = struct.unpack(">4s5I", header)
            _read(process, offset - 24)
            stream = Stream(rate, channels, UNKNOWN_LENGTH, iter(()))
            stream.blocks = _blocks(path, process, log, stream)
            yield stream
        finally:
            process.kill()
            process.stdout.close()
            process.wait()


def _command(path: Path, ffmpeg: str, given: BinaryIO) -> list[str]:
    command = [ffmpeg, "-hide_banner", "-nostdin", "-nostats", "-v", "repeat+level+info"]
    command += ["-xerror", "-err_detect", "explode", "-protocol_whitelist", "file,pipe"]
    command += ["-format_whitelist", _FORMATS]
    # `file:` protects names such as `-x.m4a` or `http:x`.
    name = "/dev/fd/0" if path.parts[:2] == ("/", "dev") else path
    source = ["-i", f"file:{name}"]
    head, leap = given.read(8), ""
    if head.startswith(_CLOCKS):
        leap = _LEAP
        asked = subprocess.run([*command, *source], stdin=given, capture_output=True)
        if start := _START.search(asked.stderr.decode(errors="replace")):
            command += ["-copyts", "-itsoffset", str(-float(start[1]))]
    elif head.startswith(_ZEROS) or head[4:] in containers.BOXES:
        command += ["-copyts"]
    command += [*source, "-vn", "-sn", "-dn", "-af", _TIMES.format(leap=leap)]
    return [*command, "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]


def _read(process: subprocess.Popen[bytes], size: int) -> bytes:
    """Read bytes, fewer at the end; kills a program that hangs.

    The time between two reads does not count, as the consumer of the blocks may be slow.
    """
    assert process.stdout is not None
    timer = threading.Timer(_SECONDS, process.kill)
    timer.start()
    try:
        return process.stdout.read(size)
    finally:
        timer.cancel()


def _blocks(
    path: Path, process: subprocess.Popen[bytes], log: IO[bytes], stream: Stream
) -> Iterator[np.ndarray]:
    channels, length = stream.channels, 0
    while data := _read(process, max(1, streaming.BLOCK_SAMPLES // channels) * 4 * channels):
        whole = len(data) - len(data) % (4 * channels)
        block = np.frombuffer(data[:whole], ">f4").astype(np.float32).reshape(-1, channels)
        length += len(block)
        yield block
    status = process.wait()
    text = _log_text(path, log)
    if status != 0 or _complaints(text):
        raise _error(path, process, log)
    streams = _STREAM.findall(text.partition("Stream mapping:")[0])
    tracks = [number for number, kind, *_ in streams if kind == "Audio"]
    seconds = length / stream.rate
    if len(streams) == 1 and "Estimating duration" not in text and (d := _DURATION.search(text)):
        announced = 3600 * int(d[1]) + 60 * int(d[2]) + float(d[3])
        if seconds < min(0.95 * announced, announced - 1):
            raise cut_short(path, f"{seconds:.2f} of {announced:.2f} s are there")
    if len(tracks) > 1 and (taken := _TAKEN.search(text)) and taken[1] in tracks:
        number = tracks.index(taken[1]) + 1
        what = f"it has {len(tracks)} audio tracks; number {number}, the default, is used"
        stream.notes.append(what)


def _log_text(path: Path, log: IO[bytes]) -> str:
    """The log; of a long one its beginning and end."""
    size = log.seek(0, os.SEEK_END)
    log.seek(0)
    data = log.read(_LOG_BYTES)
    if size > 2 * _LOG_BYTES:
        log.seek(size - _LOG_BYTES)
    data += log.read()
    text = data.decode(errors="replace")
    return text.replace(f"file:{path}: ", "").replace("file:/dev/fd/0: ", "")


def _complaints(text: str) -> list[str]:
    """Error messages, except those of decoders and parsers of other streams than audio."""
    streams = _STREAM.findall(text.partition("Stream mapping:")[0])
    others = {codec for _, kind, codec, _ in streams if kind != "Audio"}
    if others:
        others.add("NULL")  # a parser whose stream is not known
    return [what for context, what in _BAD.findall(text) if context not in others]


def _error(path: Path, process: subprocess.Popen[bytes], log: IO[bytes]) -> AudioError:
    if process.wait() < 0:
        what = f"ffmpeg gave no output for {_SECONDS:g} s"
        return error(path, what, "convert it to wav or flac by hand")
    found = _complaints(_log_text(path, log))
    first = found[0] if found else f"exit status {process.returncode}"
    what = f"not an audio file that libsndfile or ffmpeg can read completely (ffmpeg: {first})"
    return error(path, what, "check that it is audio and complete, or convert it to wav or flac")
