"""FLAC files with more samples than the header says, or with an ID3v1 tag at the end.

libsndfile stops at the number of samples in the header. Frames: RFC 9639, section 9.1.
"""

import io
from typing import BinaryIO

from las.audio.spliced import Part

_STREAMINFO = 4 + 4 + 34  # bytes: magic, header of the first block, and its content
_TAG = 128  # bytes of an ID3v1 tag
_LARGEST_FRAME = 1 << 17  # searched at the end, if the header gives no size


def parts(file: BinaryIO, size: int) -> list[Part] | None:
    """The parts to decode instead of the file; None for the file itself.

    Args:
        file: the file.
        size: in bytes.
    """
    file.seek(0)
    head = file.read(_STREAMINFO)
    if len(head) < _STREAMINFO or head[4] & 0x7F:
        return None
    end = size
    file.seek(max(0, size - _TAG))
    if file.read(3) == b"TAG" and size > _TAG:
        end = size - _TAG
    packed = int.from_bytes(head[18:26], "big")  # rate 20, channels 3, bits 5, samples 36
    announced = packed & (1 << 36) - 1
    if announced and samples(file, end, head) > announced:
        unknown = (packed >> 36 << 36).to_bytes(8, "big")
        return [Part((head[:18] + unknown + head[26:], range(_STREAMINFO, end)))]
    return [Part((range(end),))] if end < size else None


def samples(file: BinaryIO, end: int, head: bytes) -> int:
    """The number of samples before the end of the last frame; 0 if it is not found."""
    largest = int.from_bytes(head[15:18], "big") or _LARGEST_FRAME
    file.seek(max(_STREAMINFO, end - largest - 16), io.SEEK_SET)
    tail = file.read(end - file.tell())
    block = int.from_bytes(head[8:10], "big")
    place = len(tail)
    while (place := tail.rfind(b"\xff", 0, place)) >= 0:
        if found := _frame_end(tail[place : place + 16], block):
            return found
    return 0


def _frame_end(data: bytes, fixed: int) -> int:
    """Number of samples up to the end of the frame with this header; 0 if it is not a header."""
    if len(data) < 6 or data[1] & 0xFE != 0xF8:
        return 0
    ones = 8 - (data[4] ^ 0xFF).bit_length()  # the number is encoded as in UTF-8
    length = max(1, ones)
    number = data[4] & (0x7F >> ones if ones else 0x7F)
    for byte in data[5 : 4 + length]:
        number = number << 6 | byte & 0x3F
    place = 4 + length
    code = data[2] >> 4
    if code in (6, 7):
        size = int.from_bytes(data[place : place + code - 5], "big") + 1
        place += code - 5
    else:
        size = 192 if code == 1 else 144 << code if code < 6 else 1 << code
    place += {12: 1, 13: 2, 14: 2}.get(data[2] & 0xF, 0)
    if ones in (1, 8) or code == 0 or len(data) <= place or _crc8(data[:place]) != data[place]:
        return 0
    return (number if data[1] & 1 else number * fixed) + size


def _crc8(data: bytes) -> int:
    """CRC-8 of a frame header: polynomial x^8 + x^2 + x + 1."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ (0x07 if value & 0x80 else 0)) & 0xFF
    return value
