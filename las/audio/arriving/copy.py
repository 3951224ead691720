"""A stream that is copied to a temporary file by a thread, and what of it is there."""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from las.audio.stream import error

_BYTES = 1 << 20  # to read at once, at most
_PAUSE = 0.01  # seconds, where a stream that does not block has nothing

_arriving: dict[Path, "Arriving"] = {}


class Arriving:
    """A stream on its way to a file.

    Args:
        source: the stream.
        to: the file, empty.
        name: of the stream, for messages.
    """

    def __init__(self, source: BinaryIO, to: IO[bytes], name: Path) -> None:
        self.name = name
        self._source, self._file = source, to
        self._changed = threading.Condition()
        self._size = 0  # bytes that are there
        self._ended = self._unwanted = False
        self._problem: Exception | None = None
        # At exit nobody waits for a stream that goes on.
        threading.Thread(target=self._copy, daemon=True).start()

    def wait(self, size: float = math.inf) -> int:
        """Wait until so many bytes are there, or all; their number.

        Raises:
            AudioError: the stream cannot be read, or the disk is full.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._has(size))
            if self._problem is not None:
                what = getattr(self._problem, "strerror", None) or str(self._problem)
                cure = "save the audio to a file first, or set TMPDIR to a folder with free space"
                raise error(self.name, f"cannot be copied ({what})", cure)
            return self._size

    def read(
        self,
        position: int,
        least: int,
        most: int,
        waiting: Callable[[], None] | None = None,
    ) -> bytes:
        """Bytes from a position: as many as there are, ``least`` to ``most``; fewer at the end.

        Args:
            position: of the first.
            least: number of them to wait for.
            most: number of them to return.
            waiting: called if they are not there yet.

        Raises:
            AudioError: see :meth:`wait`.
        """
        if waiting is not None and not self._has(position + least):
            waiting()
        count = min(self.wait(position + least) - position, most)
        return b"".join(self._pieces(position, count))

    def drop(self) -> None:
        """Write nothing more into the file."""
        with self._changed:
            self._unwanted = True

    def _has(self, size: float) -> bool:
        with self._changed:
            return self._ended or self._size >= size

    def _pieces(self, position: int, count: int) -> Iterator[bytes]:
        while count > 0 and (data := os.pread(self._file.fileno(), count, position)):
            yield data
            position, count = position + len(data), count - len(data)

    def _copy(self) -> None:
        # Without the buffer of standard input, whose lock would be held when the process ends.
        source = getattr(self._source, "raw", self._source)
        try:
            while True:
                data = source.read(_BYTES)
                if data is None:
                    time.sleep(_PAUSE)
                    continue
                with self._changed:
                    if not data or self._unwanted:
                        break
                    self._file.write(data)
                    self._file.flush()
                    self._size += len(data)
                    self._changed.notify_all()
        except (OSError, ValueError) as problem:
            self._problem = problem
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()


@contextmanager
def arriving(source: BinaryIO, to: IO[bytes], name: Path) -> Iterator[Path]:
    """Copy a stream into an unnamed file; the path to read it from, in this process.

    See :class:`Arriving` for the arguments.
    """
    path = Path(f"/dev/fd/{to.fileno()}")
    _arriving[path] = stream = Arriving(source, to, name)
    try:
        yield path
    finally:
        del _arriving[path]
        stream.drop()


def of(path: str | Path) -> Arriving | None:
    """The stream that arrives at a path; None for any other file."""
    return _arriving.get(Path(path)) if _arriving else None
