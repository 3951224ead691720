"""WAV, RF64, AIFF, CAF and AU: where the samples are, even if the sizes are wrong."""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from las.audio.spliced import Part
from las.audio.stream import cut_short, error

STREAMED_BYTES = 0x7FFF0000
"""Sizes from here on are placeholders of programs that write to pipes."""

_MP3_IN_WAV = 0x55  # WAVE_FORMAT_MPEGLAYER3
_WRITE_AGAIN = "write it again from its source, or convert it with `sox --ignore-length`"
_NOTHING = 64  # bytes after the end that are ignored: 40 ms of GSM at 8 kHz
# Tags at the end of files of any format.
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN", b"3DI")
# Chunks without sound: they may be truncated.
_SILENT = frozenset(
    b"LIST|id3 |ID3 |bext|cue |smpl|inst|fact|PEAK|JUNK|junk|PAD |FLLR|iXML|axml|_PMX|afsp|acid|"
    b"strc|cart|DISP|umid|minf|elm1|regn|chna|levl|MARK|INST|COMT|APPL|NAME|AUTH|(c) |ANNO|info|"
    b"strg|peak|ovvw|uuid|free".split(b"|")
)


@dataclass(frozen=True)
class Kind:
    """The chunks of a format."""

    magic: bytes
    chunk: str  # id and size, for struct
    first: int  # byte of the first chunk
    samples: bytes  # id of the chunk with the samples
    inside: int = 0  # bytes before the samples in it, included in its size
    padded: bool = True  # to an even size


_KINDS = {
    b"RIFF": Kind(b"RIFF", "<4sI", 12, b"data"),
    b"RF64": Kind(b"RF64", "<4sI", 12, b"data"),
    b"BW64": Kind(b"BW64", "<4sI", 12, b"data"),
    b"RIFX": Kind(b"RIFX", ">4sI", 12, b"data"),
    b"FORM": Kind(b"FORM", ">4sI", 12, b"SSND", inside=8),
    b"caff": Kind(b"caff", ">4sq", 8, b"data", inside=4, padded=False),
}


def kind(head: bytes) -> Kind | None:
    """The format of a file by its first 12 bytes."""
    if head[:4] != b"caff" and head[8:12] not in (b"WAVE", b"AIFF", b"AIFC"):
        return None
    return _KINDS.get(head[:4])


@dataclass
class _Found:
    """The samples of one file."""

    stretches: list[range] = field(default_factory=list)  # bytes of samples
    front: int = 0  # byte of the first chunk of samples
    sizes_right: bool = True
    mp3: bool = False
    end: int = 0  # byte after the last chunk


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    place: int
    start: int  # of its content
    size: int  # by its header


def parts(path: Path, file: BinaryIO, size: int, kind: Kind, base: int = 0) -> list[Part] | None:
    """The parts to decode instead of the file.

    Args:
        path: for messages.
        file: the file.
        size: of the file, in bytes.
        kind: of its chunks.
        base: byte where the file begins, if another one precedes it.

    Returns:
        None where libsndfile reads it correctly.

    Raises:
        AudioError: samples are missing, or unknown data follows them.
    """
    found = _Walk(path, file, size, kind, base).found()
    if not found.stretches:
        return None
    file.seek(found.end)
    another = file.read(4) == kind.magic
    if found.sizes_right and len(found.stretches) == 1 and not another and not base:
        return [Part(tuple(found.stretches), mp3=True)] if found.mp3 else None
    pieces = tuple(found.stretches) if found.mp3 else _rewritten(file, kind, base, found)
    rest = parts(path, file, size, kind, found.end) if another else None
    return [Part(pieces, found.mp3), *(rest or [])]


class _Walk:
    """Follows the chunks of a file; see :func:`parts` for the arguments."""

    def __init__(self, path: Path, file: BinaryIO, size: int, kind: Kind, base: int) -> None:
        self.path, self.file, self.size, self.kind, self.base = path, file, size, kind, base

    def found(self) -> _Found:
        """All chunks.

        Raises:
            AudioError: see :func:`parts`.
        """
        found = _Found()
        place, sound, wide_size = self.base + self.kind.first, False, None
        while place < self.size and (chunk := self._chunk(place)):
            place = chunk.start + chunk.size
            sound = chunk.name == self.kind.samples
            if sound:
                found.front = found.front or chunk.place
                place = self._samples(chunk, wide_size, found)
            elif chunk.name == b"ds64":
                wide_size = int.from_bytes(self._read(chunk.start + 8, 8), "little")
            elif chunk.name == b"fmt ":
                found.mp3 = int.from_bytes(self._read(chunk.start, 2), "little") == _MP3_IN_WAV
        if sound and self._goes_on(place):
            what = f"the sizes in its header do not fit the file: {self.size - place} bytes follow "
            what += f"the {sum(map(len, found.stretches))} of samples that it announces"
            raise error(self.path, what, _WRITE_AGAIN)
        place = min(place, self.size)
        found.end = place + (self._read(place + 1, 4) == self.kind.magic)
        return found

    def _samples(self, chunk: _Chunk, wide_size: int | None, found: _Found) -> int:
        """Add a chunk of samples; returns its end."""
        size, inside = chunk.size, self.kind.inside
        to_the_end = not 0 <= size < STREAMED_BYTES
        if to_the_end and wide_size is not None:
            size, to_the_end = wide_size, False
        available = self.size - chunk.start
        if not to_the_end and size > available:
            has = max(0, available - inside)
            raise cut_short(self.path, f"{has} of {size - inside} bytes are there")
        if not to_the_end and size <= inside and self._goes_on(chunk.start + size):
            to_the_end, found.sizes_right = True, False  # the recorder was killed
        end = self.size if to_the_end else chunk.start + size
        if end - chunk.start > inside:
            found.stretches.append(range(chunk.start + inside, end))
        return end

    def _chunk(self, place: int) -> _Chunk | None:
        """The chunk at a position or after a byte of padding, which is often missing."""
        shape = struct.Struct(self.kind.chunk)
        odd = self.kind.padded and (place - self.base) % 2
        for at in (place + 1, place) if odd else (place,):
            data = self._read(at, shape.size)
            if len(data) < shape.size:
                continue
            name, size = shape.unpack(data)
            start = at + shape.size
            fits = 0 <= size <= self.size - start or (size > 0 and name in _SILENT)
            printable = all(0x20 <= byte <= 0x7E for byte in name) and name != self.kind.magic
            if printable and (fits or name == self.kind.samples):
                return _Chunk(name, at, start, size)
        return None

    def _goes_on(self, place: int) -> bool:
        """Whether sound may follow at a position: not a chunk, tag, other file or zeros."""
        if self.size - place < _NOTHING or self._chunk(place) is not None:
            return False
        head, known = self._read(place, 12), (*_TAGS, self.kind.magic)
        if head.startswith(known) or head[1:].startswith(known):
            return False
        return not _zeros(self.file, place)

    def _read(self, place: int, count: int) -> bytes:
        if place >= self.size:  # may be too large to seek
            return b""
        self.file.seek(place)
        return self.file.read(count)


def _zeros(file: BinaryIO, place: int) -> bool:
    """Whether only zeros follow."""
    file.seek(place)
    while block := file.read(1 << 20):
        if block.strip(b"\0"):
            return False
    return True


def _rewritten(file: BinaryIO, kind: Kind, base: int, found: _Found) -> tuple[bytes | range, ...]:
    """The file with corrected sizes."""
    count = sum(map(len, found.stretches)) + kind.inside
    file.seek(base)
    head = bytearray(file.read(found.front - base).replace(b"ds64", b"JUNK", 1))
    if kind.chunk.endswith("I"):
        magic = kind.magic if kind.magic in (b"RIFX", b"FORM") else b"RIFF"
        total = min(len(head) + count, 0xFFFFFFFF)
        head[:8] = struct.pack(kind.chunk, magic, total)
        count = min(count, 0xFFFFFFFF)
    chunk = struct.pack(kind.chunk, kind.samples, count)
    return (bytes(head) + chunk + bytes(kind.inside), *found.stretches)


# --- AU -------------------------------------------------------------------------------------


def au(path: Path, file: BinaryIO, size: int) -> list[Part] | None:
    """As :func:`parts`, for an AU file, which has one header and nothing after the samples."""
    file.seek(4)
    offset, count = struct.unpack(">II", file.read(8).ljust(8, b"\0"))
    rest = size - offset - count
    if offset < 24 or count == 0xFFFFFFFF or rest < _NOTHING:
        return None
    file.seek(offset + count)
    if file.read(12).startswith(_TAGS) or (count and _zeros(file, offset + count)):
        return None
    if count:
        what = f"the sizes in its header do not fit the file: {rest} bytes follow the {count} "
        raise error(path, what + "of samples that it announces", _WRITE_AGAIN)
    file.seek(0)
    head = file.read(offset)
    return [Part((head[:8] + b"\xff" * 4 + head[12:], range(offset, size)))]
