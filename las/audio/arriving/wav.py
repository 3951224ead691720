"""WAV of uncompressed samples, read while it arrives; the same samples as from a file."""

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from las.audio import containers, sndfile
from las.audio.arriving.copy import Arriving
from las.audio.riff import STREAMED_BYTES
from las.audio.spliced import Part, Spliced
from las.audio.stream import BLOCK_SAMPLES, UNKNOWN_LENGTH, Stream

_SECONDS = 0.25  # to wait for, at least
_CHUNKS = 64  # before the samples, at most
_CHUNK_BYTES = 1 << 24
_EXTENSIBLE = 0xFFFE
_SUBTYPES = {
    (1, 8): "PCM_U8",
    (1, 16): "PCM_16",
    (1, 24): "PCM_24",
    (1, 32): "PCM_32",
    (3, 32): "FLOAT",
    (3, 64): "DOUBLE",
    (6, 8): "ALAW",
    (7, 8): "ULAW",
}


@dataclass(frozen=True)
class _Layout:
    """What a header says."""

    subtype: str
    rate: int
    channels: int
    frame: int  # bytes of a sample of all channels
    samples: range  # bytes of the file

    def decoded(self, data: bytes) -> np.ndarray:
        """Whole frames as float32 [n, channels]."""
        with soundfile.SoundFile(
            io.BytesIO(data),
            samplerate=self.rate,
            channels=self.channels,
            format="RAW",
            subtype=self.subtype,
            endian="LITTLE",
        ) as file:
            return file.read(dtype="float32", always_2d=True)


def opened(
    path: Path, arriving: Arriving, waiting: Callable[[], None] | None = None
) -> Stream | None:
    """The samples of a WAV that arrives; None if it is none, or one to read when it is complete.

    Damage after the header is found at the end, by the checks that files get. ``waiting`` is called
    whenever samples have to be waited for.
    """
    layout = _layout(arriving)
    if layout is None:
        return None
    blocks = _blocks(path, arriving, layout, waiting)
    return Stream(layout.rate, layout.channels, UNKNOWN_LENGTH, blocks)


def _layout(arriving: Arriving) -> _Layout | None:
    head = arriving.read(0, 12, 12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    place, shape = 12, None
    for _ in range(_CHUNKS):
        chunk = arriving.read(place, 8, 8)
        if len(chunk) < 8:
            return None
        name, size = struct.unpack("<4sI", chunk)
        place += 8
        if name == b"data":
            break
        if name == b"ds64" or size > _CHUNK_BYTES:
            return None
        if name == b"fmt ":
            shape = _shape(arriving.read(place, size, size))
        place += size + size % 2
    else:
        return None
    # A size of 0 may be that of a killed recorder, or right: only the end tells.
    if shape is None or size == 0:
        return None
    end = place + size if size < STREAMED_BYTES else UNKNOWN_LENGTH
    return _Layout(*shape, range(place, end))


def _shape(data: bytes) -> tuple[str, int, int, int] | None:
    """Subtype, rate, channels and bytes of a frame, of the chunk ``fmt``."""
    if len(data) < 16:
        return None
    tag, channels, rate, _, frame, bits = struct.unpack("<HHIIHH", data[:16])
    if tag == _EXTENSIBLE and len(data) >= 40:
        tag = struct.unpack("<H", data[24:26])[0]
    subtype = _SUBTYPES.get((tag, bits))
    right = channels and frame == channels * bits // 8 and rate >= sndfile.MIN_RATE
    return (subtype, rate, channels, frame) if subtype and right else None


def _blocks(
    path: Path, arriving: Arriving, layout: _Layout, waiting: Callable[[], None] | None
) -> Iterator[np.ndarray]:
    frame, place, end = layout.frame, layout.samples.start, layout.samples.stop
    least = max(1, round(_SECONDS * layout.rate)) * frame
    most = max(1, BLOCK_SAMPLES // layout.channels) * frame
    rest = b""
    while data := arriving.read(place, min(least, end - place), min(most, end - place), waiting):
        place += len(data)
        data = rest + data
        whole = len(data) - len(data) % frame
        rest = data[whole:]
        if whole:
            yield layout.decoded(data[:whole])
    arriving.wait()
    with path.open("rb") as file:
        parts = containers.parts(path, file) or []
        if parts:
            # Further chunks of samples, which files seldom have.
            others = Spliced(file, _others(parts[0], layout.samples.start)).read()
            data = rest + (others or b"")
            if whole := len(data) - len(data) % frame:
                yield layout.decoded(data[:whole])
        yield from sndfile.following(path, file, (layout.rate, layout.channels), parts)


def _others(part: Part, first: int) -> list[bytes | range]:
    return [p for p in part.pieces if isinstance(p, range) and p.start != first]
