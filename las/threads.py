"""Limits on the number of CPU threads; imports no torch."""

import os

from las.errors import LASError

VARIABLE = "OMP_NUM_THREADS"
MOST = max(64, os.cpu_count() or 1)
"""Maximum number of threads; with many more a process hangs or crashes."""


def checked(count: int, asked: str) -> int:
    """Check a number of threads.

    Args:
        count: 0 or more.
        asked: option, setting or variable that asks for them, for the message.

    Raises:
        LASError: more than :data:`MOST`.
    """
    if count > MOST:
        raise LASError(f"{asked}: {count} threads are too many; give at most {MOST}")
    return count


def of_environment() -> int:
    """The environment variable ``OMP_NUM_THREADS``; 0 if it is not set.

    Raises:
        LASError: as :func:`checked`.
    """
    asked = os.environ.get(VARIABLE, "").split(",")[0].strip()  # may be a list, by nesting level
    return checked(int(asked), VARIABLE) if asked.isdecimal() else 0
