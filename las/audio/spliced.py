"""Parts of a file as a file object."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO


@dataclass(frozen=True)
class Part:
    """A part of a file that is decoded like a file.

    Attributes:
        pieces: literal bytes, and ranges of bytes of the file, in order.
        mp3: whether they are MPEG audio frames, whose number is known only at the end.
    """

    pieces: tuple[bytes | range, ...]
    mp3: bool = False


class Spliced(io.RawIOBase):
    """The pieces of a part as a readable and seekable file.

    Args:
        file: of the ranges; its position is changed.
        pieces: see :class:`Part`.
    """

    def __init__(self, file: BinaryIO, pieces: Sequence[bytes | range]) -> None:
        self._file = file
        self._pieces = [piece for piece in pieces if len(piece)]
        self._starts = [0]
        for piece in self._pieces:
            self._starts.append(self._starts[-1] + len(piece))
        self._position = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Change the position, as in any file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._starts[-1]}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, as far as there are bytes."""
        view = memoryview(buffer).cast("B")
        done = 0
        for start, piece in zip(self._starts, self._pieces, strict=False):
            inside = self._position - start
            if not 0 <= inside < len(piece) or done == len(view):
                continue
            count = min(len(piece) - inside, len(view) - done)
            if isinstance(piece, range):
                self._file.seek(piece.start + inside)
                found = self._file.read(count)
            else:
                found = piece[inside : inside + count]
            view[done : done + len(found)] = found
            done += len(found)
            self._position += len(found)
        return done
