"""MP3 files that continue after the number of frames in their first header.

These are concatenated or edited files. A Xing, Info or VBRI header at the start gives the number of
frames, and libsndfile stops there.
"""

from dataclasses import dataclass
from typing import BinaryIO

from las.audio.spliced import Part

# kbit/s by bits of the header: (MPEG 1 or not, layer).
_RATES = {
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HERTZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_SLACK = 2  # frames, as some encoders do not count all
_LOST = 1 << 16  # bytes searched for the next frame


@dataclass
class _Link:
    """The frames after one header."""

    start: int
    first: int  # byte of the first frame of sound
    announced: int | None  # frames of sound, by the header
    frames: int = 0  # frames found


def parts(file: BinaryIO, size: int) -> list[Part] | None:
    """The parts to decode instead of the file; None for the file itself.

    Args:
        file: the file.
        size: in bytes.
    """
    source = _Window(file, size)
    place = _after_tag(source, 0)
    links: list[_Link] = []
    while place < size:
        length = _length(source.at(place, 4))
        if not length:
            following: int | None = _after_tag(source, place)
            if following == place:
                following = _next_frame(source, place + 1) if links else None
            if following is None:
                break
            place = following
            continue
        found = _header(source.at(place, 160))
        if found is not None or not links:
            if not links and found is None:
                return None  # no header: libsndfile reads to the end
            links.append(_Link(place, place + length, found))
        else:
            links[-1].frames += 1
        place += length
    if not links or (len(links) == 1 and not _exceeded(links[0])):
        return None
    ends = [link.start for link in links[1:]] + [size]
    return [
        Part((range(link.first if _exceeded(link) else link.start, end),), mp3=True)
        for link, end in zip(links, ends, strict=True)
    ]


def _exceeded(link: _Link) -> bool:
    return link.announced is not None and link.frames > link.announced + _SLACK


def tag_end(head: bytes) -> int:
    """Size in bytes of the ID3v2 tag that starts with these 10 bytes or more; 0 if it is none."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    # sizes have 7 bits a byte
    size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return 10 + size + (10 if head[5] & 0x10 else 0)  # 0x10: a footer


class _Window:
    """Sequential access to the bytes of a file, in blocks."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self.start, self.data = 0, b""

    def at(self, place: int, count: int) -> bytes:
        """Bytes at a position, fewer at the end of the file."""
        inside = place - self.start
        if inside < 0 or inside + count > len(self.data):
            self.file.seek(place)
            self.start, inside = place, 0
            self.data = self.file.read(max(count, 1 << 18))
        return self.data[inside : inside + count]


def _length(head: bytes) -> int:
    """Size in bytes of the frame with these first four bytes; 0 if they are not of a frame."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    rate, hertz = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer not in (2, 3) or rate in (0, 15) or hertz == 3:
        return 0
    one = version == 3
    bits = _RATES[one, layer][rate - 1] * 1000
    slots = 144 if one or layer == 2 else 72
    return slots * bits // _HERTZ[version][hertz] + (head[2] >> 1 & 1)


def _header(frame: bytes) -> int | None:
    """Number of frames in a Xing, Info or VBRI header; None for other frames."""
    one, single = frame[1] >> 3 & 3 == 3, frame[3] >> 6 == 3
    place = 4 + ((17 if single else 32) if one else (9 if single else 17))
    for at in (place, place + 2):  # with a checksum
        if frame[at : at + 4] in (b"Xing", b"Info") and len(frame) >= at + 12:
            counted = frame[at + 7] & 1
            return int.from_bytes(frame[at + 8 : at + 12], "big") if counted else None
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big")
    return None


def _after_tag(source: _Window, place: int) -> int:
    """The end of a tag at a position; the position itself if there is none."""
    head = source.at(place, 32)
    if size := tag_end(head):
        return place + size
    if head[:3] == b"TAG":
        return place + 128
    if head[:8] == b"APETAGEX":
        return place + 32 + int.from_bytes(head[12:16], "little")
    return place


def _next_frame(source: _Window, place: int) -> int | None:
    """The next position of a frame that another one follows; None if there is none nearby."""
    for at in range(place, min(place + _LOST, source.size)):
        length = _length(source.at(at, 4))
        if length and _length(source.at(at + length, 4)):
            return at
    return None
