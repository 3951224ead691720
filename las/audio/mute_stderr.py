"""Suppresses messages of C libraries to standard error."""

import ctypes
import functools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_users = 0  # active contexts, over all threads
_before: int | None = None


@contextmanager
def c_stderr() -> Iterator[None]:
    """Discard what C code prints to ``stderr``.

    Python writes to the file descriptor and is not affected. Does nothing if the C library is
    neither glibc nor that of macOS, as ``stderr`` may be constant there.
    """
    global _users, _before
    found = _streams()
    if found is None:
        yield
        return
    stderr, dev_null = found
    with _lock:
        _users += 1
        if _users == 1:
            _before, stderr.value = stderr.value, dev_null
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                stderr.value = _before


@functools.cache
def _streams() -> tuple[ctypes.c_void_p, int] | None:
    """The variable ``stderr`` of C, and a stream to /dev/null."""
    name = {"linux": "stderr", "darwin": "__stderrp"}.get(sys.platform)
    library = ctypes.CDLL(None) if name is not None else None
    if name is None or library is None:
        return None
    if sys.platform == "linux" and not hasattr(library, "gnu_get_libc_version"):
        return None
    library.fopen.restype = ctypes.c_void_p
    dev_null = library.fopen(b"/dev/null", b"w")
    return (ctypes.c_void_p.in_dll(library, name), dev_null) if dev_null else None
