"""Chained Ogg files (RFC 3533), of which libsndfile reads only the first link.

The pages are followed to the end of the file; missing or incomplete pages are an error.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from las.audio.spliced import Part
from las.audio.stream import AudioError, NotSupportedError, cut_short, error

_HEAD = 27  # bytes of a page before its table of segments
_BEGINS = 2  # flag of the first page of a stream
_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")


@dataclass
class _Link:
    """A link of the chain: streams that begin together."""

    start: int
    next: dict[int, int] = field(default_factory=dict)  # serial number -> number of the next page
    begun: bool = False  # a page that does not begin a stream was read


def parts(path: Path, file: BinaryIO, size: int) -> list[Part] | None:
    """The parts to decode instead of the file; None for the file itself.

    Args:
        path: for messages.
        file: the file.
        size: in bytes.

    Raises:
        AudioError: pages are missing or incomplete.
        NotSupportedError: links hold several streams each.
    """
    links: list[_Link] = []
    place = 0
    while place < size:
        file.seek(place)
        head = file.read(_HEAD + 255)
        if head[:4] != b"OggS":
            file.seek(place)
            if head.startswith(_TAGS) or not file.read().strip(b"\0"):
                break
            raise _damaged(path, f"there is no page at byte {place}")
        table = head[_HEAD : _HEAD + head[26]] if len(head) >= _HEAD else b""
        end = place + _HEAD + len(table) + sum(table)
        if len(head) < _HEAD or len(table) < head[26] or end > size:
            raise cut_short(path, "its last page is incomplete")
        begins = bool(head[5] & _BEGINS)
        serial, number = (int.from_bytes(head[i : i + 4], "little") for i in (14, 18))
        if begins and (not links or links[-1].begun):
            links.append(_Link(place))
        if not links:
            raise _damaged(path, "its first pages are missing")
        link = links[-1]
        link.begun = not begins
        if not begins and link.next.get(serial, number) != number:
            raise _damaged(path, f"pages are missing before byte {place}")
        link.next[serial] = number + 1 & 0xFFFFFFFF
        place = end
    if len(links) == 1 and place == size:
        return None
    if any(len(link.next) > 1 for link in links):
        raise NotSupportedError("an Ogg file of several links with several streams each")
    ends = [link.start for link in links[1:]] + [place]
    return [Part((range(link.start, end),)) for link, end in zip(links, ends, strict=True)]


def _damaged(path: Path, what: str) -> AudioError:
    return error(path, f"the Ogg stream is damaged ({what})", "fetch it again")
