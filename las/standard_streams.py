"""Standard streams that are closed, broken or full."""

import errno
import io
import os
import sys
from contextlib import suppress

NAME = "standard output"


class _Closed(io.TextIOBase):
    """Standard output that was closed before the program started: writing is an error."""

    encoding = "utf-8"

    def writable(self) -> bool:
        """True, so that :meth:`write` is called."""
        return True

    def write(self, text: str) -> int:
        if text:
            raise OSError(errno.EBADF, "it is closed", NAME)
        return 0


def open_closed() -> None:
    """Replace standard streams that are closed.

    Otherwise a file that is opened later would get such a descriptor, and what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest descriptor that is free
    if sys.stdout is None:
        sys.stdout = _Closed()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (as Python's own)


def put(text: str) -> None:
    """Print on standard output, without buffering.

    Raises:
        OSError: with the stream's name, if it cannot be written to.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as problem:
        raise OSError(problem.errno, problem.strerror, NAME) from None


def complain(text: str) -> None:
    """Print on standard error, if it is open."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def abandon() -> None:
    """Discard what is left in the buffer of standard output, which would fail again at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
