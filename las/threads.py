"""How many threads of a CPU somebody asks for, within reason. Knows nothing of torch."""

import os

from las.errors import LASError

VARIABLE = "OMP_NUM_THREADS"
MOST = max(64, os.cpu_count() or 1)
"""Threads; with many more a process hangs or dies."""


def checked(count: int, asked: str) -> int:
    """A number of threads.

    Args:
        count: 0 or more.
        asked: what asks for them, for the message.

    Raises:
        LASError: they are more than :data:`MOST`.
    """
    if count > MOST:
        raise LASError(f"{asked}: {count} threads are too many; give at most {MOST}")
    return count


def of_environment() -> int:
    """What the variable ``OMP_NUM_THREADS`` says; 0 where it says nothing.

    Raises:
        LASError: as :func:`checked`.
    """
    asked = os.environ.get(VARIABLE, "").split(",")[0].strip()  # a list by level
    return checked(int(asked), VARIABLE) if asked.isdecimal() else 0
