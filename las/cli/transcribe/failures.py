"""Errors of libraries that concern one file, as the line that is reported for it."""

import errno
from pathlib import Path

from las.cli.transcribe.inputs import Source
from las.errors import LASError, shown

FILE_ERRORS = (RuntimeError, MemoryError, OSError, ValueError)
"""What libraries raise for a file. Others are errors of the program, and end it."""


def decoding_failed(path: Path, error: Exception) -> str:
    """Why a file was not decoded, and what to try."""
    from las.memory import out_of_memory  # imports torch

    message = " ".join(str(error).split())
    short = message[:200] + "..." * (len(message) > 200)
    if out_of_memory(error):
        what = f"not enough memory to decode it ({short or type(error).__name__})"
        return f"{shown(path)}: {what}; free some, or cut the file into shorter ones"
    return (
        f"{shown(path)}: decoding failed ({type(error).__name__}: {short}); try it alone with "
        "--device cpu, or convert it to wav"
    )


def writing_failed(source: Source, error: Exception) -> str:
    """Why the result of a file was not written.

    Raises:
        OSError: the other results would fail, too: standard output is closed, the disk is full.
    """
    if isinstance(error, LASError):
        return str(error)
    if isinstance(error, OSError):
        if error.filename is None or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise error
        return f"{error.filename}: {error.strerror}"
    reason = " ".join(str(error).split())
    return f"{source.shown}: cannot be written ({type(error).__name__}: {reason})"
