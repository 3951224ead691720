"""Structure of audio files: whether they are complete, and where their samples are.

Killed recorders leave sizes of 0, some programs concatenate files, and libraries silently stop
where the first header says that the samples end. Here the chunks, pages or frames of a file are
followed to its end before it is decoded.
"""

import io
import struct
from pathlib import Path
from typing import BinaryIO

from las.audio import flac, mpeg, ogg, riff
from las.audio.spliced import Part
from las.audio.stream import AudioError, cut_short, error

BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"wide", b"free", b"skip")
"""Box types at the start of MP4 and MOV files."""

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")


def parts(path: Path, file: BinaryIO) -> list[Part] | None:
    """The parts of a file to decode, one after the other, instead of the whole file.

    Args:
        path: of the file, for messages.
        file: the open file; only read and seeked.

    Returns:
        None where libsndfile should read the file correctly as it is.

    Raises:
        AudioError: the file is truncated, or continues after the end that its header gives, and
            it is not certain that this is sound.
        NotSupportedError: libsndfile would silently read only a part of it.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if kind := riff.kind(head):
        return riff.parts(path, file, size, kind)
    if head[:4] == b".snd":
        return riff.au(path, file, size)
    if head[:4] == b"fLaC":
        return flac.parts(file, size)
    if head[:4] == b"OggS":
        return ogg.parts(path, file, size)
    if head[4:8] in BOXES:
        _boxes(path, file, size)
    elif head == _ASF[:12]:
        _objects(path, file, size)
    elif head[:4] == b"TTA1":
        _frames(path, file, size)
    elif head[:3] == b"FLV":
        _tags(path, file, size)
    else:
        return mpeg.parts(file, size)
    return None


def checks_structure(file: BinaryIO) -> bool:
    """Whether :func:`parts` detects damage in files of this format (WAV, AIFF, CAF, Ogg)."""
    file.seek(0)
    head = file.read(12)
    return head[:4] == b"OggS" or riff.kind(head) is not None


# --- formats of ffmpeg, which does not report what follows a first file ---------------------------


def _boxes(path: Path, file: BinaryIO, size: int) -> None:
    """Follow the boxes of an MP4."""
    place, films = 0, 0
    while place + 8 <= size:
        file.seek(place)
        count, name = struct.unpack(">I4s", file.read(8))
        if count == 1:
            count = int.from_bytes(file.read(8), "big")
        if count < 8 or not name.isalnum():  # 0: until the end of the file; else not a box
            return
        if place + count > size and name in BOXES:
            raise cut_short(path, f"{size - place} of {count} bytes of `{name.decode()}` are there")
        films += name == b"moov"
        if films > 1:
            raise _two_files(path, place)
        place += count


def _objects(path: Path, file: BinaryIO, size: int) -> None:
    """Follow the objects of an ASF (WMA, WMV)."""
    place = 0
    while place + 24 <= size:
        file.seek(place)
        name, count = file.read(16), int.from_bytes(file.read(8), "little")
        if place and name == _ASF:
            raise _two_files(path, place)
        if count < 24:  # a stream of unknown length
            return
        place += count


def _frames(path: Path, file: BinaryIO, size: int) -> None:
    """Add up the frames of a TTA, whose sizes are at its start."""
    file.seek(10)
    rate, samples = struct.unpack("<II", file.read(8).ljust(8, b"\0"))
    file.seek(22)
    table = file.read(4 * (-(-samples * 245 // max(1, 256 * rate)) & 0xFFFFFF))
    sizes = struct.iter_unpack("<I", table[: len(table) // 4 * 4])
    place = 22 + len(table) + 4 + sum(count for (count,) in sizes)
    file.seek(min(place, size))
    if b"TTA1" in file.read(1 << 16):  # after tags
        raise _two_files(path, place)


def _tags(path: Path, file: BinaryIO, size: int) -> None:
    """Follow the tags of an FLV."""
    place = 9 + 4
    while place + 11 <= size:
        file.seek(place)
        head = file.read(4)
        if head[:3] == b"FLV":
            raise _two_files(path, place)
        place += 11 + int.from_bytes(head[1:], "big") + 4


def _two_files(path: Path, place: int) -> AudioError:
    what = f"another file follows the first, from byte {place} on"
    return error(path, what, "split it into its files, or join them with ffmpeg")
